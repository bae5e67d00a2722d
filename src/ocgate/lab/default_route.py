"""netavark as podman calls it, and then one default route as docker makes it.

Run as ``python -I -S default_route.py NETAVARK ARGUMENT...``. podman gives a container on several
networks a default route on each, equally good, and which one wins is chance. A docker engine makes
one: on the network whose name comes first in the alphabet (or by `gw_priority`, Docker 28), never
on an internal one; see "Packet routing" in docs.docker.com/engine/network. After netavark's `setup`
the others are deleted, before the container's first process runs. Imports only what starts quickly.
"""

import json
import subprocess
import sys


def superfluous(request: dict) -> list[str]:  # type: ignore[type-arg]
    """Devices whose default route docker would not have made, from podman's request to netavark."""
    outward = [
        name
        for name in sorted(request["networks"])
        if not request["network_info"][name]["internal"]
    ]
    return [request["networks"][name]["interface_name"] for name in outward[1:]]


def main(netavark: str, arguments: list[str]) -> int:
    """Exit status of netavark; its output is passed on as it is."""
    request = sys.stdin.buffer.read()
    done = subprocess.run([netavark, *arguments], input=request, check=False)
    if done.returncode == 0 and "setup" in arguments:
        enter = ["nsenter", f"--net={arguments[-1]}", "ip", "route", "delete", "default", "dev"]
        for device in superfluous(json.loads(request)):
            subprocess.run([*enter, device], check=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
