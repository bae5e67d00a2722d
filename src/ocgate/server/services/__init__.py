"""Supervision by s6: the service directory, the foreground process, and orders to ocserv.

    terminal ── foreground ─┐ (only where there is a terminal)
                            └─ s6-svscan ─┬─ s6-supervise control ── python -m ocgate.control.daemon
       SIGTERM, SIGINT: .s6-svscan/stop   ├─ s6-supervise control/log ── relay -> stdout
       SIGHUP: ocgate.control.ask reload  ├─ s6-supervise ocserv ── ocserv (sec-mod, workers, hooks)
                                          └─ s6-supervise ocserv/log ── relay -> stdout

Every service leads a session of its own. ocserv does not start with the others (`down` file):
control starts it when the guard has been verified. Imported by the wiring only.
"""

from ocgate.server.services.directory import logging_arguments, write
from ocgate.server.services.orders import (
    ServiceStatus,
    ocserv_pid,
    reload_ocserv,
    start_ocserv,
    status,
    stop_ocserv,
)
from ocgate.server.services.supervisor import exec_supervisor

__all__ = [
    "ServiceStatus",
    "exec_supervisor",
    "logging_arguments",
    "ocserv_pid",
    "reload_ocserv",
    "start_ocserv",
    "status",
    "stop_ocserv",
    "write",
]
