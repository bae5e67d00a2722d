"""Captures of a fault as pcap files, for whoever wants to see a leak with their own eyes."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

from ocgate.prove.ring import Ring, Sight, sights

_LINKTYPE_ETHERNET = 1
_NANOSECONDS = 0xA1B23C4D


def save(directory: Path, name: str, drained: Mapping[Ring, list[bytes]]) -> None:
    """One file per capture: DIRECTORY/NAME-ROLE-WAY.pcap, cut at ring.SNAP_BYTES."""
    directory.mkdir(parents=True, exist_ok=True)
    plain = re.sub(r"[^\w.+-]+", "_", name)
    for ring, blocks in drained.items():
        head = struct.pack("=IHHiIII", _NANOSECONDS, 2, 4, 0, 0, 65535, _LINKTYPE_ETHERNET)
        parts = [head, *(_record(sight) for block in blocks for sight in sights(block))]
        path = directory / f"{plain}-{ring.role}-{ring.way.name.lower()}.pcap"
        with path.open("ab" if path.exists() else "wb") as file:
            file.write(b"".join(parts[1:] if file.tell() else parts))


def _record(sight: Sight) -> bytes:
    seconds, rest = divmod(sight.at, 1)
    frame = sight.mac + bytes(6) + struct.pack("!H", sight.ethertype) + sight.packet
    return struct.pack("=IIII", int(seconds), int(rest * 1e9), len(frame), len(frame)) + frame
