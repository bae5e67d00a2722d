"""An exit whose tunnel is WireGuard, the kernel's or wireguard-go's: see support.exit_node.

neighbour1 -- exit wg0 === UDP 51820 === wg0 provider (wireguard-go) --- services
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lab import exit_role, privileges
from lab.addresses import DOCKER_NET, DOCKER_NET6, PROVIDER
from lab.capture import now
from ocgate.netlab.packet import match
from ocgate.netlab.program import Mount
from ocgate.netlab.wait import TimedOut, wait_until
from support.exit_node import (
    BOTH_FAMILIES,
    STOLEN,
    STOLEN6,
    Ground,
    LabFactory,
    answered_by_the_exit,
    ground,
)

NEEDED = ("wireguard-go", "wg")


def missing() -> bool:
    required = os.environ.get("CI") == "true" or os.environ.get("OCGATE_REQUIRE_ALL") == "1"
    return not required and any(shutil.which(program) is None for program in NEEDED)


pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(missing(), reason=f"needs the programs {', '.join(NEEDED)}"),
]

WG_PORT = 51820


class Turn:
    """wg(8) looks for the socket of a device by its name, in one directory of the whole machine: of
    tests with a wireguard-go only one runs at a time. Held until closed."""

    def __init__(self) -> None:
        self._file = os.open(__file__, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def close(self) -> None:
        os.close(self._file)


TUNNEL = match(dst=PROVIDER, protocol="udp", dport=WG_PORT)
SERVER_NET = "10.9.0.1/24"


_MASQUERADE = """
table inet wireguard {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ip saddr 10.9.0.0/24 oifname "eth0" masquerade
    }
}
"""


def keys() -> tuple[str, str]:
    """A private key and its public one."""
    made = subprocess.run(["wg", "genkey"], capture_output=True, text=True, check=True).stdout
    shown = subprocess.run(["wg", "pubkey"], input=made, capture_output=True, text=True, check=True)
    return made.strip(), shown.stdout.strip()


def replaced(g: Ground) -> str:
    """A WireGuard server at the provider in the place of OpenVPN's; returns a client's file."""
    g.lab.own(Turn())
    g.provider.close()
    private, public = keys()
    own, peer = keys()
    host = g.lab.provider
    # wg(8) looks for every namespace's wg0 in one directory: each has its own view of it.
    sockets = g.lab.path("wireguard")
    sockets.mkdir()
    Path("/var/run/wireguard").mkdir(exist_ok=True)
    mount = Mount(sockets, Path("/var/run/wireguard"))
    conf = g.lab.path("server.conf")
    conf.write_text(
        f"[Interface]\nPrivateKey = {private}\nListenPort = {WG_PORT}\n"
        f"[Peer]\nPublicKey = {peer}\nAllowedIPs = 10.9.0.2/32\n"
    )
    script = f"wireguard-go -f wg0 & while ! wg setconf wg0 {conf}; do sleep 0.1; done; wait"
    program = g.lab.spawn(host, ["sh", "-c", script], mounts=[mount])
    has = lambda: host.netns.run(["ip", "link", "show", "wg0"], check=False).returncode == 0  # noqa: E731
    try:
        wait_until(has, 5.0, "the server's wg0")
    except TimedOut as error:
        raise TimedOut(f"{error}; it said:\n{program.output}") from error
    host.netns.ip(f"address add {SERVER_NET} dev wg0", "link set wg0 up")
    host.netns.nft(_MASQUERADE)
    return (
        f"[Interface]\nPrivateKey = {own}\nAddress = 10.9.0.2/32\nDNS = 10.9.0.1\nMTU = 1400\n"
        f"[Peer]\nPublicKey = {public}\nEndpoint = {PROVIDER}:{WG_PORT}\nAllowedIPs = 0.0.0.0/0\n"
    )


def by_wireguard(g: Ground, config: str, **environ: str) -> None:
    """The ground's exit again, by this file."""
    g.exit.stop()
    path = g.lab.path("wg0.conf")
    path.write_text(config)
    g.exit = exit_role.start(g.lab, {"WG_CONFIG": str(path), **environ})


def test_wireguard_carries_the_network_and_nothing_leaks(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    config = replaced(g)
    g.allowed.append(TUNNEL)
    since = now()
    by_wireguard(g, config)
    g.exit.wait_healthy(30.0)
    status = g.exit.status()["tunnel"]
    assert (status["kind"], status["device"], status["mtu"]) == ("wireguard", "wg0", 1400)
    assert status["resolvers"] == ["10.9.0.1"]
    assert g.leaves_by_the_provider()
    g.uplink.prove_sees(TUNNEL, "the tunnel", since=since)
    g.assert_nothing_by_isp(since)


def test_wireguard_holds_no_privilege_in_whatever_way_it_runs(lab: LabFactory) -> None:
    """wireguard-go needs CAP_NET_ADMIN to set its device's MTU, once: it is told that it has, and
    the MTU is the configuration's. With the kernel's WireGuard there is no process."""
    g = ground(lab)
    by_wireguard(g, replaced(g))
    g.exit.wait_healthy(30.0)
    assert g.leaves_by_the_provider()
    table = dict(privileges.EXIT)
    if g.exit.client_pid() is None:
        del table["client"]
    found = [Path("/proc", str(pid)) for pid in g.exit.netns.pids()]
    assert privileges.deviations(found, table) == []
    assert "mtu 1400" in g.exit.netns.run(["ip", "link", "show", "wg0"]).stdout


def test_a_server_that_does_not_shake_hands_is_no_tunnel(lab: LabFactory) -> None:
    """Clients are rejected, and the next attempt comes after a pause."""
    g = ground(lab)
    config = replaced(g)
    wrong = config.replace(config.split("PublicKey = ")[1].split("\n")[0], keys()[1])
    by_wireguard(g, wrong)
    g.exit.wait_state("waiting", 40.0)
    assert g.exit.status()["tunnel"]["last_failure"] == "the server does not answer"
    wait_until(g.rejected_at_once, 5.0, "the switch to be closed")


def test_a_killed_wireguard_go_is_replaced(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    config = replaced(g)
    g.allowed.append(TUNNEL)
    by_wireguard(g, config)
    g.exit.wait_healthy(30.0)
    since, before = now(), g.exit.client_pid()
    if before is None:
        pytest.skip("this kernel has WireGuard: there is no process")
    g.exit.kill_client()
    wait_until(lambda: g.exit.client_pid() not in (None, before), 15.0, "another client")
    g.exit.wait_healthy(30.0)
    assert g.leaves_by_the_provider()
    g.assert_nothing_by_isp(since)


# --- a file of a hostile provider -----------------------------------------------------------------

HONEST = "Address = 10.9.0.2/32"


def test_a_file_takes_no_address_of_a_neighbour(lab: LabFactory) -> None:
    """Of either family: there is no tunnel, it is said why, and users are rejected."""
    g = ground(lab)
    config = replaced(g).replace(HONEST, f"Address = {STOLEN}/24, {STOLEN6}/64")
    by_wireguard(g, config.replace("0.0.0.0/0", "0.0.0.0/0, ::/0"), **BOTH_FAMILIES)
    g.exit.wait_said("nothing of what the tunnel's server gave can be used")
    whys = [f"it lies in {net}, a network" for net in (DOCKER_NET, DOCKER_NET6)]
    failure = lambda: str(g.exit.status()["tunnel"]["last_failure"])  # noqa: E731
    wait_until(lambda: all(why in failure() for why in whys), 10.0, "both reasons")
    for family, stolen in (("-4", STOLEN), ("-6", STOLEN6)):
        shown = g.exit.netns.run(["ip", family, "addr", "show", "dev", "wg0", "scope", "global"])
        assert shown.stdout == ""
        assert not answered_by_the_exit(g, stolen)
    assert g.rejected_at_once()


def test_of_two_families_of_a_file_the_honest_one_is_carried(lab: LabFactory) -> None:
    g = ground(lab)
    g.prove_leaks_are_seen()
    config = replaced(g).replace(HONEST, f"{HONEST}, {STOLEN6}/64")
    g.allowed.append(TUNNEL)
    since = now()
    by_wireguard(g, config.replace("0.0.0.0/0", "0.0.0.0/0, ::/0"), **BOTH_FAMILIES)
    g.exit.wait_state("up", 30.0)
    shown = g.exit.netns.run(["ip", "-6", "addr", "show", "dev", "wg0", "scope", "global"])
    assert shown.stdout == ""
    wait_until(g.leaves_by_the_provider, 10.0, "IPv4 by the tunnel")
    assert not answered_by_the_exit(g, STOLEN6)
    why = f"address {STOLEN6}: it lies in {DOCKER_NET6}, a network that this host is attached to"
    assert why in g.exit.status()["tunnel"]["refused"]
    g.assert_nothing_by_isp(since)
