"""ocserv: its configuration, users, certificates, hooks and services. Only edges and wiring import it."""
