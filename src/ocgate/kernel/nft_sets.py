"""Which sets this machine's libnftables can read: it dies of those that it can't, and we with it.

From 1.1.2 on nft notes in a set what expression its keys are, and for a plain `type ipv4_addr` that
is one that libnftables 1.0.6 (Debian 12) has no reader for: it follows a null pointer. A container
on the host's network with Debian 13's nft is enough. Nearly every command that is no listing of one
table reads the sets of all tables first, an `add element` of our own map, too. So before a command
runs in process, a child asks the library for all sets, where any has notes that are new to us: what
kills it kills nobody else. Only the room `kernel` imports this.
"""

from __future__ import annotations

import errno
import re
import struct
import subprocess
import sys
from collections.abc import Collection, Mapping

from ocgate.kernel import nftgen
from ocgate.kernel.netlink import Netlink, NetlinkError, as_text, attributes

# linux/netfilter/nf_tables.h: subsystem in the high byte of the message type; attributes of a set.
_GETSET = 10 << 8 | 10
_TABLE, _USERDATA = 1, 13
_NFPROTO_INET = 1
_HEADER = struct.Struct("=BBH")  # family, version, res_id

# 20 ms, and what thousands of sets take; one that hangs has told nothing.
_TIME_LIMIT_SECONDS = 10.0

# What `nft --terse WORDS` does, by the very library that this process calls.
_CHILD = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.nft_ctx_new.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.nft_ctx_new(0))
library.nft_ctx_output_set_flags(context, 1 << 11)
library.nft_run_cmd_from_buffer(context, sys.argv[2].encode())
"""

_LISTING = re.compile(r"list (?:table|chain|set|map) inet ([\w/.]+)")
_NAMED = re.compile(r"\binet ([\w/.]+)")
_MADE = re.compile(r"^\s*(?:add |create |delete )?table inet ([\w/.]+)", re.M)


class Readable:
    """Whether the library may be asked for all sets of the namespace; remembers what it has seen.

    The child is asked in the namespace of the calling thread, which has to be the netlink socket's.
    What somebody commits between the answer and the command is not known: 0.1 ms.
    """

    def __init__(self, netlink: Netlink, library: str) -> None:
        self._netlink, self._library = netlink, library
        self._generation = -1
        self._known: set[bytes] = set()  # notes that a child has read and lived
        self._deadly: set[bytes] = set()  # of which at least one has killed a child
        self._verdict = True

    def __call__(self) -> bool:
        """A child that can't be started counts as dead. Where the kernel does not answer us (no
        capability, no nf_tables), the library gets no sets either, and has the words for it."""
        try:
            generation = nftgen.generation(self._netlink)
            if generation != self._generation:
                self._verdict = self._ask(set().union(*self._notes().values()))
                self._generation = generation
        except NetlinkError as error:
            return error.errno != errno.EINTR  # a dump that changes overtook, again and again
        return self._verdict

    def committed(self, generation: int) -> None:
        """The library's own commit has led to this generation: it reads what it writes. What it
        could not read may be gone by it."""
        if self._verdict and generation == self._generation + 1:
            self._generation = generation

    def deadly(self, tables: Collection[str]) -> list[str]:
        """Those of these tables of the family inet that can't be listed. Raises NetlinkError."""
        notes = self._notes()
        return [name for name in tables if not self._lives(notes, name)]

    def _lives(self, notes: Mapping[tuple[int, str], set[bytes]], table: str) -> bool:
        unknown = notes.get((_NFPROTO_INET, table), set()) - self._known
        return not unknown or self._child(f"list table inet {table}")

    def _ask(self, notes: set[bytes]) -> bool:
        unknown = notes - self._known
        if unknown and unknown == self._deadly:
            return False
        if unknown and not self._child("list sets"):
            self._deadly = unknown
            return False
        self._known |= unknown
        return True

    def _notes(self) -> dict[tuple[int, str], set[bytes]]:
        """(family, table) -> the notes of its sets."""
        found: dict[tuple[int, str], set[bytes]] = {}
        for message in self._netlink.dump(_GETSET, _HEADER.pack(0, 0, 0)):
            held = attributes(message.payload, _HEADER.size)
            if _USERDATA in held:
                key = message.payload[0], as_text(held[_TABLE])
                found.setdefault(key, set()).add(bytes(held[_USERDATA]))
        return found

    def _child(self, words: str) -> bool:
        command = [sys.executable, "-I", "-S", "-c", _CHILD, self._library, words]
        quiet = subprocess.DEVNULL
        try:
            done = subprocess.run(
                command, stdin=quiet, stdout=quiet, stderr=quiet,
                timeout=_TIME_LIMIT_SECONDS, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode >= 0


def narrowed(text: str) -> tuple[str, list[str]]:
    """The same commands for a libnftables that must not see other tables' sets, and which table's
    sets it then reads; none where there is no such way.

    Of all sets it reads only those of one table where the last command lists that table (the filter
    in src/cache.c of 1.0.6, the release that dies; tests/kernel/test_other_nft.py). Best one that
    the text expects to be there: what it makes anew is known without being read. What it expects of
    a second one is refused ("No such file or directory"), and nothing is committed.
    """
    if text.startswith("list "):
        return text, _LISTING.findall(text)
    named, made = _NAMED.findall(text), set(_MADE.findall(text))
    there = [name for name in named if name not in made]
    tables = [*there, *reversed(named)][:1]
    return "".join((text.rstrip(), "\n", *(f"list table inet {one}\n" for one in tables))), tables
