"""Why a tunnel's client ended, in a clause, from what it said last. Pure.

The clients speak to people; these are the sentences that an operator meets, in the words of
OpenVPN 2.6 and openconnect 9. What is not known is told as it was said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ocgate.exit_node.state_machine import Ended

_REFUSED = "the server refused user and password"
_NOT_VALID = "the server's certificate is not valid"
_NO_SERVER = "the server's certificate is not that of a VPN server"
_NOT_PINNED = "the server's certificate is not the one of SERVERCERT"
_NO_DEVICE = "its client may not open the tunnel's device"
_SILENT = "the server does not answer"
_CLOSED = "the server refused the connection"
_NO_WAY = "the network does not reach the server"
_ENDED = "the server ended the connection"

# Sentence -> clause. The first that was said counts: what comes later often follows from it.
_EVERYWHERE = (
    (r"AUTH_FAILED", _REFUSED),
    (r"Login failed|User input required in non-interactive mode", _REFUSED),
)
_HERE = (
    (r"VERIFY (?:KU|EKU|X509NAME) ERROR", _NO_SERVER),
    (r"VERIFY ERROR", _NOT_VALID),
    (r"None of the \d+ fingerprint|Server SSL certificate didn't match", _NOT_PINNED),
    (r"Server certificate verify failed: (?!signer not found)", _NOT_VALID),
    (r"Cannot open TUN/TAP dev|Failed to open tun device|TUNSETIFF", _NO_DEVICE),
    (r"Set up tun device failed", _NO_DEVICE),
    (r"TLS key negotiation failed|TLS handshake failed|Inactivity timeout", _SILENT),
    (r"Connection refused", _CLOSED),
    (r"No route to host|Network (?:is )?unreachable", _NO_WAY),
    (r"(?:Connection|Operation) timed out", _SILENT),
    (r"ocgate hook: (?P<said>.*)", "control did not take what it reported: {said}"),
    (r"Options error: (?P<said>.*)", "OpenVPN does not take its configuration: {said}"),
    (r"server-pushed|Connection reset|SIGTERM received, sending exit", _ENDED),
    (r"Session terminated by server|Cookie (?:is no longer valid|was rejected)", _ENDED),
)

# From here on the tunnel stood: what was said before has nothing to do with its end.
_STOOD = re.compile(r"Initialization Sequence Completed|Configured as ")
# OpenVPN asks for main's routes, which it is not given to use, and tells of what is not there.
_OF_NO_CONCERN = re.compile(r"sitnl_|net_route_")
_KILLED = re.compile(r"was ended by signal (?!15\b)\d+")

_LAST_LINE = re.compile(r"tunnel ((?:exited with|was ended by signal) \d+)")
_DATE = re.compile(r"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")  # OpenVPN's
_LONGEST = 200  # characters of a clause; a line of a log can be longer


def explained(lines: Sequence[str]) -> Ended:
    """The end, from the client's lines, oldest first, with the finish script's last."""
    stood = [number for number, line in enumerate(lines) if _STOOD.search(line)]
    said = lines[stood[-1] + 1 :] if stood else lines
    relevant = [line for line in said if not _OF_NO_CONCERN.search(line)]
    if relevant and _KILLED.search(relevant[-1]):
        return Ended(_as_said(relevant[-1:]))
    return _known(relevant) or Ended(_as_said(relevant)[:_LONGEST])


def _known(lines: Sequence[str]) -> Ended | None:
    text = "\n".join(lines)
    for known, everywhere in ((_EVERYWHERE, True), (_HERE, False)):
        said = ((re.search(sentence, text), clause) for sentence, clause in known)
        heard = [(found.start(), found, clause) for found, clause in said if found]
        if heard:
            _, found, clause = min(heard, key=lambda entry: entry[0])
            why = clause.format(**found.groupdict())
            return Ended(why[:_LONGEST], everywhere=everywhere)
    return None


def _as_said(lines: Sequence[str]) -> str:
    """How it ended, and its last own words."""
    how, said = "its client ended", ""
    for line in reversed(lines):
        last = _LAST_LINE.fullmatch(line)
        if last:
            how = f"its client {last[1]}"
        elif line.strip():
            said = _DATE.sub("", line).strip()
            break
    return f"{how}: {said}" if said else how
