"""Names and numbers of what ocgate puts into the kernel and the run dir, each with its reason.

Any room may import this; it imports nothing. Changing a value here changes what operators type
(`nft list table inet ocserv`) and what a start sweeps after a crash: sweep the old value, too.
"""

from __future__ import annotations

# nftables. The names are the reference image's: people type them to verify.
NFT_FAMILY = "inet"
NFT_TABLE = "ocserv"  # NAT and forwarding
NFT_TABLE_GATEWAY = "ocserv_gw"  # guard of gateway mode; swept even where it isn't used
NFT_TABLE_LIMITS = "ocserv_limits"  # flows of each session
NFT_TABLE_CLOSING = "ocserv_closing"  # while a stop waits for late packets; seconds
NFT_TABLE_EXIT = "ocgate_exit"  # kill switch of the exit role, which has no other table

# Routing. Everything of ours carries this protocol number, so that a sweep finds what a crashed
# or differently configured run left. 143 is free in iproute2's rt_protos.
ROUTE_PROTOCOL = 143

# The client subnet's blackhole must lose against every real route of the same prefix.
BLACKHOLE_METRIC = 4294967295

# Gateway mode's device and table for clients' packets without a mark, which means that our ruleset
# is not there: they are routed into a tun that nobody reads. A blackhole would be simpler, but the
# kernel's reverse path filter (rp_filter 2 is systemd's default, and containers inherit it) asks
# the same rules about each answer, without a mark, and wants to be told of a device.
NULL_DEVICE = "ocgate-null"
NULL_TABLE = 143  # as ROUTE_PROTOCOL; 252 and below are free for anybody

# The exit role's tunnel. The device is made before its client starts and outlives it; the names are
# what people look for after `ip addr`, OpenVPN's and wg-quick's own first ones.
TUNNEL_DEVICE = "tun0"
WIREGUARD_DEVICE = "wg0"
TUNNEL_TABLE = 101  # default by the tunnel, or nothing; beside the server role's 100
TUNNEL_RULE_PRIO = 1000  # first of the rules; before main (32766) and anything docker adds
# Whom the tunnel's client runs as, without a passwd entry, and whom alone the kill switch lets talk
# to the VPN server. A number that nobody is likely to have: far from people (1000 and up) and from
# the ranges of the system and of container engines (below 1000, above 60000).
TUNNEL_UID = 23143

# Interface group (`ip link show group 143`) of the tunnels of admitted sessions: what is for a
# client goes by a device of it or nowhere. 0 is every device's that nobody put into another.
TUNNEL_GROUP = 143
OTHERS_GROUP = 0

# Packet marks live in this mask only; the low byte and the sign bit stay free for others
# (kube-proxy 0x4000/0x8000, tailscale 0xff0000, the reference's VPN_BYPASS_MARK from 0xbc).
MARK_MASK = 0x3F00_0000
MARK_DIRECT = 0x0100_0000  # exit `direct`: by WAN_IF
# How a probe asks its target: a TCP connection, a DNS question, an ICMP echo request.
PROBE_TCP, PROBE_DNS, PROBE_ICMP = "tcp", "dns", "icmp"

MARK_GATEWAY = 0x0200_0000  # the default gateway, both families; named ones take the next numbers

# The lock of a network namespace: an abstract Unix socket's name, and the descriptors under which
# it is handed on over exec. One digit, because that is what sh can close.
LOCK_NAME = "ocgate"
LOCK_FILES = (8, 9)

# Device pattern of client tunnels as ocserv names them (`device = vpns`).
DEFAULT_DEVICE = "vpns"

# Files in OCGATE_RUN_DIR (default /run/ocgate). Scripts rely on the first four.
CONTROL_PID = "control.pid"
CONTROL_SOCKET = "control.sock"
OCSERV_PID = "ocserv.pid"
EFFECTIVE_CONF = "ocserv.conf"
OCSERV_SOCKET = "ocserv.sock"  # main <-> sec-mod; ocserv appends its own suffixes
OCCTL_SOCKET = "occtl.sock"
HOOK_CONNECT = "hooks/connect"
HOOK_DISCONNECT = "hooks/disconnect"
HOOK_TUNNEL = "hooks/tunnel"  # run by the exit role's tunnel client
HOOK_ENDED = "hooks/ended"  # run when that client has ended
HOOK_CHAIN = "hooks/chain"  # operator's own scripts by vhost, read by our hooks
SERVICES = "services"  # s6 scan directory
TUNNEL = "tunnel"  # the exit role's client: its service, and the directory of its files
TUNNEL_COMMAND = "tunnel.command"  # how control wants it started: shell, quoted
TUNNEL_SAID = "tunnel.said"  # the last it said
TUNNEL_STDIN = "tunnel.stdin"  # what it reads: a password
EXIT_RECORD = "exit.json"  # what is in force, for a control that is restarted
EXIT_SNAPSHOT = "exit-settings.json"  # what the operator wrote, as it was read; 0600
SESSIONS = "sessions"  # one file per admitted session, for re-adoption
KEYS = "keys"  # certificates and keys as ocserv reads them, 0700
KEYS_NEW = "keys.new"  # ... and before `ocserv -t` has seen them
HISTORY = "sessions.history"  # completed sessions, where SESSION_HISTORY_FILE names no file
SYSCTLS_BEFORE = "sysctl.before"  # what the sysctls were before us, restored at a clean stop
