"""The end of a chaos run: the plan holds, and a stop leaves nothing."""

from __future__ import annotations

from ocgate.errors import OcgateError
from ocgate.names import CONTROL_PID, CONTROL_SOCKET, OCSERV_PID
from ocgate.netlab.kernel_state import KernelState, observe
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.prove import faults
from ocgate.prove.fault import Expect, Fault
from ocgate.prove.gateway import Gateway
from ocgate.prove.stage import DEFAULT, MAIN, Stage
from ocgate.prove.subject import Unsupported

SETTLED_SECONDS = 10.0


class Ending:
    """Made before the subject's first start, whose kernel state is what must be left at the end."""

    def __init__(self, stage: Stage) -> None:
        self.before: KernelState = observe(stage.gw)

    def fault(self) -> Fault:
        """What the engine runs, last."""
        return Fault(
            "the end: plan and stop", "chaos", self.inject, start, expect=Expect.COMES_BACK
        )

    def inject(self, stage: Stage) -> None:
        """Raises OcgateError with what differs, or is left."""
        subject = stage.subject
        if not isinstance(subject, Gateway):
            raise Unsupported("a subject without a plan")
        _settled(subject)
        for client in tuple(stage.clients.live):
            stage.clients.disconnect(client)
        stage.stop()
        kernel = [line for line in self.before.differences(observe(stage.gw)) if not _laid(line)]
        left = [*kernel, *_files(subject), *_running(subject)]
        if left:
            raise OcgateError("a stop has left: " + "; ".join(left))


def start(stage: Stage) -> None:
    """Serve again, so that the engine's own end finds what it expects."""
    if not stage.subject.running():
        stage.start()
        faults.reconnect(stage)


def _settled(subject: Gateway) -> None:
    differing = ""

    def equal() -> bool:
        nonlocal differing
        differing = subject.plan_diff()
        return not differing

    try:
        wait_until(equal, SETTLED_SECONDS, "the plan in the kernel", interval=0.5)
    except TimedOut:
        raise OcgateError(f"plan --diff is not empty: {differing}") from None


def _laid(difference: str) -> bool:
    """Whether it is about the kernel's own two rules: who flushes all puts these back by hand, and
    `ip` then writes another origin."""
    return any(f'"priority": {priority},' in difference for priority in (MAIN, DEFAULT))


def _files(subject: Gateway) -> list[str]:
    signs = (CONTROL_PID, CONTROL_SOCKET, OCSERV_PID)
    return [f"file {name}" for name in signs if (subject.run_dir / name).exists()]


def _running(subject: Gateway) -> list[str]:
    return [f"process {pid}" for pid in subject.netns.pids()]
