"""A real openconnect in a client's namespace: connect, reconnect, roam, disconnect, be refused."""

from __future__ import annotations

import base64
import hashlib
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab import vpnc_script
from lab.addresses import PORT, Host
from lab.site import Site
from lab.wiring import CLIENT_METRIC
from ocgate.netlab.program import Program
from ocgate.netlab.wait import wait_until

Address = IPv4Address | IPv6Address

TUN = "tun0"  # each client has a namespace of its own

# A login takes 0.1 s here; a connect hook may be waited for by ocserv much longer.
CONNECT_SECONDS = 20.0

# What openconnect 9 says when DTLS is up.
_DTLS_UP = "Established DTLS connection"


class Refused(AssertionError):
    """openconnect gave up: `returncode` 1 bad password or pin, 2 denied by a hook."""

    def __init__(self, returncode: int, output: str) -> None:
        super().__init__(f"openconnect ended with rc {returncode}:\n{output}")
        self.returncode = returncode
        self.output = output


@dataclass(frozen=True)
class Login:
    """What a user needs: name, password, and the server key's pin (``pin-sha256:…``)."""

    user: str
    password: str
    pin: str


def pin_of(certificate: Path) -> str:
    """``pin-sha256:BASE64`` of a PEM certificate's public key (RFC 7469), for --servercert."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "pin-sha256:" + base64.b64encode(hashlib.sha256(der).digest()).decode()


class Client:
    """One openconnect session; made by `connect`, owned by the lab."""

    def __init__(self, lab: Site, host: Host, program: Program, work: Path, *, dtls: bool) -> None:
        self.host = host
        self.netns = host.netns
        self.program = program
        self._lab = lab
        self._work = work
        self._dtls = dtls
        self._blocked = 0

    # --- what it got --------------------------------------------------------------------------

    def events(self) -> list[str]:
        """Reasons for which the script was run, in order: pre-init, connect, reconnect, …"""
        return [path.stem.partition("-")[2] for path in self._event_files()]

    @property
    def pushed(self) -> Mapping[str, str]:
        """The environment that openconnect gave to the script at the last (re)connect."""
        last = [p for p in self._event_files() if p.stem.endswith("-reconnect")]
        last = last or [p for p in self._event_files() if p.stem.endswith("-connect")]
        environ: dict[str, str] = json.loads(last[-1].read_text())
        return environ

    @property
    def address(self) -> IPv4Address | None:
        """Its address in the tunnel."""
        text = self.pushed.get("INTERNAL_IP4_ADDRESS")
        return IPv4Address(text) if text else None

    @property
    def address6(self) -> IPv6Address | None:
        """Its IPv6 address in the tunnel."""
        text = self.pushed.get("INTERNAL_IP6_NETMASK") or self.pushed.get("INTERNAL_IP6_ADDRESS")
        address = ip_interface(text).ip if text else None
        return address if isinstance(address, IPv6Address) else None

    @property
    def dns(self) -> list[str]:
        return self.pushed.get("INTERNAL_IP4_DNS", "").split()

    @property
    def resolv_conf(self) -> Path:
        """The resolver file a real script would have put into /etc."""
        return self._work / "resolv.conf"

    def _event_files(self) -> list[Path]:
        return sorted((self._work / "events").iterdir())

    # --- what it does -------------------------------------------------------------------------

    def wait_connected(self, timeout: float = CONNECT_SECONDS) -> None:
        """Wait until addresses and routes are there, and DTLS too if asked for; raises Refused."""
        self._wait(lambda: "connect" in self.events(), timeout, "the tunnel")
        self._wait_dtls(1, timeout)

    def _wait(self, condition: object, timeout: float, what: str) -> None:
        assert callable(condition)

        def come() -> bool:
            ended = not self.program.running()
            if condition():
                return True
            if ended:
                raise Refused(self.program.returncode() or 0, self.program.output)
            return False

        wait_until(come, timeout, f"{what} of {self.program}")

    def _wait_dtls(self, times: int, timeout: float) -> None:
        if self._dtls:
            said = lambda: self.program.output.count(_DTLS_UP) >= times  # noqa: E731
            self._wait(said, timeout, "DTLS")

    def reconnect(self, timeout: float = CONNECT_SECONDS) -> None:
        """Drop the connection and come back with the same cookie (SIGUSR2); wait for it."""
        times = self.events().count("reconnect")
        dtls = self.program.output.count(_DTLS_UP)
        self.program.send(signal.SIGUSR2)
        self._wait(lambda: self.events().count("reconnect") > times, timeout, "the reconnect")
        self._wait_dtls(dtls + 1, timeout)

    def roam(self, timeout: float = CONNECT_SECONDS) -> None:
        """Come back from the host's second address while the server thinks it is at the first.

        The old path is cut in both directions before, so that the server hears no FIN of it: for
        some seconds the session exists twice. Works once; the way back is `roam_back`.
        """
        old, old6 = self.host.address, self.host.address6
        self._move(str(old), str(old6), str(self.host.second), str(self.host.second6))
        self.reconnect(timeout)

    def roam_back(self, timeout: float = CONNECT_SECONDS) -> None:
        """The same from the second address to the first."""
        old, old6 = self.host.second, self.host.second6
        self._move(str(old), str(old6), str(self.host.address), str(self.host.address6))
        self.reconnect(timeout)

    def _move(self, old: str, old6: str, new: str, new6: str) -> None:
        self.netns.nft(f"""
        table inet roam
        delete table inet roam
        table inet roam {{
            chain out {{ type filter hook output priority raw; ip saddr {old} drop
                         ip6 saddr {old6} drop; }}
            chain in {{ type filter hook input priority raw; ip daddr {old} drop
                        ip6 daddr {old6} drop; }}
        }}
        """)
        uplink4, uplink6 = _uplinks(self.host, new, new6)
        vpnc_script.write_uplinks(str(self._work), uplink4, uplink6)
        server = self.pushed["VPNGATEWAY"]
        self.netns.ip(
            f"route replace default {uplink4} metric {CLIENT_METRIC}",
            f"route replace ::/0 {uplink6} metric {CLIENT_METRIC}",
            f"route replace {server} {uplink6 if ':' in server else uplink4}",
        )

    def disconnect(self, timeout: float = 5.0) -> int:
        """Log off (SIGINT) and wait for the end; returns openconnect's exit code."""
        self.program.send(signal.SIGINT)
        return self.program.wait(timeout)

    def vanish(self) -> None:
        """The laptop's lid is closed: nothing more is sent, not even a goodbye."""
        self.netns.ip("link set eth0 down")
        self.program.kill()


def _uplinks(host: Host, source: str, source6: str) -> tuple[str, str]:
    """What the client's own default routes say, per family, with that source address."""
    return (
        f"via {host.next_hop} dev eth0 src {source}",
        f"via {host.next_hop6} dev eth0 src {source6}",
    )


def start(
    lab: Site,
    host: Host,
    login: Login,
    *,
    server: Address | None = None,
    dtls: bool = True,
    path: str = "",
    name: str = "",
    options: Sequence[str] = (),
) -> Client:
    """Start openconnect without waiting; see `connect` for the arguments."""
    work = lab.path(f"{host.role}-vpn")
    (work / "events").mkdir(parents=True)
    vpnc_script.write_uplinks(str(work), *_uplinks(host, str(host.address), str(host.address6)))
    to = server or lab.server
    shown = name or (f"[{to}]" if to.version == 6 else str(to))
    resolve = [f"--resolve={name}:{to}"] * bool(name)
    script = f"{sys.executable} -I -S {vpnc_script.__file__} {work}"
    argv = ["openconnect", "--non-inter", "--passwd-on-stdin", f"--user={login.user}"]
    argv += [f"--servercert={login.pin}", f"--script={script}", f"--interface={TUN}"]
    argv += ["--no-dtls"] * (not dtls)
    argv += [*resolve, *options, f"https://{shown}:{PORT}/{path}"]
    program = lab.spawn(host, argv, text=f"{login.password}\n")
    return Client(lab, host, program, work, dtls=dtls)


def connect(
    lab: Site,
    host: Host,
    login: Login,
    *,
    server: Address | None = None,
    dtls: bool = True,
    path: str = "",
    name: str = "",
    options: Sequence[str] = (),
    timeout: float = CONNECT_SECONDS,
) -> Client:
    """Connect from `host` and wait until the tunnel carries traffic.

    server:  default is the published IPv4 address.
    dtls:    True also waits for DTLS; False forbids it (--no-dtls).
    path:    of the URL, for camouflage or groups.
    name:    the server's name in the URL, which need not resolve, for virtual hosts.
    options: further arguments of openconnect, such as "--base-mtu=1280".
    Raises Refused if openconnect gives up, with its exit code and words.
    """
    client = start(
        lab, host, login, server=server, dtls=dtls, path=path, name=name, options=options
    )
    client.wait_connected(timeout)
    return client
