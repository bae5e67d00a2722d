"""netavark as podman calls it, with a container on several networks connected as docker does.

Run as ``python -I -S as_docker.py NETAVARK ARGUMENT... COMMAND NAMESPACE`` with podman's request on
stdin. podman gives such a container a default route on each network, equally good, and publishes
its ports at its address on each; which ones win is chance. A docker engine does both on one:
the network whose name comes first in the alphabet (or by `gw_priority`, Docker 28), and no internal
one if it can be helped; see "Connecting to multiple networks" in docs.docker.com/engine/network.
A bridge takes the lowest MAC of its ports until it is given one, so it changes with containers, and
those that stay send to the old one for half a minute; docker gives it one.

Where the kernel shows bridged packets to iptables, podman's rules would also translate what one
container sends by another; docker's leave alone what stays on its bridge, so it is not shown.
Imports only what starts quickly.
"""

# ruff: noqa: PTH123
import json
import subprocess
import sys

Request = dict[str, dict]  # type: ignore[type-arg]


def ordered(request: Request) -> list[str]:
    """Names of the container's networks, that of the default route first."""
    info = request["network_info"]
    return sorted(request["networks"], key=lambda name: (info[name].get("internal", False), name))


def part(request: Request, name: str, *, published: bool) -> Request:
    """The request for one of the networks, with the container's published ports or without."""
    one = {key: {name: request[key][name]} for key in ("networks", "network_info")}
    return {**request, **one, **({} if published else {"port_mappings": None})}  # type: ignore[dict-item]


def hide_bridged() -> None:
    """Bridged packets are none of iptables' in this host; the files are there with br_netfilter."""
    for family in ("iptables", "ip6tables"):
        try:
            with open(f"/proc/sys/net/bridge/bridge-nf-call-{family}", "w") as file:
                file.write("0")
        except FileNotFoundError:
            pass


def keep_mac(bridge: str) -> None:
    """From now on the bridge's MAC is the one it has."""
    shown = subprocess.run(["ip", "-j", "link", "show", bridge], stdout=subprocess.PIPE, check=True)
    mac = json.loads(shown.stdout)[0]["address"]
    subprocess.run(["ip", "link", "set", bridge, "address", mac], check=True)


def main(command: list[str]) -> int:
    """The first exit status of netavark that is not 0; its answers are merged into one."""
    text = sys.stdin.read()
    if command[-2] not in ("setup", "teardown"):
        return subprocess.run(command, input=text, text=True, check=False).returncode
    hide_bridged()
    request, answer = json.loads(text), {}
    first, *others = ordered(request)
    for name in (first, *others):
        asked = json.dumps(part(request, name, published=name == first))
        done = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            print(done.stdout)  # netavark's own words, as JSON
            return done.returncode
        answer.update(json.loads(done.stdout or "{}"))
    if command[-2] == "setup":
        enter = ["nsenter", f"--net={command[-1]}", "ip", "route", "delete", "default", "dev"]
        for info in request["network_info"].values():
            keep_mac(info["network_interface"])
        for name in others:
            if not request["network_info"][name].get("internal", False):
                device = request["networks"][name]["interface_name"]
                subprocess.run([*enter, device], check=True)
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
