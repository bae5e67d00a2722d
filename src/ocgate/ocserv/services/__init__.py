"""The server's services: ocserv beside control (`supervision` says how they are run), and orders
to ocserv. Imported by the wiring only."""

from ocgate.ocserv.services.directory import logging_arguments, write
from ocgate.ocserv.services.orders import (
    ocserv_pid,
    reload_ocserv,
    start_ocserv,
    status,
    stop_ocserv,
)
from ocgate.supervision import ServiceStatus, exec_supervisor, is_left_over

__all__ = [
    "ServiceStatus",
    "exec_supervisor",
    "is_left_over",
    "logging_arguments",
    "ocserv_pid",
    "reload_ocserv",
    "start_ocserv",
    "status",
    "stop_ocserv",
    "write",
]
