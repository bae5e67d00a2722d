"""The runner: what it does for each turn of the machine, in which order, and whom it believes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
from collections.abc import Callable, Coroutine, Mapping
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ocgate.errors import OcgateError
from ocgate.exit_node.client import Running
from ocgate.exit_node.reconciler import CLOSED, Open
from ocgate.exit_node.record import Record, read_record
from ocgate.exit_node.runner import Runner
from ocgate.exit_node.state_machine import Machine, Next, Phase, Silent
from ocgate.tunnel import gate
from ocgate.tunnel.gate import Reported
from ocgate.tunnel.model import Carried, Endpoint, ExitIntent, Launch, Remote
from ocgate.tunnel.wireguard import Interface

A, B = (Remote(f"{name}.example", 1194, ("udp",), name) for name in "ab")
ENDPOINT = Endpoint(ip_address("192.0.2.1"), 1194, ("udp",))
CARRIED = Carried((ip_interface("10.8.0.2/32"),), 1500)
HOOK = {"script_type": "up"}


class FakeKind:
    """Two servers, OpenVPN's manner."""

    name, device, uid = "openvpn", "tun0", 23143
    programs: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    def remotes(self) -> tuple[Remote, ...]:
        return (A, B)

    def launch(self, remote: Remote, endpoint: Endpoint, directory: Path, hook: Path) -> Launch:
        return Launch(("client", remote.label), {})

    def interface(self, remote: Remote, endpoint: Endpoint) -> Interface | None:
        return None

    def reported(self, environment: Mapping[str, str]) -> Reported:
        return Reported(mtu="1500", address4="10.8.0.2" if environment == HOOK else "")


class World:
    """Reconciler, client and look-ups in one, which note what is asked of them."""

    def __init__(self, run_dir: Path) -> None:
        self.done: list[str] = []
        self.directory = run_dir / "tunnel"
        self.pid: Running | None = None
        self.serial = 0
        self.words = ["tunnel exited with 1"]
        self.refuse: Callable[[Open], bool] = lambda _: False
        self.unusable: Callable[[Open], bool] = lambda _: False
        self.resolves = True
        self.index = 3
        self.lacking: BaseException | None = None

    def taken(self, given: Reported | Carried) -> Carried:
        """As the reconciler on a host with no networks around it."""
        assert isinstance(given, Reported)
        taken = gate.read(given, ExitIntent("tun0", (), ()))
        if taken.carried is None:
            raise gate.Unusable(taken.said)
        return taken.carried

    async def hold(self, wanted: Open, *, insist: bool = False) -> None:
        self.insisted = insist
        if self.unusable(wanted):
            raise gate.Unusable("it lies in 10.8.0.0/24")
        if self.refuse(wanted):
            raise OcgateError("the kernel says no")
        shut = "closed" if wanted == CLOSED else "endpoint"
        self.done.append("carried" if wanted.carried else shut)

    async def endpoint(self, remote: Remote, nth: int) -> Endpoint:
        self.done.append(f"resolve {remote.label}")
        if not self.resolves:
            raise OcgateError("NXDOMAIN")
        return ENDPOINT

    async def remotes(self) -> tuple[Remote, ...]:
        raise AssertionError("they are known")

    def start(self, launch: Launch, *, uid: int) -> None:
        if self.lacking is not None:
            raise self.lacking
        self.done.append(f"start {launch.argv[1]}")
        self.serial += 1
        self.pid = Running(self.serial, 0)

    def stop(self) -> None:
        self.done.append("stop")
        self.pid = None

    def running(self) -> Running | None:
        return self.pid

    def last_words(self) -> list[str]:
        return self.words


Body = Callable[[Runner, World], Coroutine[Any, Any, None]]


def runs(before: Callable[[World], Record | None] = lambda _: None) -> Callable[[Body], Any]:
    """A test whose body runs beside a runner that has begun."""

    def decorate(body: Body) -> Callable[[Path], None]:
        @functools.wraps(body)
        def test(tmp_path: Path) -> None:
            async def main() -> None:
                world = World(tmp_path)
                runner = Runner(
                    *(tmp_path, FakeKind(), world, world, world),
                    rotate=0,
                    index_of=lambda _: world.index,
                )
                await runner.start(before(world))
                task = asyncio.create_task(runner.run())
                await settled()
                await body(runner, world)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

            asyncio.run(main())

        del test.__wrapped__  # or pytest looks for its arguments
        return test

    return decorate


async def settled() -> None:
    """Threads that the runner asks answer at once; a hundred turns of the loop are enough."""
    for _ in range(100):
        await asyncio.sleep(0.001)


BEGUN = ["closed", "stop", "resolve a", "endpoint", "start a"]


@runs()
async def test_it_begins_closed_and_opens_for_the_endpoint_before_the_client(
    runner: Runner, world: World
) -> None:
    assert world.done == BEGUN
    assert runner.machine.phase is Phase.CONNECTING


@runs()
async def test_the_hook_is_told_when_clients_are_let_in(runner: Runner, world: World) -> None:
    assert await runner.configured(HOOK) == ""
    assert world.done == [*BEGUN, "carried"]
    assert runner.machine.phase is Phase.UP


@runs()
async def test_a_stop_is_not_lost_where_something_is_heard_at_once(
    runner: Runner, world: World
) -> None:
    """`runs` cancels it in the same turn of the loop, and waits for its end."""
    runner.client_ended()


@runs()
async def test_a_hook_that_makes_no_sense_is_refused(runner: Runner, world: World) -> None:
    why = "nothing of what the tunnel's server gave can be used: no address: the server gave none"
    assert await runner.configured({}) == why
    await settled()
    assert world.done[-2:] == ["stop", "closed"]
    assert (runner.machine.phase, runner.machine.why) == (Phase.WAITING, why)


@runs()
async def test_a_hook_that_is_gone_with_its_answer_was_the_clients(
    runner: Runner, world: World
) -> None:
    """Whose it is can be asked only while it waits; then nobody descends from anybody."""
    with mock.patch("ocgate.exit_node.runner.process.descends", side_effect=[True, False]):
        await runner.configured({}, hook=1)
        await settled()
    assert runner.machine.phase is Phase.WAITING


@runs()
async def test_what_the_kernel_refuses_ends_the_client(runner: Runner, world: World) -> None:
    world.refuse = lambda wanted: wanted.carried is not None
    assert await runner.configured(HOOK) == "the tunnel can't be configured: the kernel says no"
    assert world.done[-2:] == ["stop", "closed"]
    assert runner.machine.why == "the tunnel can't be configured: the kernel says no"


@runs()
async def test_a_tunnel_is_closed_in_order(runner: Runner, world: World) -> None:
    """Clients first, then the client, which may still say goodbye to its server, then all."""
    await runner.configured(HOOK)
    await runner.say(Next())
    closing = ["endpoint", "stop", "closed"]
    assert world.done == [*BEGUN, "carried", *closing, "resolve b", "endpoint", "start b"]


@runs()
async def test_the_clients_end_is_explained_by_its_last_words(runner: Runner, world: World) -> None:
    world.words = ["AUTH: Received control message: AUTH_FAILED", "tunnel exited with 0"]
    runner.client_ended()
    await settled()
    assert runner.machine.phase is Phase.WAITING
    assert runner.machine.why == "the server refused user and password"


@runs()
async def test_what_an_old_client_says_is_not_believed(runner: Runner, world: World) -> None:
    serial = runner.serial
    await runner.say(Next())
    assert runner.machine.phase is Phase.CONNECTING
    assert await runner.say(Silent("no answer"), serial=serial)
    assert runner.machine.phase is Phase.CONNECTING
    assert runner.machine.why == ""


@runs()
async def test_what_is_in_force_is_kept_for_a_restart(runner: Runner, world: World) -> None:
    await runner.configured(HOOK)
    kept = read_record(world.directory.parent)
    assert kept == Record(runner.machine, world.pid, 3)


def standing(world: World) -> Record:
    """A tunnel of a former control, whose client lives."""
    from ocgate.exit_node import state_machine as machines

    first, _ = machines.begin((A, B), rotate=0, now=0)
    connecting, _ = machines.step(first, machines.Resolved(ENDPOINT), 0)
    up, _ = machines.step(connecting, machines.Configured(CARRIED), 0)
    world.pid = Running(77, 5)
    return Record(up, world.pid, 3)


@runs(standing)
async def test_a_tunnel_that_stands_is_adopted(runner: Runner, world: World) -> None:
    assert world.done == ["carried"]
    assert runner.machine.phase is Phase.UP


def dead(world: World) -> Record:
    record = standing(world)
    world.pid = None
    return record


@runs(dead)
async def test_one_whose_client_died_is_begun_anew(runner: Runner, world: World) -> None:
    assert world.done == BEGUN


def refusing(world: World) -> Record:
    world.refuse = lambda _: True
    return standing(world)


@runs(refusing)
async def test_one_that_cannot_be_verified_yet_is_adopted(runner: Runner, world: World) -> None:
    """A full run dir, or a kernel that refuses: what was left stands, and is tried again."""
    assert (runner.machine.phase, world.insisted) == (Phase.UP, True)
    assert world.done == []


def refused_without_a_tunnel(world: World) -> None:
    world.refuse = lambda _: True


@runs(refused_without_a_tunnel)
async def test_a_switch_that_cannot_be_closed_again_ends_no_control(
    runner: Runner, world: World
) -> None:
    """It would come back into the same. The next attempt is made by itself."""
    assert (runner.machine.phase, runner.machine.why) == (Phase.WAITING, "the kernel says no")
    world.refuse = lambda _: False
    await runner.say(Next())
    assert runner.machine.phase is Phase.CONNECTING


def surrounded(world: World) -> Record:
    world.unusable = lambda wanted: wanted.carried is not None
    return standing(world)


@runs(surrounded)
async def test_one_whose_address_a_network_has_by_now_is_closed(
    runner: Runner, world: World
) -> None:
    """Attached while control was away: the switch is closed, and the tunnel is begun anew."""
    assert world.done == BEGUN


def waiting(_: World) -> Record:
    return Record(Machine((A, B), phase=Phase.WAITING, until=1e12, failures=5, why="no"))


@runs(waiting)
async def test_a_pause_goes_on_over_a_restart(runner: Runner, world: World) -> None:
    assert world.done == ["closed", "stop"]
    assert (runner.machine.phase, runner.machine.failures) == (Phase.WAITING, 5)


def replaced(world: World) -> Record:
    record = standing(world)
    world.index = 4
    return record


@runs(replaced)
async def test_one_whose_device_is_another_is_begun_anew(runner: Runner, world: World) -> None:
    assert world.done == BEGUN


@runs()
async def test_a_client_whose_device_was_deleted_is_replaced(runner: Runner, world: World) -> None:
    await runner.configured(HOOK)
    with mock.patch("ocgate.kernel.process.alive", return_value=True):
        runner.check()
        await settled()
        assert runner.machine.phase is Phase.UP
        world.index = 4
        runner.check()
        await settled()
    assert runner.machine.why == "the tunnel's device was deleted"
    assert world.done[-3:] == ["endpoint", "stop", "closed"]


def nowhere(world: World) -> None:
    world.resolves = False


@runs(nowhere)
async def test_a_name_that_does_not_resolve_leaves_the_switch_closed(
    runner: Runner, world: World
) -> None:
    assert world.done == ["closed", "stop", "resolve a", "closed"]
    assert (runner.machine.phase, runner.machine.why) == (Phase.WAITING, "NXDOMAIN")


def without_processes(world: World) -> None:
    world.lacking = BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def without_memory(world: World) -> None:
    world.lacking = MemoryError()


@pytest.mark.parametrize(
    ("take_away", "why"),
    [(without_processes, "Resource temporarily unavailable"), (without_memory, "no memory")],
)
def test_what_the_machine_lacks_ends_the_attempt_and_not_control(
    take_away: Callable[[World], None], why: str, tmp_path: Path
) -> None:
    """The switch is closed, the reason told, and the next attempt comes by itself."""

    @runs(take_away)
    async def body(runner: Runner, world: World) -> None:
        assert (runner.machine.phase, runner.machine.why) == (Phase.WAITING, why)
        assert world.done[-1] == "closed"
        world.lacking = None
        await runner.say(Next())
        assert runner.machine.phase is Phase.CONNECTING

    body(tmp_path)
