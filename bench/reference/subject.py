"""A plain gateway configuration as a subject of the matrix: what the reference image's does.

    1000: from SUBNET lookup 100          default via GATEWAY table 100
    inet ocserv      masquerade of the client subnet towards the gateway's interface
    inet ocserv_gw   forward, policy accept: what carries a client's source and leaves by another
                     interface or next hop than the gateway's is dropped; that source's IPv6 too,
                     where IPv6 has no gateway

Written from that description, not from its code. Nothing happens per session, nothing watches, and
nothing is put back before the next start: `restore` is that start.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocgate.netlab.namespace import Namespace
from ocgate.plan.exits import ExitKind
from ocgate.plan.facts import Family, Network
from ocgate.prove.subject import ClientNets, Lease, Unsupported, Ways
from ocgate.prove.twin import Twin

TABLE = 100
PRIORITY = 1000
FAMILIES: tuple[Family, ...] = (4, 6)
_WORD = {4: "ip", 6: "ip6"}


class Reference:
    """See `subject.Subject` for the methods."""

    name = "reference"
    tables: Sequence[str] = ("inet ocserv_gw", "inet ocserv")  # the guard first, as `run` has them
    table = TABLE
    repairs = False
    pinned: Sequence[int] = ()

    def __init__(self, netns: Namespace, twin: Twin, ways: Ways, nets: ClientNets) -> None:
        self.ways = ways
        self.nets = nets
        self._netns = netns
        self._twin = twin
        self._runs = False

    # --- life ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Routes, rules and tables, as a script does it; then it forwards. A container's new
        namespace knows no neighbours."""
        self._netns.ip("neigh flush all")
        self._apply()
        self._forward(on=True)
        self._runs = True

    def stop(self) -> None:
        """It forwards no more, then all of it goes, as with a container's namespace."""
        self._forward(on=False)
        self._remove()
        self._runs = False

    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._runs

    def ready(self) -> str:
        """Always, once started: nothing looks."""
        return "" if self._runs else "not started"

    def freeze(self) -> None:
        """Nothing runs that could stand still."""

    def thaw(self) -> None:
        """Nor go on."""

    def kill_control(self) -> None:
        """There is none."""
        raise Unsupported("no control plane to kill")

    def kill_server(self) -> None:
        """ocserv dies: its tuns go, which is the harness's part; nothing of this changes."""

    def reload(self) -> None:
        """Everything is set anew over what is there."""
        self._apply()

    def admit(self, _lease: Lease) -> str:
        """Everybody."""
        return ""

    def end(self, _lease: Lease) -> None:
        """Nothing is done."""

    def restore(self) -> None:
        """As at the next start, without forwarding meanwhile: what leaks is the fault's own."""
        if self._runs:
            self.stop()
            self.start()

    def evidence(self) -> str:
        """What the kernel holds of it."""
        shown = [["ip", "rule"], ["ip", "route", "show", "table", str(TABLE)]]
        shown.append(["nft", "list", "ruleset"])
        return "\n".join(self._netns.run(argv, check=False).stdout for argv in shown)

    # --- the configuration ----------------------------------------------------------------------

    def _subnets(self, family: Family) -> tuple[Network, ...]:
        return tuple(net for net in self.nets.subnets if net.version == family)

    def _forward(self, *, on: bool) -> None:
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            self._netns.sysctl(key, int(on))

    def _apply(self) -> None:
        for family in FAMILIES:
            up = self._twin.upstream(family)
            if up is None:
                continue
            self._netns.ip(f"route replace default via {up.address} table {TABLE}", v6=family == 6)
            for net in self._subnets(family):
                rule = ["rule", "add", "from", str(net), "lookup", str(TABLE)]
                rule += ["pref", str(PRIORITY)]
                self._netns.run(["ip", f"-{family}", *rule], check=False)  # it may be there
        self._netns.nft(self._masquerade() + self._guard())

    def _remove(self) -> None:
        for table in self.tables:
            self._netns.run(["nft", "delete", "table", *table.split()], check=False)
        for family in ("-4", "-6"):
            flush = ["ip", family, "route", "flush", "table", str(TABLE)]
            self._netns.run(flush, check=False)
            rule = ["ip", family, "rule", "del", "pref", str(PRIORITY)]
            while self._netns.run(rule, check=False).returncode == 0:
                pass

    def _masquerade(self) -> str:
        rules = "\n".join(
            f'{_WORD[net.version]} saddr {net} oifname != "{self.nets.device}*" masquerade'
            for net in self.nets.subnets
            if self.ways.translated(net.version)
        )
        return f"""
        table inet ocserv
        delete table inet ocserv
        table inet ocserv {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                {rules}
            }}
        }}
        """

    def _guard(self) -> str:
        rules = "\n".join(
            rule for net in self.nets.subnets for rule in self._guard_of(net, net.version)
        )
        return f"""
        table inet ocserv_gw
        delete table inet ocserv_gw
        table inet ocserv_gw {{
            chain forward {{
                type filter hook forward priority filter; policy accept;
                {rules}
            }}
        }}
        """

    def _guard_of(self, net: Network, family: Family) -> list[str]:
        word, up = _WORD[family], self._twin.upstream(family)
        if self.ways.of(family) is ExitKind.DIRECT:
            return []
        others = f'{word} saddr {net} oifname != "{self.nets.device}*"'
        if up is None:
            return [f"{others} drop"]
        device = up.segment.device
        return [
            f'{others} oifname != "{device}" drop',
            f"{others} rt {word} nexthop != {up.address} drop",
        ]
