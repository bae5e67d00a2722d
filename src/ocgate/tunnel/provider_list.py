"""A provider's list of servers: from its API, or the copy that was kept of an earlier one. An edge.

The copy is for starts without the API; while it answers, every start asks it, because the loads by
which a server is chosen are minutes old at best.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from ocgate.errors import OcgateError
from ocgate.tunnel.provider import Ask, Listing, NotListed, Provider, Wish, kept, unkept

# The servers of eight countries, more than which are not asked for one by one, take 2 MB here.
_LARGEST_COPY = 8 << 20

_READABLE = 0o644  # nothing in it that the API would not tell anybody


@dataclass(frozen=True)
class Obtained:
    """A listing. age: seconds since the API gave it, 0 when it just did. notices: what went wrong
    on the way, one sentence each."""

    listing: Listing
    age: float
    notices: tuple[str, ...] = ()


def obtain(
    provider: Provider, wish: Wish, *, ask: Ask | None, cache_dir: Path, now: float
) -> Obtained:
    """The list for a wish. Blocks for the API's limits at most.

    ask: of the API, None where it can't be reached. now: seconds since 1970. Raises NotListed where
    there is neither an answer nor a copy, ConfigurationError for names that the provider lacks.
    """
    copy = cache_dir / f"{provider.name}.json"
    try:
        if ask is None:
            raise NotListed(f"{provider.service} is not reachable")
        listing = provider.list_servers(ask, wish)
    except NotListed as failure:
        return _from_copy(copy, wish, now, failure)
    return Obtained(listing, 0.0, _keep(copy, listing, now))


def _from_copy(copy: Path, wish: Wish, now: float, failure: NotListed) -> Obtained:
    """The kept list, if it was made for this wish or for a wider one."""
    try:
        listing, moment = unkept(_read(copy))
    except (NotListed, OSError) as error:
        why = error.message if isinstance(error, NotListed) else _words(error)
        hint = failure.hint or "Check that this container reaches the internet by its uplink"
        raise NotListed(f"{failure.message}; and {copy}: {why}", hint=hint) from None
    if not _covers(listing.wish, wish):
        other = "it was made for other places or another technology"
        raise NotListed(f"{failure.message}; and {copy}: {other}", hint=failure.hint) from None
    age = max(0.0, now - moment)
    notice = f"{failure.message}; servers are chosen from the list of {told_age(age)} ago"
    return Obtained(listing, age, (notice,))


def _covers(asked: Wish, wish: Wish) -> bool:
    """Whether a list that was asked for by one wish has the servers of another.

    Exactly, but for RANDOM_TOP: a list of 500 of each country says nothing of the others.
    """
    same = (asked.countries, asked.cities, asked.groups) == (
        wish.countries,
        wish.cities,
        wish.groups,
    )
    return same and asked.technology == wish.technology


def told_age(seconds: float) -> str:
    """An age in the largest unit that fits: `3 h`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def _keep(copy: Path, listing: Listing, now: float) -> tuple[str, ...]:
    """Replace the copy in one step; a failure is a notice, because the listing itself is there."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        _write(copy, kept(listing, now))
    except OSError as error:
        return (
            f"{copy}: the list of servers can't be kept ({_words(error)}); a start without "
            "the API will fail",
        )
    return ()


def _write(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), _READABLE)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST_COPY + 1)
    if len(data) > _LARGEST_COPY:
        raise NotListed(f"the copy is larger than {_LARGEST_COPY} bytes")
    return data


def _words(error: OSError | OcgateError) -> str:
    return getattr(error, "strerror", None) or str(error)
