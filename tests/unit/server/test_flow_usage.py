"""The busiest destination is counted beside the status, which waits for it only so long."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ocgate.errors import KernelRefused
from ocgate.server.desired.prepare import Prepared
from ocgate.server.status import flow_usage
from ocgate.server.status.flow_usage import FlowUsage

PREPARED = cast(
    Prepared, SimpleNamespace(intent=SimpleNamespace(ports=(1, 100), session_flows=50), subnets=())
)


class Kernel:
    """A table that takes until `answered` to be read."""

    def __init__(self, entries: int) -> None:
        self.entries = entries
        self.answered = threading.Event()
        self.asked = 0
        self.fails = False

    def usage(self) -> tuple[int, int]:
        return self.entries, 1000

    def busiest(self, _: Any) -> tuple[str, int]:
        self.asked += 1
        self.answered.wait(10)
        if self.fails:
            raise KernelRefused("refused", request="conntrack", reply="no")
        return "198.51.100.10 udp 53", 95


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(entries=95)
    monkeypatch.setattr(flow_usage, "conntrack", made)
    monkeypatch.setattr(flow_usage, "PATIENCE", 0.05)
    return made


def test_few_flows_are_not_counted(kernel: Kernel) -> None:
    kernel.entries = 89
    found = asyncio.run(FlowUsage().collect(PREPARED))
    assert (found["entries"], found["ports_used"], kernel.asked) == (89, None, 0)


def test_a_status_does_not_wait_for_a_full_table_and_the_next_one_knows(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> list[int | None]:
        usage = FlowUsage()
        used = [(await usage.collect(PREPARED))["ports_used"] for _ in range(2)]
        kernel.answered.set()
        monkeypatch.setattr(flow_usage, "PATIENCE", 10.0)  # a busy machine takes its time
        return [*used, *[(await usage.collect(PREPARED))["ports_used"] for _ in range(2)]]

    assert asyncio.run(ask()) == [None, None, 95, 95]
    assert kernel.asked == 1  # one count at a time, and then a rest: nine times what it took


def test_what_the_kernel_refuses_is_said(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.fails = True
    kernel.answered.set()
    monkeypatch.setattr(flow_usage, "PATIENCE", 10.0)
    with pytest.raises(KernelRefused):
        asyncio.run(FlowUsage().collect(PREPARED))
