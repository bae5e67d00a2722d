"""What openconnect runs at connect, reconnect and disconnect, instead of a distribution's script.

Run as ``python -I -S vpnc_script.py WORK_DIR`` by openconnect with its environment (see vpnc-script
in the OpenConnect documentation). It does what Debian's does: tunnel addresses, MTU, a route to the
server past the tunnel, split or default routes; but writes the resolver to WORK_DIR/resolv.conf and
each event to WORK_DIR/events/NNNN-REASON.json. Imports only what starts in milliseconds. `client`
imports this to write WORK_DIR/uplinks, the way to the server past the tunnel, per family.

Default routes get METRIC, better than the uplink's own, which stays: when the tun goes away the
laptop falls back to it, and a laptop that gets no IPv6 from the server goes on using its own.
"""

# pathlib alone would double the start-up time.
# ruff: noqa: PTH104, PTH123, PTH208
import json
import os
import sys

METRIC = 50


def event_name(number: int, reason: str) -> str:
    """File name of one call; sorts in the order of the calls."""
    return f"{number:04d}-{reason}.json"


def commands(env: dict[str, str], uplink4: str, uplink6: str) -> list[str]:
    """`ip -batch` lines for reason=connect or reconnect.

    uplink4, uplink6: what a default route of this host says after "default" (``via A dev eth0``).
    """
    device = env["TUNDEV"]
    server = env["VPNGATEWAY"]
    uplink = uplink6 if ":" in server else uplink4
    lines = [f"link set {device} up mtu {env.get('INTERNAL_IP4_MTU', '1300')}"]
    if uplink:
        lines.append(f"route replace {server} {uplink}")
    if address := env.get("INTERNAL_IP4_ADDRESS"):
        lines.append(f"address replace {address}/32 peer {address} dev {device}")
        lines += _routes(env, "CISCO_SPLIT_INC", device, "0.0.0.0/0")
        lines += _excluded(env, "CISCO_SPLIT_EXC", uplink4)
    if address6 := env.get("INTERNAL_IP6_NETMASK") or env.get("INTERNAL_IP6_ADDRESS"):
        lines.append(f"address replace {address6} dev {device} nodad")
        lines += _routes(env, "CISCO_IPV6_SPLIT_INC", device, "::/0")
        lines += _excluded(env, "CISCO_IPV6_SPLIT_EXC", uplink6)
    return lines


def _prefixes(env: dict[str, str], variable: str) -> list[str]:
    count = int(env.get(variable) or "0")
    return [f"{env[f'{variable}_{i}_ADDR']}/{env[f'{variable}_{i}_MASKLEN']}" for i in range(count)]


def _routes(env: dict[str, str], variable: str, device: str, default: str) -> list[str]:
    """Split routes, and in a split tunnel the resolvers too; without any, the default route."""
    included = _prefixes(env, variable)
    if included:
        v6 = ":" in default
        dns = [a for a in env.get("INTERNAL_IP4_DNS", "").split() if (":" in a) == v6]
        included += [f"{a}/{128 if v6 else 32}" for a in dns]
    return [
        f"route replace {p} dev {device}" + (f" metric {METRIC}" if p == default else "")
        for p in included or [default]
    ]


def _excluded(env: dict[str, str], variable: str, uplink: str) -> list[str]:
    return [f"route replace {prefix} {uplink}" for prefix in _prefixes(env, variable) if uplink]


def write_uplinks(work: str, uplink4: str, uplink6: str) -> None:
    """Tell the script what `commands` wants to know."""
    _write(f"{work}/uplinks", f"{uplink4}\n{uplink6}\n")


def _write(path: str, text: str) -> None:
    with open(path + ".new", "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def main(work: str) -> int:
    """Do what openconnect asks for by its environment, and note it in `work`."""
    env = dict(os.environ)
    reason = env.get("reason", "none")
    status = 0
    if reason in ("connect", "reconnect"):
        with open(f"{work}/uplinks") as file:
            uplink4, uplink6 = file.read().splitlines()
        lines = commands(env, uplink4, uplink6)
        batch = f"{work}/routes"
        _write(batch, "\n".join(lines) + "\n")
        status = os.spawnlp(os.P_WAIT, "ip", "ip", "-batch", batch)
        dns = env.get("INTERNAL_IP4_DNS", "").split()
        _write(f"{work}/resolv.conf", "".join(f"nameserver {a}\n" for a in dns))
    events = f"{work}/events"
    env["script_status"] = str(status)
    number = len(os.listdir(events))
    _write(f"{work}/event", json.dumps(env))
    # Last, and by rename: whoever sees the event can rely on all of the above.
    os.rename(f"{work}/event", f"{events}/{event_name(number, reason)}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
