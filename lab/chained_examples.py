"""The chained examples, started by their READMEs' steps with the lab's provider or far node.

Tests and `bench/run examples` do to them what `chained` offers.
"""

from __future__ import annotations

from collections.abc import Mapping

from lab.addresses import PROVIDER
from lab.chained import Chained, chained
from lab.compose import Project
from lab.docker_host import DockerHosts
from lab.example import PASSWORD, login, place, wait_serving

VPN_USER, VPN_PASSWORD = "your-vpn-user", "the provider's own"  # the first as in compose.yaml
BETWEEN = "the password of node A at node B"
FAR_NAME = "b.example.org"


def one_upstream(site: DockerHosts, changed: Mapping[str, str] | None = None) -> Chained:
    """examples/one-upstream: clients are seen as the provider. changed: text of compose.yaml ->
    what stands there instead, for what an engine would do differently."""
    project = place(site, "one-upstream", _secrets(site))
    file = project.directory / "compose.yaml"
    for old, new in (changed or {}).items():
        assert old in file.read_text(), old
        file.write_text(file.read_text().replace(old, new))
    return chained(site, project, PROVIDER)


def by_name(site: DockerHosts) -> Chained:
    """examples/by-name: the same; the exit's service is called `netherlands`."""
    project = place(site, "by-name", _secrets(site))
    return chained(site, project, PROVIDER, exit_service="netherlands")


def cascade(site: DockerHosts) -> tuple[Project, Chained]:
    """examples/cascade on two docker hosts: node B's project, and node A's, whose clients are seen
    as node B's host."""
    near, far = site.hosts
    site.dns.table[FAR_NAME] = (far.address,)
    there = place(site, "cascade/far", {"node_a": BETWEEN}, host=far)
    there.up()
    wait_serving(there, "ocgate")
    here = place(site, "cascade/near", {"password": PASSWORD, "node_b": BETWEEN}, host=near)
    pin = login(site, there, "ocgate").pin
    (here.directory / ".env").write_text(f"NODE_B_PIN={pin}\n")
    return there, chained(site, here, far.address)


def _secrets(site: DockerHosts) -> dict[str, str]:
    provider = site.run_provider({VPN_USER: VPN_PASSWORD})
    return {
        "password": PASSWORD,
        "vpn_password": VPN_PASSWORD,
        "provider.ovpn": provider.config(),
    }
