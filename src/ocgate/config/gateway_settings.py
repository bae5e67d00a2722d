"""The settings of gateway mode, as `model` annotates its attributes with them. Pure."""

from __future__ import annotations

from ocgate.config import endpoints, gateways, macs, probing, values
from ocgate.config.choices import Forwarding
from ocgate.config.setting import Setting

GROUP = "Gateway mode"

# A start that waits longer for a name looks like one that hangs.
_LONGEST_WAIT = 300

# DNS's own limit of a TTL is 2**31 - 1 (RFC 2181); nobody means more than a day.
_LONGEST_RESOLVE = 86400

VPN_GATEWAY = Setting(
    "VPN_GATEWAY",
    gateways.UPSTREAM4,
    GROUP,
    "Where the clients' IPv4 leaves: through an upstream on an attached network, by address or DNS "
    "name, and no other way whatever breaks; `direct`: through this host, held by all three layers "
    "(a first start writes this into ocgate.toml); "
    "`block`: rejected at once. An upstream that is not there yet, or fails, is no error: clients "
    "are rejected until it is back.",
    "172.28.0.2",
    unset="IPv4 by this host; no gateway mode unless VPN_GATEWAY6 is set",
)
VPN_GATEWAY6 = Setting(
    "VPN_GATEWAY6",
    gateways.UPSTREAM6,
    GROUP,
    "The same for IPv6. `direct` beside a gateway shows the host's own IPv6 network to every "
    "server that clients reach by IPv6.",
    "fd00:28::2",
    unset="`block` while VPN_GATEWAY is a gateway or `block`, else IPv6 as without gateway mode",
)
VPN_GATEWAY_MAC = Setting(
    "VPN_GATEWAY_MAC",
    macs.PIN,
    GROUP,
    "The MAC address at which the IPv4 gateway is reached, whoever else on its network answers for "
    "its IP address. `learn`: the one that it has when a probe first succeeds, kept until the next "
    "start, `ocgate reload --learn-mac`, or until its name moves to another address. `off`: "
    "whoever answers to ARP.",
    "learn",
)
VPN_GATEWAY6_MAC = Setting(
    "VPN_GATEWAY6_MAC",
    macs.PIN,
    GROUP,
    "The same for VPN_GATEWAY6, whoever answers to neighbour discovery.",
    "02:42:ac:1c:00:03",
)
VPN_GATEWAY_TABLE = Setting(
    "VPN_GATEWAY_TABLE",
    gateways.TABLE,
    GROUP,
    "The routing table that holds the gateway's route. It must be nobody else's.",
    "100",
)
VPN_GATEWAY_RULE_PRIO = Setting(
    "VPN_GATEWAY_RULE_PRIO",
    gateways.RULE_PRIO,
    GROUP,
    "The priority of the rule `from VPN_SUBNET lookup VPN_GATEWAY_TABLE`. The other rules have "
    "priorities from 4 below to 101 above it; all must stand before the rules of other programs.",
    "1000",
)
VPN_GATEWAYS_RESOLVE_INTERVAL = Setting(
    "VPN_GATEWAYS_RESOLVE_INTERVAL",
    values.integer(0, _LONGEST_RESOLVE, "seconds", outside="write 300, say, or 0 for the TTL"),
    GROUP,
    "Seconds until the name of a gateway is resolved again. `0`: when the answer's TTL ends. In "
    "either case also when the gateway fails. A look-up that fails keeps the last address.",
    "300",
)
VPN_GATEWAYS_RESOLVE_TIMEOUT = Setting(
    "VPN_GATEWAYS_RESOLVE_TIMEOUT",
    values.integer(1, _LONGEST_WAIT, "seconds", outside="write 10, say"),
    GROUP,
    "Seconds that a start waits for the name of a gateway to resolve before it gives up.",
    "30",
)
EXIT_PROBE = Setting(
    "EXIT_PROBE",
    endpoints.ENDPOINTS,
    GROUP,
    "Whom probes ask through a gateway to see whether it leads out: by a TCP connection (port 443 "
    "unless written), by DNS (`dns:9.9.9.9`) or by a ping (`icmp:1.1.1.1`). Of each family one "
    "that answers is enough, so name several operators and kinds. `off`: the gateway counts as "
    "working as long as it answers as a neighbour.",
    "1.1.1.1:443, dns:9.9.9.9, icmp:8.8.8.8, [2606:4700:4700::1111]:443",
)
EXIT_PROBE_INTERVAL = Setting(
    "EXIT_PROBE_INTERVAL",
    probing.INTERVAL,
    GROUP,
    "Seconds between two probes of a gateway.",
    "0.5",
)
EXIT_PROBE_FAILURES = Setting(
    "EXIT_PROBE_FAILURES",
    probing.in_a_row(3),
    GROUP,
    "After how many rounds of probes in a row without an answer a gateway counts as down and "
    "clients are rejected. What comes back for clients is an answer, too.",
    "5",
)
EXIT_PROBE_SUCCESSES = Setting(
    "EXIT_PROBE_SUCCESSES",
    probing.in_a_row(2),
    GROUP,
    "After how many answered probes in a row a gateway that was down counts as up again.",
    "1",
)
OCGATE_FORWARDING = Setting(
    "OCGATE_FORWARDING",
    values.choice(Forwarding),
    GROUP,
    "Whether in gateway mode anything but clients is forwarded through this network namespace. "
    "`exclusive`: nothing is, so that what is forwarded never takes the host's default route, "
    "whatever source it claims. `shared`: others forward here too, and are left alone. `auto`: "
    "exclusive in a network namespace of its own (a container), shared in the machine's.",
    "exclusive",
)
