"""The ocserv.conf and ocgate.toml of a fresh installation, as texts for people to edit. Pure.

Every value stands with its reason, because this file is the operator's from the first minute. Only
keys that every release knows (`releases.KEYS`); min-reauth-time, of another name from 1.4.1 on, is
still read. What ocgate renders itself (sockets, hooks, IPv6) is left
out and said so.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from ocgate.names import DEFAULT_DEVICE

CONF = "ocserv.conf"
SETTINGS = "ocgate.toml"
PASSWD = "ocpasswd"
KEY = "server-key.pem"
CERTIFICATE = "server-cert.pem"

# The reference image's default, so that VPN_SUBNET means the same here and there.
DEFAULT_SUBNET = IPv4Network("10.10.10.0/24")

# ocserv draws addresses at random and gives up after 16 (ip-lease.c, MAX_IP_TRIES): with half of
# the subnet in use that fails once in 65,536 logins, with nine tenths once in five.
_USABLE_SHARE = 2

# ocserv's own ceiling where max-clients is not set (ocserv.conf's sample: "~8k clients").
_MOST_CLIENTS = 8192

LISTEN_PORT = 443


@dataclass(frozen=True)
class Choices:
    """What differs from one fresh installation to the next.

    subnet: the clients' network.
    device: prefix of the tunnel devices, without number.
    run_as: user and group of the workers.
    """

    config_dir: Path
    subnet: IPv4Network = DEFAULT_SUBNET
    device: str = DEFAULT_DEVICE
    run_as: tuple[str, str] = ("nobody", "nogroup")

    @property
    def max_clients(self) -> int:
        """How many sessions find an address reliably."""
        return max(1, min(_MOST_CLIENTS, (self.subnet.num_addresses - 3) // _USABLE_SHARE))


def ocserv_conf(choices: Choices) -> str:
    """The commented ocserv.conf."""
    return _OCSERV_CONF.format(
        directory=choices.config_dir,
        passwd=choices.config_dir / PASSWD,
        certificate=choices.config_dir / CERTIFICATE,
        key=choices.config_dir / KEY,
        port=LISTEN_PORT,
        user=choices.run_as[0],
        group=choices.run_as[1],
        device=choices.device,
        network=choices.subnet.network_address,
        netmask=choices.subnet.netmask,
        size=choices.subnet.num_addresses,
        max_clients=choices.max_clients,
    )


@dataclass(frozen=True)
class Lines:
    """What differs from one fresh ocgate.toml to the next.

    nat, sink: whether those lines are active; they are not where they would contradict what the
               environment says, or ask for IPv6 that this kernel lacks.
    gateway:   by what clients leave, as VPN_GATEWAY says it.
    gateway6:  the same for VPN_GATEWAY6; None: the line is a comment.
    shared:    whether this is a machine that looks like a container: others may forward on it.
    """

    nat: bool = True
    sink: bool = True
    gateway: str = "direct"
    gateway6: str | None = None
    shared: bool = False


def ocgate_toml(lines: Lines) -> str:
    """The commented ocgate.toml."""
    return _OCGATE_TOML.format(
        nat=_active(on=lines.nat),
        sink=_active(on=lines.sink),
        gateway=lines.gateway,
        six=_active(on=lines.gateway6 is not None),
        gateway6=lines.gateway6 or "block",
        shared=_active(on=lines.shared),
    )


def _active(*, on: bool) -> str:
    """What stands before a line."""
    return "" if on else "#"


_OCSERV_CONF = """\
# ocserv.conf, written once by `ocgate init`. It is yours: ocgate never edits it.
#
# At each start ocgate renders an effective copy into its run dir and adds there: its connect and
# disconnect hooks (your own scripts still run), the sockets and the pid file, and, where
# ocgate.toml says so, IPv6. After a change: `ocgate check`, then `ocgate reload`. What needs a
# restart instead is marked [restart].

# ---- Who may log in ----------------------------------------------------------------------------

# Users with passwords; edit with `ocgate user add|remove|list`. [restart]
# A second factor (TOTP): auth = "plain[passwd={passwd},otp={directory}/users.oath]"
auth = "plain[passwd={passwd}]"

# ---- Where it listens --------------------------------------------------------------------------

# 443 passes nearly every foreign firewall. UDP carries DTLS, which is the faster way; clients
# that can't use it stay on TCP. [restart]
tcp-port = {port}
udp-port = {port}

# Key and certificate; the key is readable by root alone. Put your own (Let's Encrypt, say) into
# these files and run `ocgate reload`; nobody is disconnected. New paths: [restart].
server-cert = {certificate}
server-key = {key}

# TLS 1.2 with forward secrecy only (-RSA: no static key exchange). TLS 1.3 is left out because
# AnyConnect clients stumble over it; remove the last item if you have none of those.
tls-priorities = "NORMAL:%SERVER_PRECEDENCE:%COMPAT:-RSA:-VERS-TLS1.0:-VERS-TLS1.1:-VERS-TLS1.3"

# For AnyConnect and old openconnect: their early form of DTLS.
cisco-client-compat = true
dtls-legacy = true

# Compression together with encryption leaks what is compressed (CRIME, VORACLE).
compression = false

# Looks like an ordinary web server to who does not know the secret; clients then connect to
# https://HOST/?SECRET. Needs ocserv 1.2 or newer (Debian 13).
#camouflage = true
#camouflage_secret = "choose-a-secret"
#camouflage_realm = "Restricted"

# ---- Who serves --------------------------------------------------------------------------------

# Each connection has a process of its own, unprivileged and behind a seccomp filter. [restart]
run-as-user = {user}
run-as-group = {group}
isolate-workers = true

# `occtl` shows and disconnects users; `ocgate status` needs it. [restart]
use-occtl = true

# 1: logins and errors. 2 adds what is going on; 4 and up can show secrets.
log-level = 1

# ---- Limits ------------------------------------------------------------------------------------

# Half of the {size} addresses below: ocserv draws addresses at random and gives up after 16 that
# are taken, so a fuller subnet turns users away now and then.
max-clients = {max_clients}

# Sessions of one user: laptop, phone, tablet, router. While a client roams, its old session and
# its new one count both for a moment.
max-same-clients = 4

# A login at most every so many milliseconds, and only while logins are queueing up.
rate-limit-ms = 100

# Wrong passwords: 10 points each, an address with 80 is banned for five minutes, and points are
# forgotten after 20. Connecting costs nothing: a client on a bad line reconnects every ten
# seconds, and behind docker's userland proxy or a carrier's NAT all clients share one address.
max-ban-score = 80
min-reauth-time = 300
ban-reset-time = 1200
ban-points-wrong-password = 10
ban-points-connection = 0

# Time for a person to type password and code; also the longest that a hook could hold a login.
auth-timeout = 120

# ---- Staying connected -------------------------------------------------------------------------

# Seconds. A client asks every `dpd` seconds whether the server is there, which also keeps the
# UDP mapping of home routers open (RFC 4787 asks for 120 s, many give 60 to 90); a silent client
# is gone after about three and a half times that.
dpd = 60

# Phones: each question wakes the radio, so five times rarer. DTLS then falls back to TCP at need.
mobile-dpd = 300
switch-to-tcp-timeout = 25

# Cloud load balancers and carriers forget an idle TCP connection after 350 s and more.
keepalive = 300

# So long a broken connection may come back, from another address too, without the password.
cookie-timeout = 300
deny-roaming = false

# New keys every two days, within the connection.
rekey-time = 172800
rekey-method = ssl

# Off: large DTLS packets may be fragmented on the way, but arrive. On, ocserv lowers the tunnel's
# MTU to what passes; below 1280 the kernel takes IPv6 off the tunnel without a word.
try-mtu-discovery = false

# Statistics start over every week.
server-stats-reset-time = 604800

# ---- What clients get --------------------------------------------------------------------------

# Tunnel devices are {device}0, {device}1, …; VPN_IF must match if you change it.
device = {device}

# Addresses of the clients; the first one is the server's own. ocgate takes the subnet from here
# for NAT and its locks. Change it if your clients' home networks use the same one.
ipv4-network = {network}
ipv4-netmask = {netmask}

# A user gets the same address again where possible.
predictable-ips = true

# Others can't be on this subnet, so there is nothing to ping before an address is given.
ping-leases = false

# IPv6 is not set here: ocgate adds ipv6-network, the route ::/0 and resolvers where it works (see
# ipv6_nat and ipv6_sink in ocgate.toml).

# Everything goes into the tunnel. Only some networks instead (split tunnel):
#route = 192.168.10.0/255.255.255.0
# Everything but some:
#no-route = 192.168.0.0/255.255.0.0
route = default

# Clients ask only the resolvers below, through the tunnel: no look-up by their own network.
tunnel-all-dns = true

# Two public resolvers of different operators (Cloudflare and Quad9), so that one may fail. Choose
# others as you like, but public ones: an address of this host or of its local network would be
# asked outside of the tunnel's guard (`ocgate check` warns).
dns = 1.1.1.1
dns = 9.9.9.9

# true would tell AnyConnect to send a family that the tunnel lacks outside of it: a leak.
client-bypass-protocol = false
"""

_OCGATE_TOML = """\
# ocgate.toml, written once by `ocgate init`. It is yours: ocgate never edits it.
# The same settings can be given as environment variables (`ipv6_nat` is IPV6_NAT), which win.
# All of them, with defaults and ranges: `ocgate run --help`.

# By what the clients' packets leave this server.
#   "direct"     by this host, held by all three layers of the guard (nftables, policy routing,
#                blackhole routes); each of the first two is enough for what clients send
#   "172.28.0.3" through an upstream VPN on an attached network, or by its name, and by nothing else
#   "block"      nobody gets out
# A gateway that VPN_GATEWAY named at the first start stands here, so that without the variable
# clients do not leave by this host unnoticed. Without any value they leave by this host with two
# layers only: there is no policy routing.
vpn_gateway = "{gateway}"
# The same for IPv6. Unset: as ipv6_nat says while vpn_gateway is "direct", else rejected.
{six}vpn_gateway6 = "{gateway6}"

# "shared": others forward through this machine as well (docker, another VPN), and are left alone.
# "exclusive": nothing but clients is forwarded, whatever source it claims. Unset: exclusive in a
# network namespace of its own (a container), shared on a machine.
{shared}ocgate_forwarding = "shared"

# IPv6 for clients by NAT66. "auto": only while a probe shows that this host reaches the IPv6
# internet; it is probed again while running. 0: never. 1: always.
{nat}ipv6_nat = "auto"

# Where clients get no working IPv6: give them an address and the route all the same and reject
# what they send at once. Without this a client that has IPv6 of its own would use it outside of
# the tunnel, unseen.
{sink}ipv6_sink = true

# Clients' IPv6 subnet. Addresses of the kind fd00::/8 are private, as 10.0.0.0/8 is.
#ipv6_subnet = "fda9:4efe:7e3b:3ea::/64"

# The interface to the internet. Unset: that of the default route, followed when it moves.
#wan_if = "eth0"

# Lower it where large downloads hang (a link with a small MTU that swallows ICMP).
#mss = 1360
"""
