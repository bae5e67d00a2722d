"""Each layer alone, and none at all: the positive control."""

from __future__ import annotations

from dataclasses import replace

from ocgate.kernel import conntrack
from ocgate.prove.damage import delete_blackholes, delete_tables
from ocgate.prove.fault import Expect, Fault, Lock, Need
from ocgate.prove.stage import Stage

HARNESS = "harness_nat"


def no_rules_no_routes(stage: Stage) -> None:
    """What is left is nftables."""
    stage.flush_rules()
    stage.flush_own_routes()


def no_tables_no_blackholes(stage: Stage) -> None:
    """What is left are the policy rules, and the gateway's table where there is one."""
    delete_tables(stage)
    delete_blackholes(stage)


def translate(stage: Stage) -> None:
    """The harness translates in the place of the subject's tables, so that downloads still come."""
    device = stage.subject.nets.device
    rules = "".join(
        f"{'ip' if net.version == 4 else 'ip6'} saddr {net} masquerade\n"
        for net in stage.subject.nets.subnets
    )
    stage.gw.nft(f"""
        table inet {HARNESS} {{
            chain nat {{
                type nat hook postrouting priority srcnat;
                oifname "{device}*" accept
                {rules}
            }}
        }}""")


def translate_anew(stage: Stage) -> None:
    """The same for every flow. One that began after the subject's translation had gone, and before
    its last table had, is known as a flow without any, and would stay so while it sends."""
    translate(stage)
    with stage.gw.entered():
        conntrack.delete_marked(0, 0)


def some_locks(stage: Stage) -> None:
    """The host forwards as before, and the harness's own table goes."""
    translate_no_more(stage)
    stage.world.unplug(stage.twin.spare)
    for key, value in stage.forwarding.items():
        stage.gw.sysctl(key, value)


def translate_no_more(stage: Stage) -> None:
    """The harness's own table goes."""
    stage.try_nft("delete", "table", "inet", HARNESS)


def only_blackholes(stage: Stage) -> None:
    """All sessions end with downloads in flight, which are still translated; what is left are
    main's blackholes."""
    translate(stage)
    for client in tuple(stage.clients.live):
        stage.clients.vanish(client)
    delete_tables(stage)
    stage.flush_rules()


def no_locks(stage: Stage) -> None:
    """Nothing of ours is left, and the host forwards whatever comes: also what the reverse path
    filter of a tunnel would stop. The tunnels are closed before the locks are back."""
    delete_tables(stage)
    stage.flush_rules()
    stage.flush_own_routes()
    for key in stage.forwarding:
        stage.gw.sysctl(key, 1)
    for client in stage.clients.live:
        stage.gw.sysctl(f"net/ipv4/conf/{client.lease.device}/rp_filter", 0)
    lead_out(stage)


def lead_out(stage: Stage) -> None:
    """A default route for those families of the clients that this host has none of, so that their
    leaks can be seen here, too."""
    spare = stage.twin.spare
    lacking = {f for f in stage.families() if not stage.twin.reaches_out(f)}
    defaults = tuple(route for route in spare.defaults if route.family in lacking)
    if defaults:
        stage.world.plug(replace(spare, defaults=defaults))


POSITIVE_CONTROL = Fault(
    "no layer at all",
    "control",
    no_locks,
    some_locks,
    frozen=True,
    locks=frozenset(Lock),
    expect=Expect.OUTAGE,
)

ALONE = (
    Fault(
        "nftables layer alone",
        "layers",
        no_rules_no_routes,
        frozen=True,
        locks=frozenset({Lock.RULES, Lock.ROUTES}),
        expect=Expect.OUTAGE,
    ),
    Fault(
        "policy-routing layer alone",
        "layers",
        no_tables_no_blackholes,
        frozen=True,
        locks=frozenset({Lock.TABLES, Lock.ROUTES}),
        needs=frozenset({Need.POLICY_ROUTING}),
        expect=Expect.OUTAGE,
    ),
    Fault(
        "blackhole layer alone",
        "layers",
        only_blackholes,
        after=translate_no_more,
        frozen=True,
        locks=frozenset({Lock.TABLES, Lock.RULES}),
        expect=Expect.OUTAGE,
    ),
)
