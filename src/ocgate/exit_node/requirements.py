"""What neither the configuration nor the operator's files can give an exit. An edge."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

from ocgate.config.exit_choices import ExitKind
from ocgate.errors import MissingRequirement
from ocgate.exit_node import wireguard
from ocgate.exit_node.kind import Kind
from ocgate.exit_node.sources import Sources
from ocgate.kernel import surroundings
from ocgate.kernel.facts import observe
from ocgate.names import TUNNEL_UID
from ocgate.plan.facts import Facts

# Whoever is neither its owner nor in its group: the client.
_OTHERS_READ_WRITE = 0o006

# Debian's, where a program is not in one of its own name.
_PACKAGES = {"wg": "wireguard-tools"}


def require_namespace(sources: Sources) -> Facts:
    """Root, a network of our own, device and capabilities; raises MissingRequirement."""
    if os.geteuid() != 0:
        raise MissingRequirement("ocgate exit must be root", hint="run it in a container, as root")
    facts = observe()
    if not facts.own_namespace:
        raise MissingRequirement(
            "ocgate exit must not run in the machine's own network: it would cut the machine off",
            hint="run it in a container without --network host, or in a network namespace",
        )
    surroundings.require(sources.settings.run_dir, sysctls=())  # forwarding is set by device
    return facts


def with_wireguard(sources: Sources) -> Sources:
    """Whose WireGuard it is: the kernel's, or wireguard-go's. Raises MissingRequirement."""
    if sources.settings.kind is not ExitKind.WIREGUARD or wireguard.kernel_has_it():
        return sources
    if not _installed("wireguard-go"):
        raise MissingRequirement(
            "this kernel has no WireGuard, and wireguard-go is not installed",
            hint="on the host: modprobe wireguard (Linux 5.6 and newer); or apt-get install "
            "wireguard-go; or use OVPN_CONFIG",
        )
    return replace(sources, userspace=True)


def require_client(kind: Kind) -> None:
    """Its programs, and that it may open its device; raises MissingRequirement."""
    mode = surroundings.TUN.stat().st_mode
    if kind.uid is not None and mode & _OTHERS_READ_WRITE != _OTHERS_READ_WRITE:
        raise MissingRequirement(
            f"{surroundings.TUN} may not be opened by the tunnel's client, uid {TUNNEL_UID}",
            hint=f"on the host: chmod 0666 {surroundings.TUN}",
        )
    for program in kind.programs:
        if not _installed(program):
            package = _PACKAGES.get(program, program)
            raise MissingRequirement(
                f"{program} is not installed", hint=f"apt-get install {package}"
            )


def _installed(program: str) -> bool:
    return shutil.which(program, path=f"{os.defpath}:/usr/sbin:/sbin") is not None
