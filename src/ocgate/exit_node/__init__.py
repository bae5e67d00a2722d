"""The exit role: `ocgate exit`, a tunnel client with a kill switch that lets networks out."""
