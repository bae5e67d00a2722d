"""What may be the host of a server, in whatever file it stands. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_LONGEST_NAME = 253  # RFC 1035 section 2.3.4, without the length bytes


def is_host(text: str) -> bool:
    """Whether this is a DNS name or an IP address, without brackets."""
    if len(text) <= _LONGEST_NAME and _NAME.fullmatch(text):
        return True
    try:
        return ip_address(text).version == 6 and "%" not in text
    except ValueError:
        return False
