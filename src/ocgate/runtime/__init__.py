"""What the processes of both roles are made of: log, run dir, control socket, records, probes."""
