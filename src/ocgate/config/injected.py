"""Which variables Kubernetes and docker put into a container's environment by themselves. Pure.

A Service or a linked container named `vpn` or `ocgate` gives variables with our prefix that nobody
wrote. Kubernetes: "Discovering services", environment variables; docker: "Legacy container links".
Names that an operator could also have meant as a setting count only with the value they would have.
"""

from __future__ import annotations

import re

_OWNER = r"(?:VPN|OCGATE)(?:_[A-Z0-9]+)*?"  # `vpn`, or `vpn-gateway` as VPN_GATEWAY
_BY_NAME = re.compile(
    rf"{_OWNER}(?:"
    r"_SERVICE_HOST|_SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|_PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)*"
    r"|_ENV_.+"
    r")"
)
_PORT = re.compile(rf"{_OWNER}_PORT")
_NAME = re.compile(rf"{_OWNER}_NAME")
_ENDPOINT = re.compile(r"(?:tcp|udp|sctp)://.+")


def is_injected(name: str, value: str) -> bool:
    """Whether this variable comes from a Service or a container link rather than the operator."""
    if _BY_NAME.fullmatch(name):
        return True
    if _PORT.fullmatch(name):
        return _ENDPOINT.fullmatch(value) is not None  # VPN_PORT=443 was meant as a setting
    return _NAME.fullmatch(name) is not None and value.startswith("/")
