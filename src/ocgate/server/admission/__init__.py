"""Who may send what: sessions admitted, ended, re-adopted; their elements and flows."""
