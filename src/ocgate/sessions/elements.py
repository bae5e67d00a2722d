"""A session as nft map elements: what it may send from, on which device, by which exit.

Pure. One element per session and family; the data is the exit's mark.
"""

from __future__ import annotations

from collections.abc import Iterable

from ocgate.plan.exits import Marks
from ocgate.plan.facts import Network
from ocgate.sessions.session import Session

MAP4, MAP6 = "sessions4", "sessions6"
NO_SESSIONS: dict[str, dict[str, str]] = {MAP4: {}, MAP6: {}}


def keys(session: Session) -> tuple[tuple[str, str], ...]:
    """(map, key) of each element, in nft's canonical spelling."""
    found: list[tuple[str, str]] = []
    if session.address4 is not None:
        found.append((MAP4, f'"{session.device}" . {session.address4}'))
    if session.prefix6 is not None:
        found.append((MAP6, f'"{session.device}" . {session.prefix6.network_address}'))
    return tuple(found)


def key_of(session: Session, net: Network) -> tuple[str, str]:
    """The one of its `keys` that is for this one of its networks."""
    return (MAP4 if net.version == 4 else MAP6, f'"{session.device}" . {net.network_address}')


def data(name: str, marks: Marks) -> str:
    """What every element of this map holds: the mark of that family's exit."""
    return f"0x{marks.four if name == MAP4 else marks.six:08x}"


def wanted(sessions: Iterable[Session], marks: Marks) -> dict[str, dict[str, str]]:
    """All elements of all sessions: map -> key -> data; both maps are present even when empty."""
    found: dict[str, dict[str, str]] = {MAP4: {}, MAP6: {}}
    for session in sessions:
        for name, key in keys(session):
            found[name][key] = data(name, marks)
    return found
