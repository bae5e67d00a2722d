"""The exit role's settings, as `exit_model` annotates its attributes with them. Pure."""

from __future__ import annotations

from ocgate.config import endpoints, exit_forms, exit_networks, probing, texts, values
from ocgate.config.exit_choices import Mac
from ocgate.config.setting import Setting

TUNNEL, NORDVPN, CLIENTS, HEALTH, PLACES = (
    "Tunnel",
    "NordVPN",
    "Who may use it",
    "Health",
    "Directories",
)

# Somebody who wants more than a week between two servers wants no rotation.
_LONGEST_ROTATION = 7 * 86400

# Of NordVPN's 8,000 servers; a choice among more than a thousand is no choice by load.
_MOST_RANDOM = 1000

OVPN_CONFIG = Setting(
    "OVPN_CONFIG",
    exit_forms.FILE,
    TUNNEL,
    "An OpenVPN client configuration. Files that it names are read from beside it. What would run "
    "programs, change routes or write files is refused or dropped with a notice: "
    "docs/openvpn-directives.md.",
    "/config/vpn.ovpn",
    unset="another kind of tunnel",
)
URL = Setting(
    "URL",
    exit_forms.URLS,
    TUNNEL,
    "An OpenConnect (ocserv, AnyConnect) server, with its camouflage secret if it has one. "
    "Several, separated by `;`, are tried in turn. Needs USER and PASS.",
    "https://vpn.example.org/?camouflage-secret",
    unset="another kind of tunnel",
    secret=True,
)
SERVERCERT = Setting(
    "SERVERCERT",
    exit_forms.PIN,
    TUNNEL,
    "The pin of the OpenConnect server's certificate, for one that no public authority has signed.",
    "pin-sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
    unset="the certificate must be signed by an authority of the system",
)
WG_CONFIG = Setting(
    "WG_CONFIG",
    exit_forms.FILE,
    TUNNEL,
    "A WireGuard configuration as for wg-quick. PreUp, PostUp and their like are refused.",
    "/config/wg0.conf",
    unset="another kind of tunnel",
)
USER = Setting(
    "USER",
    exit_forms.USER,
    TUNNEL,
    "The user for the VPN server. For NordVPN, from `service credentials` and not the account's. "
    "Without PASS it is taken for a login shell's USER and ignored.",
    "alice",
    unset="none",
    secret=True,
)
PASS = Setting(
    "PASS",
    texts.PASSWORD,
    TUNNEL,
    "The password for the VPN server. USER and PASS alone, without OVPN_CONFIG, URL and WG_CONFIG, "
    "mean NordVPN.",
    "correct horse battery staple",
    unset="none",
    secret=True,
)
EXIT_ROTATE = Setting(
    "EXIT_ROTATE",
    values.integer(0, _LONGEST_ROTATION, "seconds", outside="write 21600, say, or 0 for never"),
    TUNNEL,
    "Seconds after which another of the possible servers is taken. `0`: never, as long as the "
    "tunnel works.",
    "21600",
)
COUNTRY = Setting(
    "COUNTRY",
    exit_forms.names("Netherlands;DE;209"),
    NORDVPN,
    "Countries whose servers may be used, by name, two-letter code or id; single servers such as "
    "`nl742` are tried first.",
    "Netherlands;DE;209",
    unset="servers of every country",
)
CITY = Setting(
    "CITY",
    exit_forms.names("Amsterdam;Berlin"),
    NORDVPN,
    "Cities whose servers may be used, by name or id, beside those of COUNTRY.",
    "Amsterdam;Berlin",
    unset="servers of every city",
)
GROUP = Setting(
    "GROUP",
    exit_forms.names("P2P"),
    NORDVPN,
    "A group that a server must belong to, by title, identifier or id; of several, one is enough.",
    "P2P",
    unset="servers of every group",
)
TECHNOLOGY = Setting(
    "TECHNOLOGY",
    exit_forms.TECHNOLOGY,
    NORDVPN,
    "How NordVPN's servers are spoken to: OpenVPN over UDP (1194) or TCP (443).",
    "openvpn_tcp",
)
RANDOM_TOP = Setting(
    "RANDOM_TOP",
    values.integer(0, _MOST_RANDOM, "servers", outside="write 10, say, or 0 for the best"),
    NORDVPN,
    "So many of the least loaded servers are taken in random order. `0`: the least loaded first.",
    "10",
)
FORWARD_FROM = Setting(
    "FORWARD_FROM",
    exit_networks.NETWORKS,
    CLIENTS,
    "Networks that may go out through the tunnel: the docker network whose containers use this one "
    "as their gateway. Nobody else may.",
    "172.28.0.0/24",
    unset="nobody but what shares this network namespace",
)
NETWORK = Setting(
    "NETWORK",
    exit_networks.NETWORKS,
    CLIENTS,
    "Local networks that this container reaches without the tunnel, whatever its state. Keep it "
    "narrow: what lies in it is outside of the kill switch.",
    "192.168.1.0/24",
    unset="none",
)
GATEWAY_DNS = Setting(
    "GATEWAY_DNS",
    exit_forms.GATEWAY_DNS,
    CLIENTS,
    "DNS of those who use the tunnel. `redirect`: every query goes to the tunnel's resolver, "
    "whatever resolver was asked; where the tunnel offers none, DNS is rejected. `off`: queries go "
    "through the tunnel like everything else. `auto`: `redirect` if the tunnel offers a resolver, "
    "otherwise `off`.",
    "redirect",
)
EXIT_MAC = Setting(
    "EXIT_MAC",
    values.choice(Mac),
    CLIENTS,
    "`new`: a new MAC address on the networks of FORWARD_FROM at each start, once the kill switch "
    "stands, so that what neighbours send to the former container reaches nobody before that. For "
    "docker's bridge networks; an overlay network or a Kubernetes network may know this container "
    "by its MAC: `keep` there.",
    "new",
)
EXIT_PROBE = Setting(
    "EXIT_PROBE",
    endpoints.ENDPOINTS,
    HEALTH,
    "Whom probes ask through the tunnel to see whether it leads out: by a TCP connection (port 443 "
    "unless written), by DNS (`dns:9.9.9.9`) or by a ping (`icmp:1.1.1.1`). One that answers is "
    "enough, so name several operators and kinds; what comes back for users is an answer, too. "
    "`off`: the tunnel works as long as its client says so.",
    "1.1.1.1:443, dns:9.9.9.9, icmp:8.8.8.8, [2606:4700:4700::1111]:443",
)
EXIT_PROBE_INTERVAL = Setting(
    "EXIT_PROBE_INTERVAL",
    probing.INTERVAL,
    HEALTH,
    "Seconds between two probes.",
    "0.5",
)
EXIT_PROBE_FAILURES = Setting(
    "EXIT_PROBE_FAILURES",
    probing.in_a_row(5),
    HEALTH,
    "After how many rounds of probes in a row without an answer the tunnel counts as down; another "
    "server is tried 10 seconds later.",
    "10",
)
EXIT_PROBE_SUCCESSES = Setting(
    "EXIT_PROBE_SUCCESSES",
    probing.in_a_row(1),
    HEALTH,
    "After how many answered probes in a row the tunnel counts as working.",
    "2",
)
OCGATE_RUN_DIR = Setting(
    "OCGATE_RUN_DIR",
    texts.DIRECTORY,
    PLACES,
    "Holds sockets, pid files and the client's files; best on a tmpfs.",
    "/run/exit",
)
OCGATE_CACHE_DIR = Setting(
    "OCGATE_CACHE_DIR",
    texts.DIRECTORY,
    PLACES,
    "Keeps NordVPN's list of servers for starts without its API; best a volume.",
    "/srv/exit",
)
