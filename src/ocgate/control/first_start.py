"""The wiring of a first start: facts of this machine to `server.initialise`."""

from __future__ import annotations

import os
from pathlib import Path

from ocgate.errors import ConfigurationError
from ocgate.kernel.facts import observe
from ocgate.server.initialise import Created, HostFacts, State, Wishes, create, needed

_HOSTS = Path("/etc/hosts")


def initialise_if_empty(settings: Wishes) -> Created | None:
    """Make a configuration where there is none; None where the operator's is there.

    Raises `ConfigurationError` where the config dir is only partly filled.
    """
    verdict = needed(settings.config_dir)
    if verdict.state is State.COMPLETE:
        return None
    if verdict.problems:
        raise ConfigurationError(verdict.problems)
    return create(settings, host_facts())


def host_facts() -> HostFacts:
    """This machine's names and addresses, from the kernel and /etc/hosts: DNS is not asked."""
    facts = observe()
    wan = facts.wan_interface
    own = [own.ip for own in wan.addresses if not own.is_link_local] if wan else []
    return HostFacts(
        hostname=os.uname().nodename,
        fqdn=_fqdn(os.uname().nodename),
        addresses=tuple(a.ip for link in facts.interfaces for a in link.addresses),
        preferred=min(own, key=lambda address: address.version, default=None),
    )


def _fqdn(hostname: str) -> str:
    """The first dotted name that /etc/hosts has for this host (hosts(5)), or ''."""
    try:
        lines = _HOSTS.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    entries = (line.partition("#")[0].split()[1:] for line in lines)
    own = [name for names in entries if hostname in names for name in names if "." in name]
    return hostname if "." in hostname else next(iter(own), "")
