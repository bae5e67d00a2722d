"""The known name nearest to a misspelt one. Pure; only config uses it."""

from __future__ import annotations

from collections.abc import Iterable

# Below this length a foreign name is too easily one slip away (MSS and MSG).
_SHORTEST_SLIP = 8


def distance(left: str, right: str) -> int:
    """Optimal string alignment: fewest insertions, deletions, replacements and swaps of neighbours.

    Swaps count one, because `VPN_SUBNTE` is one slip of the fingers and not two.
    """
    before: list[int] = []
    previous = list(range(len(right) + 1))
    for row, a in enumerate(left, 1):
        current = [row]
        for column, b in enumerate(right, 1):
            cost = min(
                previous[column] + 1,
                current[column - 1] + 1,
                previous[column - 1] + (a != b),
            )
            if row > 1 and column > 1 and a == right[column - 2] and left[row - 2] == b:
                cost = min(cost, before[column - 2] + 1)
            current.append(cost)
        before, previous = previous, current
    return previous[-1]


def nearest(name: str, known: Iterable[str]) -> tuple[str, int]:
    """The closest of `known` (at least one) and its distance; of equals the first by alphabet."""
    steps, best = min((distance(name, candidate), candidate) for candidate in known)
    return best, steps


def one_slip(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` misses by at most one slip, if any.

    Meant for every variable of an environment, so it is cheap: one slip leaves the start or the end
    of the name as it was, and only then the distance is counted.
    """
    for candidate in sorted(known):
        half = len(candidate) // 2 - 1
        if len(candidate) < _SHORTEST_SLIP or abs(len(candidate) - len(name)) > 1:
            continue
        intact = name.startswith(candidate[:half]) or name.endswith(candidate[-half:])
        if intact and distance(name, candidate) <= 1:
            return candidate
    return None
