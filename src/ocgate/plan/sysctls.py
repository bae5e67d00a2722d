"""A sysctl that we need, as a value: what it must be, why, and how a container is given it.

Pure; any room may import it. `kernel.sysctl` reads, sets and verifies.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sysctl:
    """One kernel parameter under /proc/sys.

    key:    sysctl(8)'s form: dots separate, and a dot inside an interface name is written as `/`
            (`net.ipv4.conf.eth0/100.rp_filter` is the VLAN device eth0.100).
    value:  what it must read as, without white space around it.
    reason: one clause for the operator, why ocgate needs it.
    required: False where ocgate does without it, less well, if it may not set it.
    """

    key: str
    value: str
    reason: str
    required: bool = True

    @property
    def path(self) -> str:
        """Below /proc/sys: `net/ipv4/conf/eth0.100/rp_filter`."""
        return path_of(self.key)

    @property
    def flag(self) -> str:
        """The docker argument that sets it at container start."""
        return f"--sysctl {self.key}={self.value}"

    @property
    def compose(self) -> str:
        """The line under `sysctls:` of a compose service that does the same."""
        return f"{self.key}: {self.value}"

    def __str__(self) -> str:
        return f"sysctl -w {self.key}={self.value}"


def rp_filter_loose(interface: str) -> Sysctl:
    """Where a strict reverse path filter would drop all answers of a gateway: the kernel asks for
    the way back without the mark of the way there. The larger of `all` and the device's own value
    counts, and 2 is loose (Documentation/networking/ip-sysctl, rp_filter)."""
    return Sysctl(
        f"net.ipv4.conf.{interface.replace('.', '/')}.rp_filter",
        "2",
        "the gateway's answers pass the reverse path filter",
    )


def rp_filter_strict(tunnel: str) -> Sysctl:
    """A client's packet comes by the tunnel that its source is routed to, or not at all."""
    return Sysctl(
        f"net.ipv4.conf.{tunnel}.rp_filter", "1", "forged sources end at the tunnel they come by"
    )


def path_of(key: str) -> str:
    """Below /proc/sys: dots and slashes change places; applied twice it gives the key back."""
    return key.translate(str.maketrans("./", "/."))
