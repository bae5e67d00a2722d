"""Supervision by s6, for both roles: the service directory, the foreground process, and orders.

    terminal ── foreground ─┐ (only where there is a terminal)
                            └─ s6-svscan ─┬─ s6-supervise control ── python -m CONTROL RUN_DIR
       SIGTERM, SIGINT: .s6-svscan/stop   ├─ s6-supervise control/log ── relay -> stdout
       SIGHUP: RELOAD                      ├─ s6-supervise SERVICE ── ocserv, or a tunnel's client
                                          └─ s6-supervise SERVICE/log ── relay -> stdout

Every service leads a session of its own. A role's own do not start with control (`down` file): it
starts them when the guard has been verified. Imported by the wiring, and by what describes a role's
services.
"""

from ocgate.supervision.directory import CONTROL, Role, Service, is_left_over, script, write
from ocgate.supervision.orders import ServiceStatus, ended, start, status, stop
from ocgate.supervision.supervisor import exec_supervisor

__all__ = [
    "CONTROL",
    "Role",
    "Service",
    "ServiceStatus",
    "ended",
    "exec_supervisor",
    "is_left_over",
    "script",
    "start",
    "status",
    "stop",
    "write",
]
