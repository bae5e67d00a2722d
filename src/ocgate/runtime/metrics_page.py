"""A page of Prometheus metrics in its text format, and the families that both roles have.

The library is imported when somebody asks, since its import takes 80 ms of the two seconds in which
a killed control plane is back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ocgate.runtime.counters import BlockedStatus

if TYPE_CHECKING:
    from prometheus_client import Metric


def page(families: Callable[[], Iterator[Metric]]) -> bytes:
    """The page of these families, as the library writes it."""
    from prometheus_client import CollectorRegistry, generate_latest

    class Source:
        """What the registry asks for families when it writes the page."""

        def collect(self) -> Iterator[Metric]:
            return families()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Source())
    return generate_latest(registry)


def repairs(count: int) -> Metric:
    """How often the kernel's state was put right."""
    from prometheus_client.core import CounterMetricFamily

    words = "Times that somebody changed our kernel state and it was put right."
    return CounterMetricFamily("ocgate_repairs", words, value=count)


def blocked(counters: Iterable[BlockedStatus]) -> Iterator[Metric]:
    """What was dropped or rejected, by reason."""
    from prometheus_client.core import CounterMetricFamily

    packets = CounterMetricFamily(
        "ocgate_blocked_packets", "Packets dropped or rejected.", labels=("reason",)
    )
    size = CounterMetricFamily(
        "ocgate_blocked_bytes", "Bytes of packets dropped or rejected.", labels=("reason",)
    )
    for counter in counters:
        packets.add_metric((counter["reason"],), counter["packets"])
        size.add_metric((counter["reason"],), counter["bytes"])
    yield from (packets, size)
