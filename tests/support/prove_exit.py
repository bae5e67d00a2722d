"""The exit role as the twin's upstream: `ocgate exit` with a real OpenVPN tunnel to a provider.

    gw (ocgate run)          up4 (ocgate exit)                 isp            provider
    eth0 172.28.0.10 ------- eth0 172.28.0.2 ----------------- 172.28.0.1     eth0 198.51.100.200
                             tun0 ===== OpenVPN, by eth0 and isp =========== tun0
                                                               inet0          inet0
                                                               every address answers, in both

What comes out of up4 in clear and not into its tunnel is seen by isp's or the neighbour's capture
and judged as gw's own packets are: a mark there is a leak, whoever let it out.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

from lab.certificate import Authority
from ocgate import names
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import Mount, Program, spawn
from ocgate.netlab.wait import wait_until
from ocgate.prove.fault import Expect, Fault
from ocgate.prove.stage import Stage
from ocgate.prove.twin import Upstream
from ocgate.prove.world import FAULT_TABLE, World

PROVIDER, ISP_END = IPv4Address("198.51.100.200"), IPv4Address("198.51.100.201")
PORT = 1194
KEEPER = "169.254.77.2"
TUNNEL_NET = "10.8.0.0 255.255.255.0"

# Two or three starts of Python and a TLS handshake, on a busy machine.
READY_SECONDS = 30.0


@dataclass
class ExitRole:
    """Furnishes the twin's upstream; made once for a world."""

    environ: Mapping[str, str] = field(default_factory=dict)
    remote: str = str(PROVIDER)
    starts: int = 0

    def furnish(self, world: World, up: Upstream) -> None:
        """The provider on the ISP's side, and the exit in the upstream's namespace."""
        self.world, self.up = world, up
        self.work = world.work / "exit"
        self.work.mkdir()
        self.run_dir = self.work / "run"
        self._provide()
        netns = self.netns
        netns.sysctl("net/ipv4/ip_forward", 1)
        # The kernel forgets all routes of an interface with its last address, and faults move the
        # container to another one; docker would give the new one its route.
        netns.ip(
            f"address add {KEEPER}/32 dev eth0 scope link",
            f"route add default via {ip_interface(up.segment.isp[0]).ip} dev eth0",
        )
        self.start()

    @property
    def netns(self) -> Namespace:
        return self.world.spaces[self.up.role]

    # --- the provider ---------------------------------------------------------------------------

    def _provide(self) -> None:
        world, isp = self.world, self.world.spaces["isp"]
        self.provider = world.add("provider")
        self.provider.ip(f"link add eth0 type veth peer name provider netns {isp.name}")
        self.provider.ip("link set eth0 up", f"address add {PROVIDER}/31 dev eth0")
        isp.ip("link set provider up", f"address add {ISP_END}/31 dev provider")
        world.internet("provider")
        # To the exit alone: a provider that knew the docker network would send there what comes
        # out of its tunnel.
        self.provider.ip(
            *(f"route add {a}/32 via {ISP_END} dev eth0" for a in (self.up.address, self.up.free))
        )
        authority = Authority(self.work)
        self._server = authority.issue("server", server=True)
        self._client = authority.issue("client", server=False)
        self._ca = authority.certificate
        self.serve()

    def serve(self) -> None:
        """Start the provider's OpenVPN server."""
        path = self.work / "server.conf"
        path.write_text(self.server_options())
        self.server = self._spawn(self.provider, ["openvpn", "--config", str(path)], "provider")
        self.server.wait_for_output("Initialization Sequence Completed", READY_SECONDS)

    def server_options(self) -> str:
        """Its file."""
        certificate, key = self._server
        return f"""
            dev tun0
            proto udp4
            local {PROVIDER}
            port {PORT}
            server {TUNNEL_NET}
            topology subnet
            dh none
            duplicate-cn
            ca {self._ca}
            cert {certificate}
            key {key}
            keepalive 1 4
        """

    def _spawn(
        self,
        netns: Namespace,
        argv: list[str],
        name: str,
        environ: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] | None = None,
    ) -> Program:
        self.starts += 1
        log = self.work / f"{name}-{self.starts}"
        program = spawn(netns, argv, log=log, environ=environ, mounts=mounts)
        self.world.callback(program.kill)
        return program

    def _profile(self) -> Path:
        """The .ovpn file as a provider hands it out."""
        certificate, key = self._client
        inline = {"ca": self._ca, "cert": certificate, "key": key}
        blocks = "".join(f"<{n}>\n{path.read_text()}</{n}>\n" for n, path in inline.items())
        path = self.work / "provider.ovpn"
        path.write_text(
            f"client\ndev tun\nproto udp\nremote {self.remote} {PORT}\nnobind\n"
            f"remote-cert-tls server\n{blocks}"
        )
        return path

    # --- the exit -------------------------------------------------------------------------------

    def mounts(self) -> Sequence[Mount] | None:
        """What it sees in the place of the machine's own files."""
        return None

    def launch(self) -> None:
        """Start it without waiting."""
        self.exit = self._spawn(
            self.netns,
            [sys.executable, "-P", "-m", "ocgate", "exit"],
            "exit",
            {
                "OVPN_CONFIG": str(self._profile()),
                "FORWARD_FROM": str(ip_interface(self.up.segment.own[0]).network),
                "OCGATE_RUN_DIR": str(self.run_dir),
                "EXIT_PROBE_INTERVAL": "0.2",
                **self.environ,
            },
            self.mounts(),
        )

    def start(self) -> None:
        """Start it, and wait until its tunnel stands."""
        self.launch()
        self.wait_ready()

    def stop(self) -> None:
        """SIGTERM, as of `docker stop`; the kill switch stays."""
        self.exit.send(signal.SIGTERM)
        self.exit.wait(READY_SECONDS)

    def tunnel(self) -> dict[str, Any]:
        """What its status says of the tunnel; {} while nobody answers."""
        with contextlib.suppress(OSError, ValueError):
            told: dict[str, Any] = json.loads(self.ask("status"))["tunnel"]
            return told
        return {}

    def ready(self) -> bool:
        """Whether it says that its tunnel stands; whether that leads out is for the clients."""
        return self.tunnel().get("state") in ("up", "degraded")

    def wait_ready(self) -> None:
        """Wait for that; raises TimedOut."""
        wait_until(self.ready, READY_SECONDS, "the exit's tunnel")

    def hurry(self) -> None:
        """As `ocgate reload` where it waits for its next attempt: so many outages within a minute
        make the pauses between two of them long."""
        with contextlib.suppress(OSError):
            if not self.ready():
                self.ask("reload")

    def ask(self, verb: str) -> bytes:
        """A question to its control plane."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(5.0)
            sock.connect(str(self.run_dir / names.CONTROL_SOCKET))
            sock.sendall(f"ocgate/1 {verb}".encode() + b"\0\0")
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def signal_control(self, number: signal.Signals) -> None:
        """To its control plane alone."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.run_dir / names.CONTROL_PID).read_text()), number)

    def kill_tunnel(self) -> None:
        """kill -9 of the tunnel client."""
        for pid in self.netns.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == "openvpn":
                    os.kill(pid, signal.SIGKILL)

    # --- faults of its kernel state -------------------------------------------------------------

    def freeze(self) -> None:
        """SIGSTOP to control: nothing repairs anything."""
        self.signal_control(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.signal_control(signal.SIGCONT)

    def flush_ruleset(self) -> None:
        """Everything in nftables: lock 1."""
        self.netns.run(["nft", "flush", "ruleset"])

    def flush_rules(self) -> None:
        """All policy rules, but the kernel's own put back: lock 2."""
        for family in ("-4", "-6"):
            while self._try_ip(family, "rule", "del", "pref", "1-32765"):
                pass
            self._try_ip(family, "rule", "flush")
            for pref, table in ((32766, "main"), (32767, "default")):
                self._try_ip(family, "rule", "add", "pref", str(pref), "lookup", table)

    def delete_tunnel(self) -> None:
        """The tunnel's device is deleted below its client."""
        self._try_ip("link", "del", names.TUNNEL_DEVICE)

    def lead_around(self) -> None:
        """Two halves of a default route by the uplink, as another VPN client makes them."""
        gateway = ip_interface(self.up.segment.isp[0]).ip
        for half in ("0.0.0.0/1", "128.0.0.0/1"):
            self._try_ip("route", "replace", half, "via", str(gateway), "dev", "eth0")

    def lead_straight(self) -> None:
        """They are gone again."""
        for half in ("0.0.0.0/1", "128.0.0.0/1"):
            self._try_ip("route", "del", half)

    def forward_on(self) -> None:
        """The harness lets everything through and translates nothing, as a plain router does."""
        self.netns.sysctl("net/ipv4/ip_forward", 1)

    def cut_off(self) -> None:
        """The provider's machine is gone."""
        self.provider.nft(
            f"table inet {FAULT_TABLE} {{ chain gone {{ "
            "type filter hook prerouting priority -400; policy drop; }; }"
        )

    def connect(self) -> None:
        """It is back."""
        self.provider.run(["nft", "delete", "table", "inet", FAULT_TABLE], check=False)

    def _try_ip(self, *words: str) -> bool:
        return self.netns.run(["ip", *words], check=False).returncode == 0

    # --- the matrix -----------------------------------------------------------------------------

    def faults(self) -> tuple[Fault, ...]:
        """What may happen to the exit itself, each under traffic of the server's clients."""
        return (
            self._fault("exit's client killed", self.kill_tunnel),
            self._fault("exit's control killed", lambda: self.signal_control(signal.SIGKILL)),
            self._fault("exit's provider gone", self.cut_off, self.connect),
            self._fault("exit's tunnel device deleted", self.delete_tunnel),
            self._fault("exit's ruleset flushed", self.flush_ruleset),
            self._fault("exit's rules flushed", self.flush_rules),
            self._fault("exit led around its tunnel", self.lead_around, self.lead_straight),
            self._frozen("exit's ruleset flushed", self.flush_ruleset),
            self._frozen("exit's rules flushed", self.flush_rules),
            self._frozen("exit led around, ruleset flushed", self.lead_around, self.flush_ruleset),
            self._frozen("exit's tunnel deleted", self.delete_tunnel, self.flush_ruleset),
            self._frozen("exit's tunnel deleted, rules", self.delete_tunnel, self.flush_rules),
            self._fault("exit stopped and started", self.stop, self.launch),
        )

    def no_locks(self) -> Fault:
        """The positive control: neither table nor rules, and nobody to put them back."""

        def bare() -> None:
            self.flush_ruleset()
            self.flush_rules()
            self.delete_tunnel()
            self.forward_on()

        return self._frozen("exit without any lock", bare)

    def _fault(
        self, name: str, act: Callable[[], None], undo: Callable[[], None] | None = None
    ) -> Fault:
        """undo: then the exit must have its tunnel again by itself."""

        def after(_stage: Stage) -> None:
            if undo is not None:
                undo()
            self.hurry()
            self.wait_ready()

        return Fault(name, "exit role", lambda _stage: act(), after, expect=Expect.OUTAGE)

    def _frozen(self, name: str, *acts: Callable[[], None]) -> Fault:
        def inject() -> None:
            self.freeze()
            for act in acts:
                act()

        def undo() -> None:
            self.lead_straight()
            self.thaw()

        return self._fault(f"{name}, frozen", inject, undo)
