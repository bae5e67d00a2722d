"""What becomes of each OpenVPN directive that a file may hold, with the reason. Pure.

The list is one of what is allowed: what stands nowhere here is refused, so that a directive of a
later OpenVPN can't do what nobody thought of. docs/openvpn-directives.md is made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What becomes of a directive."""

    KEPT = "kept"
    """Handed to the client as it stands."""
    READ = "read"
    """Understood here: servers, files, credentials; the client gets what follows from it."""
    OURS = "ours"
    """Left out in silence, since the client gets the same or the like from us."""
    DROPPED = "dropped"
    """Left out with a notice: something that was asked for is not done."""
    REFUSED = "refused"
    """Not started: leaving it out would weaken what the file's author meant to have."""


@dataclass(frozen=True)
class Rule:
    """The verdict over one directive; `instead`: what to do where it is refused."""

    verdict: Verdict
    reason: str = ""
    instead: str = "remove it"


def _all(verdict: Verdict, reason: str, names: str, instead: str = "remove it") -> dict[str, Rule]:
    return dict.fromkeys(names.split(), Rule(verdict, reason, instead))


_DNS = "resolvers, addresses and routes are set by ocgate, and no program of the file is run"
_ROUTES = "everything goes through the tunnel, by ocgate's own routes"
_LOGS = "the client's words go into ocgate's log"
_RIGHTS = "the client runs without any privilege already"
_OTHER = "it concerns other systems"
_ENDPOINT = "the client talks to the server's resolved address by the uplink, and to nothing else"
_RETRY = "ocgate chooses the next server and the pause before it"
_CONTROL = "a management port would let others command the client"
_LIBRARY = "it loads a library into the client"
_SERVER = "it belongs to a server"
_COMMAND = "it is a command and not a configuration"
_TOKEN = "keys in tokens and other programs are not served"

RULES: dict[str, Rule] = {
    **_all(Verdict.READ, "", "remote proto proto-force port rport dev dev-type client pull"),
    **_all(Verdict.READ, "", "connection auth-user-pass key-direction setenv remote-random"),
    **_all(Verdict.READ, "", "ca cert key extra-certs pkcs12 crl-verify tls-auth tls-crypt"),
    **_all(Verdict.READ, "", "tls-crypt-v2 peer-fingerprint ignore-unknown-option setenv-safe"),
    **_all(Verdict.KEPT, "", "tls-client float keepalive ping ping-exit ping-restart"),
    **_all(Verdict.KEPT, "", "ping-timer-rem inactive session-timeout tun-mtu tun-mtu-extra"),
    **_all(Verdict.KEPT, "", "tun-mtu-max link-mtu fragment mssfix mtu-disc sndbuf rcvbuf"),
    **_all(Verdict.KEPT, "", "socket-flags tcp-nodelay tcp-queue-limit fast-io passtos"),
    **_all(Verdict.KEPT, "", "comp-lzo comp-noadapt compress allow-compression cipher auth"),
    **_all(Verdict.KEPT, "", "data-ciphers data-ciphers-fallback ncp-ciphers ncp-disable keysize"),
    **_all(Verdict.KEPT, "", "tls-cipher tls-ciphersuites tls-groups ecdh-curve"),
    **_all(Verdict.KEPT, "", "tls-version-min tls-version-max tls-cert-profile tls-timeout"),
    **_all(Verdict.KEPT, "", "hand-window tran-window reneg-sec reneg-bytes reneg-pkts"),
    **_all(Verdict.KEPT, "", "replay-window mute-replay-warnings verify-x509-name"),
    **_all(Verdict.KEPT, "", "remote-cert-tls remote-cert-ku remote-cert-eku ns-cert-type"),
    **_all(Verdict.KEPT, "", "verify-hash x509-username-field push-peer-info pull-filter"),
    **_all(Verdict.KEPT, "", "explicit-exit-notify dhcp-option block-ipv6 topology"),
    **_all(Verdict.KEPT, "", "ifconfig ifconfig-ipv6 ifconfig-nowarn disable-occ opt-verify"),
    **_all(Verdict.KEPT, "", "key-method compat-mode max-packet-size shaper"),
    **_all(Verdict.OURS, "the client's device outlives it", "persist-tun persist-key"),
    **_all(Verdict.OURS, "the client always does", "nobind auth-nocache route-noexec"),
    **_all(Verdict.OURS, "the client always does", "ifconfig-noexec disable-dco"),
    **_all(Verdict.OURS, "names are resolved by ocgate", "resolv-retry"),
    **_all(Verdict.OURS, _RETRY, "connect-retry connect-retry-max connect-timeout"),
    **_all(Verdict.OURS, _RETRY, "server-poll-timeout tls-exit auth-retry single-session"),
    **_all(Verdict.OURS, _LOGS, "verb mute echo machine-readable-output suppress-timestamps"),
    **_all(Verdict.OURS, _LOGS, "errors-to-stderr parameter"),
    **_all(Verdict.OURS, _DNS, "script-security"),
    **_all(Verdict.OURS, _ROUTES, "redirect-gateway redirect-private"),
    **_all(Verdict.OURS, _OTHER, "block-outside-dns register-dns ip-win32 tap-sleep dhcp-renew"),
    **_all(Verdict.OURS, _OTHER, "route-method service windows-driver win-sys dhcp-release"),
    **_all(Verdict.OURS, _OTHER, "allow-nonadmin show-net-up dhcp-pre-release tun-ipv6"),
    **_all(Verdict.DROPPED, _DNS, "up down up-delay down-pre up-restart ipchange route-up"),
    **_all(Verdict.DROPPED, _DNS, "route-pre-down iproute dns"),
    **_all(Verdict.DROPPED, _ROUTES, "route route-ipv6 route-gateway route-ipv6-gateway"),
    **_all(Verdict.DROPPED, _ROUTES, "route-metric route-delay route-nopull max-routes"),
    **_all(Verdict.DROPPED, _ROUTES, "allow-pull-fqdn client-nat allow-recursive-routing"),
    **_all(Verdict.DROPPED, _LOGS, "log log-append status status-version syslog writepid"),
    **_all(Verdict.DROPPED, "ocgate supervises the client", "daemon nice memstats gremlin"),
    **_all(Verdict.DROPPED, _RIGHTS, "user group chroot setcon mlock"),
    **_all(Verdict.DROPPED, _CONTROL, "management management-client management-hold"),
    **_all(Verdict.DROPPED, _CONTROL, "management-query-passwords management-query-remote"),
    **_all(Verdict.DROPPED, _CONTROL, "management-query-proxy management-log-cache"),
    **_all(Verdict.DROPPED, _CONTROL, "management-forget-disconnect management-signal"),
    **_all(Verdict.DROPPED, _CONTROL, "management-up-down management-client-user"),
    **_all(Verdict.DROPPED, _CONTROL, "management-client-group"),
    **_all(Verdict.DROPPED, _ENDPOINT, "local lport bind bind-dev multihome mark"),
    **_all(Verdict.DROPPED, _ENDPOINT, "remote-random-hostname persist-local-ip"),
    **_all(Verdict.DROPPED, _ENDPOINT, "persist-remote-ip"),
    **_all(Verdict.DROPPED, "the device is made by ocgate", "dev-node lladdr txqueuelen"),
    **_all(Verdict.DROPPED, _RETRY, "remap-usr1"),
    **_all(Verdict.DROPPED, "the client writes no files", "replay-persist tmp-dir"),
    **_all(Verdict.DROPPED, "nobody is there to be asked", "static-challenge"),
    **_all(
        Verdict.REFUSED,
        "it is a check of the server by a program, and ocgate runs no program of the file",
        "tls-verify tls-export-cert tls-crypt-v2-verify x509-track",
        "write verify-x509-name, peer-fingerprint or remote-cert-tls",
    ),
    **_all(Verdict.REFUSED, _LIBRARY, "plugin engine providers"),
    **_all(
        Verdict.REFUSED,
        "the kill switch lets the client talk to the VPN server alone, and not to a proxy",
        "http-proxy http-proxy-option http-proxy-user-pass http-proxy-retry http-proxy-timeout "
        "http-proxy-override socks-proxy socks-proxy-retry",
    ),
    **_all(
        Verdict.REFUSED,
        "a static key has no forward secrecy: who gets it reads all former traffic",
        "secret",
        "use a configuration with certificates",
    ),
    **_all(
        Verdict.REFUSED,
        "it weakens the tunnel's protection against forged packets",
        "no-replay no-iv prng",
    ),
    **_all(Verdict.REFUSED, "it reads another file of directives", "config",
           "write its lines here"),
    **_all(Verdict.REFUSED, "it changes where files are looked for", "cd",
           "name files by absolute path, or from beside this file"),
    **_all(Verdict.REFUSED, "it reads a directory of authorities", "capath",
           "write the authority's certificate as ca"),
    **_all(Verdict.REFUSED, "it reads a passphrase from a file", "askpass",
           "give the key without a passphrase"),
    **_all(Verdict.REFUSED, _TOKEN, "pkcs11-id pkcs11-id-management pkcs11-providers"),
    **_all(Verdict.REFUSED, _TOKEN, "pkcs11-pin-cache pkcs11-private-mode cryptoapicert"),
    **_all(Verdict.REFUSED, _TOKEN, "pkcs11-cert-private pkcs11-protected-authentication"),
    **_all(Verdict.REFUSED, _TOKEN, "management-external-key management-external-cert"),
    **_all(Verdict.REFUSED, "it hands the tunnel's keys out", "keying-material-exporter"),
    **_all(Verdict.REFUSED, _SERVER, "server server-ipv6 server-bridge mode tls-server"),
    **_all(Verdict.REFUSED, _SERVER, "ifconfig-pool ifconfig-pool-persist ifconfig-ipv6-pool"),
    **_all(Verdict.REFUSED, _SERVER, "ifconfig-push ifconfig-ipv6-push push push-reset"),
    **_all(Verdict.REFUSED, _SERVER, "push-remove iroute iroute-ipv6 client-config-dir"),
    **_all(Verdict.REFUSED, _SERVER, "ccd-exclusive client-connect client-disconnect"),
    **_all(Verdict.REFUSED, _SERVER, "client-crresponse learn-address auth-user-pass-verify"),
    **_all(Verdict.REFUSED, _SERVER, "auth-user-pass-optional auth-gen-token client-to-client"),
    **_all(Verdict.REFUSED, _SERVER, "auth-gen-token-secret duplicate-cn max-clients dh"),
    **_all(Verdict.REFUSED, _SERVER, "max-routes-per-client connect-freq hash-size"),
    **_all(Verdict.REFUSED, _SERVER, "connect-freq-initial bcast-buffers port-share disable"),
    **_all(Verdict.REFUSED, _SERVER, "username-as-common-name verify-client-cert"),
    **_all(Verdict.REFUSED, _SERVER, "stale-routes-check vlan-accept vlan-pvid vlan-tagging"),
    **_all(Verdict.REFUSED, _SERVER, "management-client-auth management-client-pf inetd"),
    **_all(Verdict.REFUSED, _COMMAND, "help version genkey mktun rmtun test-crypto mtu-test"),
    **_all(Verdict.REFUSED, _COMMAND, "show-ciphers show-digests show-engines show-tls"),
    **_all(Verdict.REFUSED, _COMMAND, "show-gateway show-pkcs11-ids show-curves"),
}  # fmt: skip

UNKNOWN = Rule(Verdict.REFUSED, "ocgate does not know what it would do")


@dataclass(frozen=True)
class Weakness:
    """What a directive that is kept must not say: `said` is searched in its words, with blanks
    between them."""

    said: re.Pattern[str]
    expected: str
    instead: str


# Alone or in a list; `?` before it asks for it where the client knows it (openvpn(8)).
_NONE = Weakness(
    re.compile(r"(?<![^ :?])none(?![^ :])", re.IGNORECASE),
    "a cipher or digest, because traffic would go in clear or unauthenticated",
    "write AES-256-GCM, or SHA256 for auth",
)

WEAKNESSES: dict[str, Weakness] = {
    **dict.fromkeys(("cipher", "data-ciphers", "data-ciphers-fallback", "auth"), _NONE),
    "ncp-ciphers": _NONE,  # data-ciphers by its name before 2.5
    # Ciphers without encryption (eNULL, NULL-SHA256, TLS-RSA-WITH-NULL-SHA256), or without proof
    # of the server (aNULL); `!NULL` and `-NULL` take them out of a list.
    "tls-cipher": Weakness(
        re.compile(r"(?<![^ :,])(?![!-])[^ :,]*NULL", re.IGNORECASE),
        "ciphers that encrypt, because the tunnel's keys would go in clear",
        "remove it",
    ),
}


def weakness(name: str, words: tuple[str, ...]) -> Weakness | None:
    """What is wrong with a directive that is kept otherwise; None where nothing is."""
    known = WEAKNESSES.get(name)
    return known if known is not None and known.said.search(" ".join(words)) else None


# What may stand in a <connection> block (openvpn(8), "Connection profiles").
IN_CONNECTION = frozenset(
    {
        *("bind", "connect-retry", "connect-retry-max", "connect-timeout", "explicit-exit-notify"),
        *("float", "fragment", "http-proxy", "http-proxy-option", "key-direction", "link-mtu"),
        *("local", "lport", "mssfix", "mtu-disc", "nobind", "port", "proto", "remote", "rport"),
        *("socks-proxy", "tls-auth", "tls-crypt", "tls-crypt-v2", "tun-mtu", "tun-mtu-extra"),
    }
)


def rule(name: str) -> Rule:
    """The rule for a directive; an unknown one is refused."""
    return RULES.get(name, UNKNOWN)


_HEAD = """\
# OpenVPN directives in OVPN_CONFIG

Generated from `src/ocgate/tunnel/openvpn_directives.py` by
`python -m ocgate.tunnel.openvpn_page`; do not edit.

`ocgate exit` reads an OpenVPN client's file and hands the client a file of its own. The client runs
as a user without any privilege, behind the kill switch, on a device that ocgate made. So a file
can't run programs, set routes, write files or open ports; it can only say how to reach the server
and how to know it. What is refused stops the start, because the tunnel without it would be less
than the file's author meant; what is dropped is told in the log. Directives that are named nowhere
here are refused.
"""

_TITLES = {
    Verdict.REFUSED: "## Refused",
    Verdict.DROPPED: "## Dropped with a notice",
    Verdict.OURS: "## Left out in silence: ocgate does the same or the like",
    Verdict.READ: "## Understood",
    Verdict.KEPT: "## Handed on as they stand",
}


def directives_markdown() -> str:
    """docs/openvpn-directives.md, ending in a newline."""
    return "\n".join([_HEAD, *(_section(verdict, title) for verdict, title in _TITLES.items())])


def _section(verdict: Verdict, title: str) -> str:
    by_rule: dict[Rule, list[str]] = {}
    for name, each in RULES.items():
        if each.verdict is verdict:
            by_rule.setdefault(each, []).append(f"`{name}`")
    if all(not each.reason for each in by_rule):
        names = sorted(name for group in by_rule.values() for name in group)
        return f"{title}\n\n{', '.join(names)}.\n"
    refused = verdict is Verdict.REFUSED
    head = (
        "| Directive | Because | Instead |\n|---|---|---|\n"
        if refused
        else ("| Directive | Because |\n|---|---|\n")
    )
    rows = [
        f"| {', '.join(names)} | {each.reason} |" + (f" {each.instead} |" if refused else "")
        for each, names in by_rule.items()
    ]
    return f"{title}\n\n{head}" + "".join(f"{row}\n" for row in rows)
