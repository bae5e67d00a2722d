"""How often a way is probed, and how many answers count: the same forms for both roles. Pure."""

from __future__ import annotations

from ocgate.config.values import Form, decimal, integer

# An hour between two looks is the most that still finds anything; 50 ms is a fast probe's answer.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.05, 3600

INTERVAL = decimal(SHORTEST_INTERVAL, LONGEST_INTERVAL, "seconds", outside="write 1, say")

# More than a hundred probes in a row are minutes, whatever the interval.
MOST_PROBES = 100


def in_a_row(example: int) -> Form:
    """So many probes with the same outcome; `example` stands in the remedy."""
    return integer(1, MOST_PROBES, "probes", outside=f"write {example}, say")
