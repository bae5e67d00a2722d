"""Forms of the exit role's own kinds of values. Pure; `ServerUrl` is for the wiring, too."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from pydantic import SecretStr

from ocgate.config import texts
from ocgate.config.exit_choices import GatewayDns, Technology
from ocgate.config.values import Fault, Form, Rejected, choice, reject
from ocgate.outside import is_host

# OpenVPN's buffers for user and password hold 127 bytes and a NUL (USER_PASS_LEN, misc.h).
LONGEST_USER = 127

# A camouflage secret is a word; what is longer than this is no URL that anybody typed.
LONGEST_URLS = 2048

# NordVPN's longest name of a place is "Bosnia and Herzegovina"; of a group, "Dedicated IP" and so.
LONGEST_NAME = 64

URLS_ACCEPTS = "https://NAME[:PORT][/PATH][?CAMOUFLAGE-SECRET], several separated by ';'"
PIN_ACCEPTS = "pin-sha256: and the 44 characters of a base64 SHA-256"
USER_ACCEPTS = f"1 to {LONGEST_USER} bytes of UTF-8 without control characters"
NAMES_ACCEPTS = "names, codes or ids, separated by ';' or ','"

_PIN = re.compile(r"pin-sha256:[A-Za-z0-9+/]{43}=")
_UNUSABLE_IN_URL = re.compile(r"[\s\"'\\<>`]")


@dataclass(frozen=True)
class ServerUrl:
    """One OpenConnect server.

    host:     a name, or an address (IPv6 without brackets).
    port:     1 to 65535.
    location: what follows: path and camouflage secret, `/?secret` say; "" where there is nothing.
    """

    host: str
    port: int
    location: SecretStr


def file(text: str) -> Path:
    """A tunnel's configuration."""
    return texts.file(text, such_as="/config/vpn.conf")


def server_urls(text: str) -> tuple[ServerUrl, ...]:
    """OpenConnect servers in the order in which they are tried; faults never show them."""
    if len(text.encode(errors="replace")) > LONGEST_URLS:
        raise reject(None, URLS_ACCEPTS, "write shorter URLs")
    found: list[ServerUrl] = []
    faults: list[Fault] = []
    for item in filter(None, (part.strip() for part in text.split(";"))):
        try:
            found.append(_server_url(item))
        except Rejected as rejected:
            faults += rejected.faults
    if not found and not faults:
        faults.append(Fault(None, URLS_ACCEPTS, "write one such as https://vpn.example.org"))
    if faults:
        raise Rejected(*faults)
    return tuple(found)


def _server_url(item: str) -> ServerUrl:
    parts, port = _split(item if "://" in item else f"https://{item}")
    host = parts.hostname or ""
    if parts.scheme != "https":
        raise reject(None, URLS_ACCEPTS, "write https:// (an OpenConnect server speaks TLS)")
    if parts.username is not None or parts.password is not None:
        raise reject(None, URLS_ACCEPTS, "leave out what stands before '@'; write USER and PASS")
    if not is_host(host) or port == 0:
        raise reject(None, URLS_ACCEPTS, "write one such as https://vpn.example.org")
    if parts.fragment or not item.isprintable() or _UNUSABLE_IN_URL.search(item):
        raise reject(None, URLS_ACCEPTS, "leave out '#', quotes, spaces and backslashes")
    location = parts.path + (f"?{parts.query}" if parts.query else "")
    return ServerUrl(host, port, SecretStr("" if location == "/" else location))


def _split(url: str) -> tuple[SplitResult, int]:
    """The URL's parts and its port, 443 unless written."""
    try:
        parts = urlsplit(url)
        return parts, 443 if parts.port is None else parts.port
    except ValueError:
        remedy = "write one such as https://vpn.example.org"
        raise reject(None, URLS_ACCEPTS, remedy) from None


def pin(text: str) -> str:
    """The whole pin: openconnect would take a part of one, which is no proof of a server."""
    if not _PIN.fullmatch(text):
        remedy = "write it as openconnect prints it for a server whose certificate it can't verify"
        raise reject(text, PIN_ACCEPTS, remedy)
    return text


def user(text: str) -> SecretStr:
    """A user name that both clients can send; faults never show it."""
    if not text or not text.isprintable() or len(text.encode()) > LONGEST_USER:
        raise reject(None, USER_ACCEPTS, "write the user name that the VPN server knows")
    return SecretStr(text)


def names(such_as: str) -> Form:
    """Places and groups as people name them; whether there are such is for the provider's list."""

    def parse(text: str) -> tuple[str, ...]:
        found = [part.strip() for part in re.split("[;,]", text)]
        found = list(dict.fromkeys(filter(None, found)))
        for name in found:
            if len(name) > LONGEST_NAME or not name.isprintable():
                raise reject(name, NAMES_ACCEPTS, f"write names such as {such_as}")
        if not found:
            raise reject(text, NAMES_ACCEPTS, f"write names such as {such_as}")
        return tuple(found)

    return Form("list of names", NAMES_ACCEPTS, parse)


def _told(form: Form, told: Callable[[str], str | None]) -> Form:
    """`form` with a better remedy for words that the companion images take."""

    def parse(text: str) -> object:
        remedy = told(text.lower())
        if remedy:
            raise reject(text, form.accepts, remedy)
        return form.parse(text)

    return Form(form.kind, form.accepts, parse)


def _other_dns(word: str) -> str | None:
    if word == "local":
        return "write redirect (ocgate runs no resolver for clients), or off if they ask your own"
    if word == "forward":
        return "write redirect (asking a resolver by the uplink would be a DNS leak)"
    return None


def _other_technology(word: str) -> str | None:
    if "xor" in word or "obfuscated" in word:
        return "write openvpn_tcp (obfuscation needs a patched OpenVPN, which Debian has not)"
    if "wireguard" in word or "nordlynx" in word:
        return "write openvpn_udp, or give a WireGuard configuration as WG_CONFIG"
    if "dedicated" in word:
        return "write openvpn_udp or openvpn_tcp, and your server's name as COUNTRY, such as us1234"
    return None


# NordVPN's own names and ids of what we speak, as the companion image takes them.
_TECHNOLOGIES = {
    "openvpn udp": "openvpn_udp",
    "3": "openvpn_udp",
    "openvpn tcp": "openvpn_tcp",
    "5": "openvpn_tcp",
}

FILE = Form("file", texts.FILE_ACCEPTS, file)
URLS = Form("list of URLs", URLS_ACCEPTS, server_urls)
PIN = Form("certificate pin", PIN_ACCEPTS, pin)
USER = Form("user name", USER_ACCEPTS, user)
GATEWAY_DNS = _told(choice(GatewayDns), _other_dns)
TECHNOLOGY = _told(choice(Technology, also=_TECHNOLOGIES), _other_technology)
