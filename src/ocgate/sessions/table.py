"""Who is connected: the table of live sessions and the one decision about a new one.

Pure and single-threaded; the control plane owns the only instance. State belongs to the session,
never to its address: on roaming ocserv starts connect(new) before disconnect(old), with the same
address, so an end removes only what that very session owns.

    judge(candidate) -> Admit(displaced)   nothing stands against it but sessions surely dead
                     -> Contested(rivals)  a rival holds its address; admit once its worker died
                     -> Refuse(why)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ocgate.plan.facts import Network
from ocgate.sessions.session import Session


@dataclass(frozen=True)
class Admit:
    """Put it in; `displaced` are sessions whose device it took over: ocserv gave their tun's name
    away, so their tun is gone."""

    displaced: tuple[Session, ...] = ()


@dataclass(frozen=True)
class Contested:
    """`rivals` hold an address of the candidate. If their workers are gone (roaming: ocserv has
    just ended them), they make way; if they live (two leases of one explicit-ipv4), refuse."""

    rivals: tuple[Session, ...]


@dataclass(frozen=True)
class Refuse:
    """Not admitted; `why` goes to the log and to ocserv."""

    why: str


Judgement = Admit | Contested | Refuse


@dataclass
class SessionTable:
    """Live sessions by key, indexed by worker, device and owned network: no operation scans."""

    _by_key: dict[tuple[int, int], Session] = field(default_factory=dict)
    _by_worker: dict[int, dict[tuple[int, int], Session]] = field(default_factory=dict)
    _by_device: dict[str, Session] = field(default_factory=dict)
    _by_network: dict[Network, Session] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._by_key.values()))

    def judge(self, new: Session, *, device: str, subnets: tuple[Network, ...]) -> Judgement:
        """Whether `new` may come in. device: ocserv's prefix; subnets: the clients'."""
        if not new.device.startswith(device):
            return Refuse(f"its device {new.device} is not one of {device}*, which the rules guard")
        outside = new.outside(subnets)
        if outside:
            return Refuse(
                f"its address {outside[0].network_address} lies outside the client subnets"
            )
        rivals = {r.key: r for net in new.networks if (r := self._by_network.get(net))}
        rivals.pop(new.key, None)
        by_device = self._by_device.get(new.device)
        if by_device is not None and by_device.key != new.key:
            rivals.pop(by_device.key, None)
            displaced: tuple[Session, ...] = (by_device,)
        else:
            displaced = ()
        return Contested(tuple(rivals.values())) if rivals else Admit(displaced)

    def add(self, session: Session) -> None:
        """Enter an admitted session; its device and networks are its own from now on."""
        self.end(session)
        self._by_key[session.key] = session
        self._by_worker.setdefault(session.worker, {})[session.key] = session
        self._by_device[session.device] = session
        for net in session.networks:
            self._by_network[net] = session

    def end(self, session: Session) -> bool:
        """Remove it; False if it was gone already. What another session took over stays."""
        held = self._by_key.pop(session.key, None)
        if held is None:
            return False
        of_worker = self._by_worker[held.worker]
        del of_worker[held.key]
        if not of_worker:
            del self._by_worker[held.worker]
        if self._by_device.get(held.device) == held:
            del self._by_device[held.device]
        for net in held.networks:
            if self._by_network.get(net) == held:
                del self._by_network[net]
        return True

    def of_worker(self, worker: int) -> tuple[Session, ...]:
        """Sessions of that process id; two only where the id was reused before the first ended."""
        return tuple(self._by_worker.get(worker, {}).values())

    def on_device(self, device: str) -> Session | None:
        """The session that owns this device now."""
        return self._by_device.get(device)

    def owner_of(self, network: Network) -> Session | None:
        """The session that owns exactly this address or prefix now."""
        return self._by_network.get(network)

    def owns(self, session: Session) -> bool:
        """Whether it is live."""
        return session.key in self._by_key


@dataclass(frozen=True)
class Ending:
    """What a disconnect says of its session. started: the worker's start time in clock ticks, None
    where it was gone already; duration: STATS_DURATION in seconds, None on a refusal."""

    user: str
    device: str
    started: int | None
    duration: int | None


def ended_by(
    candidates: tuple[Session, ...], ending: Ending, *, age: Callable[[Session], float]
) -> Session | None:
    """Which of one worker's sessions a disconnect means, or None.

    A late disconnect of a process id that has been reused must not end its successor: that one
    started at another time, has another device or user, or is younger than the session that ended
    (2 s cover ocserv's rounding and the time between its clock and ours).

    age: of a session's worker in seconds, by a clock that nobody sets.
    """
    for session in candidates:
        if ending.started is not None:
            if session.started == ending.started:
                return session
        elif (session.user, session.device) == (ending.user, ending.device) and (
            ending.duration is None or ending.duration <= age(session) + 2
        ):
            return session
    return None
