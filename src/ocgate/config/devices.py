"""Forms of interface names and of the tunnels' device pattern. Pure.

Names reach nft and `ip` as text, so only what both take unquoted is accepted. `device_matches` is
also for rooms that compare a pattern with an interface.
"""

from __future__ import annotations

import re

from ocgate.config.values import Form, reject

# IFNAMSIZ is 16 with the closing NUL (linux/if.h).
LONGEST_NAME = 15

# ocserv numbers its devices behind the prefix: four digits hold the 10,000 sessions we aim at.
LONGEST_PREFIX = LONGEST_NAME - 4

INTERFACE_ACCEPTS = f"an interface name of at most {LONGEST_NAME} letters, digits, '_', '.' or '-'"
PATTERN_ACCEPTS = f"a device prefix of at most {LONGEST_PREFIX} characters and a final '+'"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_LOOPBACK = "lo"


def interface(text: str) -> str:
    """The name of one interface, such as `eth0`; raises `Rejected`."""
    name = text.partition("@")[0]
    if name != text and _NAME.fullmatch(name):
        raise reject(text, INTERFACE_ACCEPTS, f"write {name} (what follows '@' is its peer)")
    if not _NAME.fullmatch(text):
        raise reject(text, INTERFACE_ACCEPTS, "write one name as `ip link` shows it, such as eth0")
    if len(text) > LONGEST_NAME:
        raise reject(text, INTERFACE_ACCEPTS, "write the name as `ip link` shows it")
    if text == _LOOPBACK:
        raise reject(text, "an interface that leads outside", "write one such as eth0")
    return text


def device_pattern(text: str) -> str:
    """The tunnels' devices as prefix and `+`, such as `vpns+`; raises `Rejected`."""
    prefix = text.rstrip("+*")
    if not prefix:
        raise reject(text, PATTERN_ACCEPTS, "write vpns+ (a bare pattern is every interface)")
    if not _NAME.fullmatch(prefix):
        raise reject(text, PATTERN_ACCEPTS, "write ocserv.conf's `device` and a '+', such as vpns+")
    if text != f"{prefix}+":
        stem = prefix.rstrip("0123456789") or prefix
        raise reject(text, PATTERN_ACCEPTS, f"write {stem}+ ('+' stands for any ending)")
    if len(prefix) > LONGEST_PREFIX:
        raise reject(text, PATTERN_ACCEPTS, "shorten it here and in ocserv.conf's `device`")
    if device_matches(text, _LOOPBACK):
        raise reject(text, "a pattern that does not match lo", "write one such as vpns+")
    return text


def device_matches(pattern: str, name: str) -> bool:
    """Whether an interface's name falls under a pattern such as `vpns+`."""
    return name.startswith(pattern.removesuffix("+"))


INTERFACE = Form("interface name", INTERFACE_ACCEPTS, interface)
DEVICES = Form("device pattern", PATTERN_ACCEPTS, device_pattern)
