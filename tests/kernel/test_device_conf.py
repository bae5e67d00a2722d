"""What a device is to be like, and a new MAC: both where /proc/sys is read-only, as in docker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ocgate.errors import KernelRefused
from ocgate.kernel import mac
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.program import BASE_ENVIRON

pytestmark = pytest.mark.kernel

READ_ONLY = (
    "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && "
    '! echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward && exec "$@"'
)


@pytest.fixture
def container(netns: Namespace) -> Namespace:
    """eth0 with an address and a default route, not forwarding."""
    netns.sysctl("net/ipv4/ip_forward", 0)
    netns.ip(
        "link add eth0 type veth peer name docker",
        "link set eth0 up",
        "link set docker up",
        "address add 172.28.0.2/24 dev eth0",
        "route add default via 172.28.0.1 dev eth0",
    )
    return netns


def within(netns: Namespace, program: str) -> str:
    """A Python program with /proc/sys read-only; what it prints."""
    argv = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", sys.executable, "-P", "-c", program]
    with netns.entered():
        done = subprocess.run(
            argv, env=BASE_ENVIRON, capture_output=True, text=True, timeout=20, check=False
        )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_device_forwards_once_it_is_asked_for_and_asking_again_does_nothing(
    container: Namespace,
) -> None:
    found = within(
        container,
        "from ocgate.kernel import device_conf as f; print(f.ensure(), f.differing(), f.ensure())",
    )
    assert found == "['docker', 'eth0'] [] []"
    assert container.sysctl("net/ipv4/conf/eth0/forwarding") == "1"
    assert container.sysctl("net/ipv4/ip_forward") == "0", "the container's own word is untouched"


def test_a_device_that_comes_later_is_told_of(container: Namespace) -> None:
    within(container, "from ocgate.kernel import device_conf; device_conf.ensure()")
    container.ip("link add eth1 type veth peer name docker1")
    told = within(container, "from ocgate.kernel import device_conf as f; print(f.differing())")
    for name in ("docker1", "eth1"):
        assert f"device {name} does not forward IPv4" in told
        assert f"device {name} has another arp_ignore than 1" in told


def test_a_device_takes_no_redirects_and_answers_for_its_own_addresses(
    container: Namespace,
) -> None:
    """Although writing 0 to ip_forward has made `all.accept_redirects` 1, as docker's flag does."""
    container.sysctl("net/ipv4/ip_forward", 1)
    container.sysctl("net/ipv4/ip_forward", 0)
    assert container.sysctl("net/ipv4/conf/all/accept_redirects") == "1"
    within(container, "from ocgate.kernel import device_conf; device_conf.ensure()")
    of_device = lambda name: container.sysctl(f"net/ipv4/conf/eth0/{name}")  # noqa: E731
    found = [of_device(n) for n in ("accept_redirects", "arp_ignore", "arp_announce")]
    assert found == ["0", "1", "2"]


def test_a_new_mac_is_announced_and_keeps_addresses_and_routes(container: Namespace) -> None:
    """The neighbours' own entries learn it from the announcement."""
    before = container.run(["ip", "route"]).stdout
    container.sysctl("net/ipv4/conf/docker/arp_accept", 1)
    container.ip("address add 172.28.0.1/24 dev docker")
    made = within(container, "from ocgate.kernel import mac; print(mac.renew('eth0'))")
    assert f"link/ether {made}" in container.run(["ip", "link", "show", "eth0"]).stdout
    assert int(made[:2], 16) & 3 == 2, "locally administered, and no group"
    assert before in container.run(["ip", "route"]).stdout
    assert container.sysctl("net/ipv4/conf/eth0/arp_notify") == "1"


def test_a_device_that_is_gone_is_not_said_to_have_a_new_mac(netns: Namespace) -> None:
    with pytest.raises(KernelRefused, match="eth9 is gone"):
        mac.renew("eth9")


def test_a_device_takes_no_ipv6_redirects_where_that_can_be_written(container: Namespace) -> None:
    """rtnetlink has no such setting of IPv6; with /proc/sys read-only nothing is said of it."""
    of_device = lambda: container.sysctl("net/ipv6/conf/eth0/accept_redirects")  # noqa: E731
    program = "from ocgate.kernel import device_conf as f; print(f.ensure() and f.differing())"
    assert (within(container, program), of_device()) == ("[]", "1")
    with container.entered():
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from ocgate.kernel import device_conf as f;"
             "before = f.differing(); f.ensure(); print(before, f.differing())"],
            env=BASE_ENVIRON, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    assert "'device eth0 accepts IPv6 redirects'" in done.stdout
    assert done.stdout.strip().endswith("[]")
    assert of_device() == "0"


def test_what_neighbours_tell_is_asked_again_within_seconds(container: Namespace) -> None:
    """What a forged ARP or neighbour advertisement spoils does not last."""
    program = "from ocgate.kernel import device_conf as f; print(f.ensure() and f.differing())"
    assert within(container, program) == "[]"
    for family in (4, 6):
        at = f"net/ipv{family}/neigh/eth0"
        names = ("base_reachable_time_ms", "retrans_time_ms", "delay_first_probe_time")
        assert [container.sysctl(f"{at}/{name}") for name in names] == ["2000", "500", "1"]
    container.sysctl("net/ipv4/neigh/eth0/base_reachable_time_ms", 30000)
    told = within(container, "from ocgate.kernel import device_conf as f; print(f.differing())")
    assert "device eth0 believes its neighbours for another time" in told
