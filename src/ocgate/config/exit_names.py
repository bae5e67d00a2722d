"""The exit role's settings table, and the names that it reads from an environment. Pure."""

from __future__ import annotations

from ocgate.config.environment import Vocabulary
from ocgate.config.exit_foreign import FOREIGN
from ocgate.config.exit_model import ExitSettings
from ocgate.config.table import SERVER, table_of

EXIT = table_of(ExitSettings, FOREIGN)

_OUR_PREFIXES = ("VPN_", "OCGATE_", "EXIT_")

# Of the short names only those that no other program has: COUNTRY and USER are anybody's.
_GUARDED = frozenset(
    name
    for name in EXIT.known
    if name.startswith(_OUR_PREFIXES)
    or name in {"OVPN_CONFIG", "WG_CONFIG", "SERVERCERT", "FORWARD_FROM", "GATEWAY_DNS"}
)

EXIT_NAMES = Vocabulary(
    EXIT,
    _OUR_PREFIXES,
    _GUARDED,
    loose=(),
    elsewhere=dict.fromkeys(
        SERVER.known - EXIT.known,
        "remove it here: it is a setting of the server role, `ocgate run`",
    ),
)
