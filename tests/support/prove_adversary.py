"""A provider and a neighbour that attack all the time, while a chaos run breaks everything else."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from ocgate.names import NFT_TABLE_EXIT, TUNNEL_DEVICE
from ocgate.netlab.inject import into_tun
from ocgate.netlab.packet import build_udp
from ocgate.netlab.wait import TimedOut, wait_until
from ocgate.prove.fault import Fault
from ocgate.prove.stage import Stage
from support.prove_exit import PROVIDER
from support.prove_forgeries import FORGED
from support.prove_hostile import PROVIDERS_END, stolen
from support.prove_rows import CLIENTS, DOCKER_HOST, GW, NEIGHBOUR, NOBODYS, Rows
from support.prove_watch import Watch

PAUSE = 0.3  # seconds between two attacks; each is some hundred packets
HOSTILE = 1 / 3  # of the time in which what is pushed is others'

SETS = (
    *(stolen(address) for address in (NOBODYS, GW, CLIENTS, IPv4Address("127.0.0.1"))),
    (f"ifconfig-push {GW} 255.255.255.0",),  # IPv6's is honest: no tunnel for users
    (f'push "dhcp-option DNS {NEIGHBOUR}"', f'push "dhcp-option DNS {DOCKER_HOST}"'),
    ('push "redirect-gateway def1 ipv6"', f'push "route {PROVIDER} 255.255.255.255"'),
)


@dataclass
class Adversary:
    """Context manager; attacks from a thread until it is left. attacks: how many there were."""

    rows: Rows
    seed: int
    attacks: int = 0
    pushed: int = 0
    _quiet: threading.Lock = field(default_factory=threading.Lock)
    _closing: threading.Event = field(default_factory=threading.Event)
    _error: BaseException | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True, name="adversary")

    def __enter__(self) -> Adversary:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        chance = random.Random(f"{self.seed} adversary")
        try:
            while not self._closing.wait(PAUSE):
                self._attack(chance)
                self._hurry()
        except BaseException as error:
            self._error = error

    def _attack(self, chance: random.Random) -> None:
        exit_ = self.rows.exit
        hostile = chance.random() < HOSTILE
        self.pushed += hostile
        exit_.write_pushes(*(chance.choice(SETS) if hostile else ()))
        with self._quiet, contextlib.suppress(OSError, LookupError, IndexError):
            # Whatever is down just now takes nothing.
            self.rows.send_from_provider()
            self.rows.forge()
            self.rows.forge_redirects()
            self.attacks += 1

    def _hurry(self) -> None:
        """As an operator who sees it wait: so many outages make its pauses long."""
        exit_ = self.rows.exit
        if exit_.tunnel().get("state") in ("waiting", "up", "degraded") and not exit_.ready():
            with contextlib.suppress(OSError):
                exit_.again()

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Nothing of the provider's is under way inside of the block: with the exit's ruleset gone
        he reaches the docker network (docs/security.md), which is another row's to count."""
        with self._quiet:
            with contextlib.suppress(TimedOut, OSError):
                self._drain()
            yield

    def _drain(self) -> None:
        """What he sent has come out of the tunnel, if one stands."""
        exit_ = self.rows.exit
        last = build_udp(PROVIDERS_END, "10.8.0.2", 1, 9, FORGED)
        with Watch(exit_.netns, TUNNEL_DEVICE) as tunnel:

            def come() -> bool:
                into_tun(exit_.provider, "tun0", last)
                return bool(tunnel.count(FORGED, outgoing=False))

            wait_until(come, 0.5, "the provider's last packet", interval=0.02)

    # --- what else happens to the exit ----------------------------------------------------------

    def faults(self) -> list[Fault]:
        """Those of the matrix, one at a time (`upstream` is such a group)."""
        return [replace(self._spared(fault), group="upstream") for fault in self.rows.exit.faults()]

    def _spared(self, fault: Fault) -> Fault:
        """The provider is silent while the exit's ruleset is gone."""
        if "ruleset" not in fault.name:
            return fault
        quiet: list[contextlib.ExitStack] = []

        def inject(stage: Stage) -> None:
            with contextlib.ExitStack() as stack:
                stack.enter_context(self.silent())
                quiet.append(stack.pop_all())
            fault.inject(stage)

        def undo(stage: Stage) -> None:
            try:
                fault.undo(stage)
                wait_until(self._filters, 10.0, "the exit's ruleset")
            finally:
                while quiet:
                    quiet.pop().close()

        return replace(fault, inject=inject, undo=undo)

    def _filters(self) -> bool:
        shown = self.rows.exit.netns.run(["nft", "list", "tables"]).stdout
        return NFT_TABLE_EXIT in shown
