"""The form of a gateway's MAC address. Pure."""

from __future__ import annotations

import re

from ocgate.config.values import NOTHING, Form, reject

LEARN = "learn"
ACCEPTS = f"{NOTHING}, {LEARN} or a MAC address"
_SUCH_AS = "02:42:ac:1c:00:03"
_WRITTEN = re.compile(r"(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}")
_GROUP = 0x01  # IEEE 802: of the first octet


def pin(text: str) -> str:
    """`off`, `learn`, or a unicast MAC address as the kernel writes it; raises `Rejected`."""
    word = text.lower()
    if word in (NOTHING, LEARN):
        return word
    if _WRITTEN.fullmatch(text) is None:
        remedy = f"write {_SUCH_AS}, say: `ip neigh` shows what the gateway answers with"
        raise reject(text, ACCEPTS, remedy)
    address = bytes.fromhex(re.sub("[:-]", "", text))
    if address[0] & _GROUP or not any(address):
        raise reject(text, "a MAC address of one host", "write the gateway's own: `ip neigh`")
    return address.hex(":")


PIN = Form("MAC address", ACCEPTS, pin)
