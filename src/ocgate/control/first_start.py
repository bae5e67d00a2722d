"""First start: the facts that `init` needs, gathered; and whether it is a first start at all."""

from __future__ import annotations

import socket

from ocgate.config.model import Settings
from ocgate.errors import ConfigurationError
from ocgate.kernel.facts import observe
from ocgate.plan.facts import Facts
from ocgate.server.initialise import Created, HostFacts, create, needed


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
    own = wan.own(4) or wan.own(6) if wan else ()
    return HostFacts(
        hostname=socket.gethostname(),
        fqdn=_fqdn(),
        addresses=tuple(a.ip for link in facts.interfaces for a in link.addresses),
        preferred=own[0].ip if own else None,
    )


def _fqdn() -> str:
    """The canonical name by the hosts file or resolver; '' where there is none with a dot."""
    name = socket.getfqdn()
    return name if "." in name and not name.endswith((".arpa", ".localdomain")) else ""
