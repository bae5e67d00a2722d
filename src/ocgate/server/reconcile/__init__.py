"""Keeps the kernel and ocserv's configuration at what is desired while the machine changes."""
