"""The product's ruleset without the product: planned, and applied to any namespace."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from bench.station import SUBNET, address
from ocgate.kernel.apply import apply
from ocgate.kernel.nft import Nft
from ocgate.names import NFT_TABLE
from ocgate.netlab.namespace import Namespace
from ocgate.plan.exits import Exit, ExitKind, FormerAddress, Marks, Steering
from ocgate.plan.intent import Intent, Wan
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.plan.nft import element_changes
from ocgate.plan.planner import plan
from ocgate.sessions import elements
from ocgate.sessions.session import Session


def intent(wan: str) -> Intent:
    """What the standalone server wants by default; clients leave by `wan`."""
    return Intent(
        device="vpns",
        subnets4=(SUBNET,),
        subnets6=(),
        prefix6=128,
        gateways=(SUBNET[1],),
        resolvers=(),
        tcp_ports=(443,),
        mss=None,
        wan4=Wan(wan, 1500),
        wan6=None,
        ipv6=Ipv6Path.REJECTED,
        ports=(10240, 32767),
        session_flows=4096,
    )


MARKS = Marks()  # exit direct


def on_device(number: int, device: str) -> Session:
    """Session `number` as far as its map element goes."""
    return Session(number + 1, 1, device, "", "", address(number), None, "", 0.0)


def steering(wan: str) -> Steering:
    """Everybody's IPv4 by a gateway on `wan`, in a namespace of ours."""
    own, next_hop = ip_address("172.28.0.10"), ip_address("172.28.0.3")
    return Steering(
        exit4=Exit(4, ExitKind.GATEWAY, wan, next_hop, own=(own,)),
        exit6=Exit(6, ExitKind.BLOCK, closed="block"),
        table=100,
        priority=1000,
        exclusive=True,
        strays=(FormerAddress(wan, own),),
    )


def install(
    netns: Namespace, wan: str, sessions: list[Session], run_dir: Path, *, gateway: bool = False
) -> Nft:
    """Apply plan and elements in `netns`; returns the library bound to it."""
    wanted = intent(wan)
    if gateway:
        wanted = replace(wanted, steering=steering(wan), local=(ip_network("172.28.0.0/24"),))
    run_dir.mkdir(exist_ok=True)
    with netns.entered():
        nft = Nft()
        apply(nft, plan(wanted), elements.wanted(sessions, wanted.marks), run_dir=run_dir)
    return nft


def admit(nft: Nft, session: Session) -> None:
    """The one transaction of an admission."""
    added = [(name, key, elements.data(name, MARKS)) for name, key in elements.keys(session)]
    nft.run(element_changes(NFT_TABLE, add=added))


def end(nft: Nft, session: Session) -> None:
    """Take it out again."""
    nft.run(element_changes(NFT_TABLE, remove=elements.keys(session)))
