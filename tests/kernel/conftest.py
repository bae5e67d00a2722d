"""Each kernel test gets a network namespace of its own, entered by the test's own thread."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

Ip = Callable[[str], str]


@pytest.fixture
def netns() -> Iterator[None]:
    """A fresh namespace with `lo` up; the thread goes back to the machine's own afterwards."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _libc.unshare(_CLONE_NEWNET) != 0:
        os.close(before)
        if os.environ.get("CI"):
            pytest.fail("kernel tests need root (unshare of a network namespace was refused)")
        pytest.skip("needs root: unshare of a network namespace was refused")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        if _libc.setns(before, _CLONE_NEWNET) != 0:
            os._exit(1)  # never go on in a namespace of which we don't know what it is
        os.close(before)


@pytest.fixture
def sh(netns: None) -> Ip:
    """Run shell lines in the namespace and return what they print; a failure is a test error."""

    def run(lines: str) -> str:
        return subprocess.run(
            ["/bin/sh", "-e"], input=lines, check=True, text=True, capture_output=True
        ).stdout

    return run


@pytest.fixture
def uplink(sh: Ip) -> str:
    """A veth pair `wan0` 192.0.2.2/24, 2001:db8::2/64 <-> `isp0` in the same namespace, up."""
    sh(
        "ip link add wan0 type veth peer name isp0;"
        "ip link set wan0 up; ip link set isp0 up;"
        "ip addr add 192.0.2.2/24 dev wan0; ip addr add 2001:db8::2/64 dev wan0 nodad"
    )
    return "wan0"
