"""First start: the facts that `init` needs, gathered; and whether it is a first start at all."""

from __future__ import annotations

import socket
from pathlib import Path

from ocgate.config.model import Settings
from ocgate.errors import ConfigurationError
from ocgate.kernel.facts import observe
from ocgate.ocserv.initialise import Created, HostFacts, create, needed
from ocgate.plan.facts import Facts
from ocgate.server.desired.prepare import ipv6_obstacle

HOSTS = Path("/etc/hosts")
FIRST_PROCESS = Path("/proc/1/comm")

# Of a whole machine: systemd; sysvinit, OpenRC and busybox. What containers of one program begin
# with has other names (docker-init, tini, catatonit, pause).
_INITS = ("systemd", "init")


def initialise_if_empty(settings: Settings) -> Created | None:
    """Fill an empty config dir; None where the operator's configuration is there. Raises
    ConfigurationError where it is there in part."""
    verdict = needed(settings.config_dir)
    if verdict.problems:
        raise ConfigurationError(verdict.problems)
    if not verdict.to_be_initialised:
        return None
    return create(settings, host_facts(observe()))


def host_facts(facts: Facts) -> HostFacts:
    """What the certificate and the connect line are made of."""
    wan = facts.wan_interface
    usable = [a.ip for a in (*wan.own(4), *wan.own(6)) if not a.is_link_local] if wan else []
    return HostFacts(
        hostname=socket.gethostname(),
        fqdn=_fqdn(socket.gethostname()),
        addresses=tuple(a.ip for link in facts.interfaces for a in link.addresses),
        preferred=usable[0] if usable else None,
        ipv6=ipv6_obstacle(facts) is None,
        machine=facts.own_namespace and _first_process() in _INITS,
    )


def _first_process() -> str:
    """Name of process 1 as the kernel has it; '' where that can't be read."""
    try:
        return FIRST_PROCESS.read_text().strip()
    except OSError:
        return ""


def _fqdn(hostname: str) -> str:
    """This host's name with a dot, by /etc/hosts; '' if it has none. Not by the resolver: on a
    fresh machine without one, that would hang for seconds."""
    try:
        lines = HOSTS.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    rows = [line.partition("#")[0].split()[1:] for line in lines]
    return next((n for row in rows if hostname in row for n in row if "." in n), "")
