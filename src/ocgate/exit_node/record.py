"""The machine as it is, in the run dir: what a control that is restarted has to know.

A tunnel goes on while control is away; adopting it takes its endpoint, what it carries, and which
process it is. Moments are of CLOCK_MONOTONIC, which goes on, too; `ocgate exit` removes the record
of a former run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from ocgate.exit_node.client import Running
from ocgate.exit_node.state_machine import Machine, Phase
from ocgate.names import EXIT_RECORD
from ocgate.own_files import write
from ocgate.tunnel.model import Carried, Endpoint, Refusal, Remote

# Fields of Machine that JSON holds as they are.
_PLAIN = (
    *("rotate", "index", "since", "until", "attempts", "failures", "why"),
    *("answered", "unanswered"),
)


@dataclass(frozen=True)
class Record:
    """running: the client of this machine, None where it has none. device: index of the one that
    it was started on; one of the same name that was made later is none of its."""

    machine: Machine
    running: Running | None = None
    device: int | None = None


def write_record(run_dir: Path, record: Record) -> None:
    """Keep it; 0600. Raises OSError."""
    write(run_dir / EXIT_RECORD, json.dumps(_as_json(record)).encode())


def read_record(run_dir: Path) -> Record | None:
    """What was kept; None where nothing (usable) is."""
    try:
        return _from_json(json.loads((run_dir / EXIT_RECORD).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def forget_record(run_dir: Path) -> None:
    """Nothing of a former run is adopted."""
    (run_dir / EXIT_RECORD).unlink(missing_ok=True)


def _as_json(record: Record) -> dict[str, Any]:
    machine, running = record.machine, record.running
    endpoint, carried = machine.endpoint, machine.carried
    kept: dict[str, Any] = {name: getattr(machine, name) for name in _PLAIN}
    kept["phase"] = machine.phase.value
    kept["remotes"] = [[r.host, r.port, r.protocols, r.label, r.listed] for r in machine.remotes]
    kept["endpoint"] = endpoint and [str(endpoint.address), endpoint.port, endpoint.protocols]
    kept["carried"] = carried and {
        "addresses": [str(address) for address in carried.addresses],
        "mtu": carried.mtu,
        "resolvers": [str(address) for address in carried.resolvers],
        "refused": [[each.what, each.why, each.loses] for each in carried.refused],
    }
    client = running and [running.pid, running.started]
    return {"machine": kept, "running": client, "device": record.device}


def _from_json(kept: dict[str, Any]) -> Record:
    held, running = kept["machine"], kept["running"]
    endpoint, carried = held["endpoint"], held["carried"]
    machine = Machine(
        **{name: held[name] for name in _PLAIN},
        phase=Phase(held["phase"]),
        remotes=tuple(Remote(h, p, tuple(x), *rest) for h, p, x, *rest in held["remotes"]),
        endpoint=endpoint and Endpoint(ip_address(endpoint[0]), endpoint[1], tuple(endpoint[2])),
        carried=carried
        and Carried(
            tuple(ip_interface(address) for address in carried["addresses"]),
            carried["mtu"],
            tuple(ip_address(address) for address in carried["resolvers"]),
            tuple(Refusal(*each) for each in carried.get("refused", ())),  # none before the gate
        ),
    )
    return Record(machine, Running(*running) if running else None, kept["device"])


assert {*_PLAIN, "phase", "remotes", "endpoint", "carried"} == {f.name for f in fields(Machine)}
