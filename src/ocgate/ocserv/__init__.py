"""ocserv: its configuration, users, certificates, hooks and services."""
