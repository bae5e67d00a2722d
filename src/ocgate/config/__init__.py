"""What the operator asked for: one typed model from the environment and ocgate.toml.

Everything here but `load` is pure. The settings are declared once, in `model`. The page of all of
them (`page`) and the exit role's (`exit_model`) are not among what this names: each process of the
server would pay for them at its start.
"""

from ocgate.config.choices import Forwarding, Ipv6Nat, LogFormat, LogLevel
from ocgate.config.endpoints import Endpoint
from ocgate.config.gateways import Upstream, UpstreamKind
from ocgate.config.load import Loaded, load
from ocgate.config.model import Settings
from ocgate.config.origin import Origin
from ocgate.config.table import Row, table_rows

__all__ = [
    "Endpoint",
    "Forwarding",
    "Ipv6Nat",
    "Loaded",
    "LogFormat",
    "LogLevel",
    "Origin",
    "Row",
    "Settings",
    "Upstream",
    "UpstreamKind",
    "load",
    "table_rows",
]
