"""Certificates in use: followed when they are renewed, and displayed."""
