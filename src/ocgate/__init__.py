"""ocgate: a self-configuring OpenConnect VPN server whose clients cannot leak."""

__version__ = "0.1.0"
