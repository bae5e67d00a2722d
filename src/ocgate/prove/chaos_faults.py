"""What chaos does beside the matrix: damage that is worth no row, but meets others in a round."""

from __future__ import annotations

from ocgate.errors import OcgateError
from ocgate.kernel import conntrack
from ocgate.prove.damage import BOTH
from ocgate.prove.fault import Act, Expect, Fault, Lock, Need, nothing
from ocgate.prove.gateway import OCSERV_CONF
from ocgate.prove.stage import FAMILIES, Stage

FOREIGN = "5"  # priority of a rule of others: before all of ours
BANNER = b'\nbanner = "chaos"\n'
NONSENSE = b"\nipv4-network = banana/24\n"


def forget_flows(stage: Stage) -> None:
    """`conntrack -F`."""
    with stage.gw.entered():
        conntrack.delete_marked(0, 0)


def forget_neighbours(stage: Stage) -> None:
    """`ip neigh flush all`."""
    for family in FAMILIES:
        stage.try_ip("neigh", "flush", "all", family=family)


def forward_nothing(stage: Stage) -> None:
    """Somebody's hardening script."""
    for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
        stage.gw.sysctl(key, 0)


def foreign_rule(stage: Stage) -> None:
    """Another program's policy rule comes before ours, and sends all by main."""
    for family in FAMILIES:
        stage.try_ip("rule", "add", "pref", FOREIGN, "lookup", "main", family=family)


def no_foreign_rule(stage: Stage) -> None:
    """It has gone again, however often it came."""
    for family in FAMILIES:
        while stage.try_ip("rule", "del", "pref", FOREIGN, family=family):
            pass


def flush_chain(table: str, chain: str) -> Act:
    """All rules of one chain."""

    def act(stage: Stage) -> None:
        stage.try_nft("flush", "chain", "inet", table, chain)

    return act


def forget_sessions(stage: Stage) -> None:
    """The elements by which the guard knows the sessions."""
    for name in ("sessions4", "sessions6"):
        stage.try_nft("flush", "map", "inet", "ocserv", name)


def freeze(stage: Stage) -> None:
    """SIGSTOP to control, in the middle of other things."""
    stage.subject.freeze()


def thaw(stage: Stage) -> None:
    """SIGCONT."""
    stage.subject.thaw()


def reload_changed(stage: Stage) -> None:
    """The operator has written into ocserv.conf; then takes it out again."""
    with_line(stage, BANNER, stage.subject.reload)
    stage.subject.reload()


def reload_refused(stage: Stage) -> None:
    """The operator has mistyped: refused, and everything goes on as before."""

    def refused() -> None:
        try:
            stage.subject.reload()
        except OcgateError:
            return
        raise AssertionError("a reload of a wrong ocserv.conf was accepted")

    with_line(stage, NONSENSE, refused)


def with_line(stage: Stage, line: bytes, act: object) -> None:
    """Do it while this stands at the end of the twin's own copy of ocserv.conf."""
    assert callable(act)
    conf = stage.world.work / OCSERV_CONF
    before = conf.read_bytes()
    conf.write_bytes(before + line)
    try:
        act()
    finally:
        conf.write_bytes(before)


def _fault(
    name: str, group: str, inject: Act, undo: Act = nothing, *, lock: Lock | None = None,
    needs: frozenset[Need] = frozenset(),
) -> Fault:  # fmt: skip
    locks = frozenset({lock} if lock else ())
    return Fault(name, group, inject, undo, locks=locks, needs=needs, expect=Expect.COMES_BACK)


_TABLES, _RULES = BOTH
_GATEWAY = frozenset({Need.GATEWAY})

FAULTS = (
    _fault("flows forgotten", "kernel", forget_flows),
    _fault("neighbours forgotten", "kernel", forget_neighbours),
    _fault("forwarding off", "kernel", forward_nothing),
    _fault("foreign rule first", "kernel", foreign_rule, no_foreign_rule, lock=_RULES),
    *(
        _fault(f"chain {name} flushed", "kernel", flush_chain("ocserv_gw", name), lock=_TABLES,
               needs=_GATEWAY)
        for name in ("guard", "output_held")
    ),
    *(
        _fault(f"chain {name} flushed", "kernel", flush_chain("ocserv", name), lock=_TABLES)
        for name in ("nat", "from_client", "begins", "input_from_client", "forward_from_client",
                     "forward_to_client", "last")
    ),
    _fault("sessions' elements deleted", "kernel", forget_sessions, lock=_TABLES),
    _fault("control frozen for a while", "freezes", freeze, thaw),
    _fault("reload, ocserv.conf changed", "processes", reload_changed),
    _fault("reload refused", "processes", reload_refused),
)  # fmt: skip
