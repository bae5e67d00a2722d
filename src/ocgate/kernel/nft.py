"""The door to nftables: libnftables called in process, one text in, one atomic transaction out.

In process because a spawned `nft` costs 4 ms and this costs 0.13 ms; by ctypes because Debian's
python3-nftables belongs to the system's Python and adds nothing but this file. Edges of the room
`kernel` and the wiring may import it.

What was measured on libnftables 1.0.6 and shaped this: the library compares its cache with the
kernel's generation before each command, so a context may be kept although others change the
ruleset; RSS does not grow over 10,000 transactions, 2,000 refused ones or 500 listings, so the
context is never renewed.

Other programs' tables are not read in process: names, chains and counters come by netlink, and what
libnftables itself would read of others' sets is shown to a child first (`nft_sets`).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ocgate.errors import KernelRefused, MissingRequirement
from ocgate.kernel import (
    features,
    netlink,
    nft_chains,
    nft_counters,
    nft_sets,
    nft_tables,
    nftgen,
)

LIBRARY = "libnftables.so.1"

# NFT_CTX_OUTPUT_* of nftables/libnftables.h
_OUTPUT_STATELESS = 1 << 2  # counters and quotas without their state
_OUTPUT_JSON = 1 << 4
_OUTPUT_TERSE = 1 << 11  # sets without their elements

# Commits seen by `is_own`: some thousand, because a watcher asks within milliseconds of a commit.
_REMEMBERED = 4096

# A transaction that met one of these was not committed, so the same text can be sent again:
# EINTR      the library's dump of the ruleset was overtaken by another writer;
# ERESTART   the generation changed between that dump and our commit.
# Not among them: EBUSY (a set or chain is still in use: our text is wrong and will stay so), and
# ENOBUFS (the reply was lost, so whether it was committed is unknown: the caller must read back).
_AGAIN = frozenset({errno.EINTR, errno.ERESTART})
_ATTEMPTS = 5  # each loses only to a writer that commits in those 0.1 ms: five in a row is a fight

# How the kernel says that a chain type or expression is not built in (or a name is not there).
_ABSENT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT})

_ERRNO_BY_WORDS = {os.strerror(number): number for number in errno.errorcode}
_ERRNO = re.compile(r"(?:Could not process rule|cache initialization failed): (.+)$", re.M)
_CAP_NET_ADMIN = 12  # capability.h


class Nft:
    """libnftables in the network namespace of the thread that creates it; usable from any thread.

    Calls block (10,000 elements take 60 to 170 ms) with the GIL released: from asyncio, run
    anything big in a worker thread. Raises MissingRequirement at creation when the library or the
    kernel's netfilter netlink is absent.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # First, because libnftables calls exit(1) where this socket can't be had.
        self._netlink = netlink.Netlink(netlink.NETFILTER)
        self._library = _load()
        # Input goes through an anonymous file: from a buffer, libnftables 1.0.6 reports every
        # error against the first line of the text. Costs 0.03 ms.
        self._input = os.memfd_create("ocgate.nft", os.MFD_CLOEXEC)
        self._path = f"/proc/self/fd/{self._input}"
        self._context = self._library.nft_ctx_new(0)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)
        self._dry = False
        self._readable = nft_sets.Readable(self._netlink, LIBRARY)
        self._own: deque[int] = deque(maxlen=_REMEMBERED)

    def run(self, text: str) -> None:
        """Commit `text` (nft's language, any number of lines) as one transaction, all or nothing.

        Raises KernelRefused with the text and the words of libnftables and the kernel (places are
        `input:LINE:COLUMNS`), MissingRequirement when CAP_NET_ADMIN or a kernel feature is absent.
        """
        with self._lock:
            self._repeat(text, flags=0)
            self._committed()

    def remove(self, tables: Sequence[str]) -> None:
        """Delete those of these tables of the family inet that are there, in one transaction; not
        by libnftables, which may be unable to read them. Raises KernelRefused."""
        with self._lock:
            try:
                nft_tables.remove(self._netlink, tables)
            except netlink.NetlinkError as refused:
                raise _by_netlink(f"delete table inet {' '.join(tables)}", refused) from refused
            self._committed()

    def check(self, text: str) -> None:
        """Let the kernel judge `text` without committing it (`nft -c`); raises as `run` does."""
        with self._lock, self._dry_run():
            self._repeat(text, flags=0)

    def list_text(self, command: str, *, stateless: bool = False, terse: bool = False) -> str:
        """The answer of a `list` command as nft prints it; `stateless` without counter values,
        `terse` without elements. Raises KernelRefused, also where the answer would kill us."""
        flags = (_OUTPUT_STATELESS if stateless else 0) | (_OUTPUT_TERSE if terse else 0)
        with self._lock:
            return self._repeat(command, flags=flags)

    def list_json(self, command: str, *, terse: bool = False) -> dict[str, Any]:
        """The answer of a `list` command in libnftables-json(5), else as `list_text`."""
        flags = _OUTPUT_JSON | (_OUTPUT_TERSE if terse else 0)
        with self._lock:
            answer = self._repeat(command, flags=flags)
        return json.loads(answer) if answer.strip() else {"nftables": []}

    def exists(self, kind: str, name: str) -> bool:
        """Whether `list KIND NAME` finds something: exists("table", "inet ocserv")."""
        with self._lock:
            failed, _, _ = self._once(f"list {kind} {name}", flags=_OUTPUT_TERSE)
        return not failed

    def generation(self) -> int:
        """Of the ruleset: each commit of anybody in this network namespace raises it."""
        with self._lock:
            return nftgen.generation(self._netlink)

    def tables(self) -> list[str]:
        """Names of all tables of the family inet; raises KernelRefused."""
        try:
            with self._lock:
                return nft_tables.inet(self._netlink)
        except netlink.NetlinkError as refused:
            raise _by_netlink("list tables inet", refused) from refused

    def chains(self) -> list[nft_chains.BaseChain]:
        """Base chains of everybody, families ip, ip6 and inet; raises KernelRefused."""
        try:
            with self._lock:
                return list(nft_chains.of_ip(self._netlink))
        except netlink.NetlinkError as refused:
            raise _by_netlink("list chains", refused) from refused

    def counters(self, table: str) -> Mapping[str, tuple[int, int]]:
        """Name -> (packets, bytes) of a table of the family inet; empty where there is none."""
        with self._lock:
            return nft_counters.read(self._netlink, table)

    def unreadable(self, tables: Sequence[str]) -> list[str]:
        """Those of these tables of the family inet that libnftables would die of: another release
        of nft made their sets. They can be removed, and not be listed or changed."""
        with self._lock:
            return [] if self._readable() else self._readable.deadly(tables)

    def is_own(self, generation: int) -> bool:
        """Whether a commit with this generation (of a NEWGEN event) was made through this object.

        By generation, because the event's pid is of the initial pid namespace and means nothing
        in a container. Another's commit within the 0.02 ms after ours counts as ours; a state that
        it spoilt is found by the read-back all the same.
        """
        return generation in self._own

    def close(self) -> None:
        """Free the context; the object is of no use afterwards. A second call does nothing."""
        with self._lock:
            if self._context:
                self._library.nft_ctx_free(self._context)
                self._context = None
                os.close(self._input)
                self._netlink.close()

    def _committed(self) -> None:
        generation = nftgen.generation(self._netlink)
        self._own.append(generation)
        self._readable.committed(generation)

    def _repeat(self, text: str, *, flags: int) -> str:
        for attempt in range(1, _ATTEMPTS + 1):
            failed, output, words = self._once(text, flags=flags)
            if not failed:
                return output
            if not _errnos(words) & _AGAIN or attempt == _ATTEMPTS:
                break
        raise _refusal(text, words, self._lacking(text) if _errnos(words) & _ABSENT else None)

    def _lacking(self, text: str) -> features.Feature | None:
        def accepts(lines: str) -> bool:
            return not self._once(lines, flags=0)[0]

        with self._dry_run():
            return features.lacking(text, accepts)

    @contextlib.contextmanager
    def _dry_run(self) -> Iterator[None]:
        """Nothing is committed within; may be nested."""
        before = self._dry
        self._set_dry(dry=True)
        try:
            yield
        finally:
            self._set_dry(dry=before)

    def _set_dry(self, *, dry: bool) -> None:
        self._dry = dry
        self._library.nft_ctx_set_dry_run(self._context, dry)

    def _once(self, text: str, *, flags: int) -> tuple[bool, str, str]:
        """(failed, output, errors) of one call; the lock is held by the caller."""
        if not self._readable():
            given, (text, tables) = text, nft_sets.narrowed(text)
            if not tables or self._readable.deadly(tables):
                return True, "", _UNREADABLE
            flags |= _OUTPUT_TERSE if text != given else 0
        os.ftruncate(self._input, 0)
        _write_all(self._input, text.encode())
        self._library.nft_ctx_output_set_flags(self._context, flags)
        status = self._library.nft_run_cmd_from_filename(self._context, self._path.encode())
        output = self._library.nft_ctx_get_output_buffer(self._context).decode(errors="replace")
        words = self._library.nft_ctx_get_error_buffer(self._context).decode(errors="replace")
        return status != 0, output, words.replace(self._path, "input")


_UNREADABLE = (
    "not asked: this machine's libnftables would die of sets that another release of nft has made"
)


def _by_netlink(request: str, refused: netlink.NetlinkError) -> KernelRefused:
    words = refused.words or str(refused)
    return KernelRefused("nftables refused", request=request, reply=words)


def _refusal(
    text: str, words: str, lacking: features.Feature | None
) -> KernelRefused | MissingRequirement:
    numbers = _errnos(words)
    if lacking is not None:
        return MissingRequirement(
            f"this kernel has no nftables {lacking.name}: {words.strip()}",
            hint=f"load its module or use a kernel with {lacking.option}",
        )
    if errno.EPERM in numbers and not _may_admin():
        return MissingRequirement(
            f"nftables: {words.strip()}", hint="add the capability: docker run --cap-add NET_ADMIN"
        )
    hint = next((text for number, text in _HINTS.items() if number in numbers), "")
    return KernelRefused("nftables refused", request=text, reply=words, hint=hint)


_HINTS = {
    errno.EPERM: "the table is owned by another process (flags owner): stop that one first",
    errno.EMSGSIZE: "the transaction exceeds the socket's send buffer, and this user namespace may"
    " not enlarge it: on the host, sysctl -w net.core.wmem_max=67108864",
    errno.ENOBUFS: "the kernel's answer was lost; whether it was committed must be read back",
    errno.EBUSY: "something named is still referred to by a rule, map or other process",
    errno.EOPNOTSUPP: "this kernel lacks what the marked words ask for",
}


def _errnos(words: str) -> set[int]:
    """The error numbers in libnftables' text; the library itself returns only -1."""
    return {_ERRNO_BY_WORDS[said] for said in _ERRNO.findall(words) if said in _ERRNO_BY_WORDS}


def _may_admin() -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)


def _write_all(descriptor: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)


def _load() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as problem:
        raise MissingRequirement(
            f"nftables: {problem}", hint="install it: apt-get install libnftables1"
        ) from problem
    context, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint
    for name, result, arguments in (
        ("nft_ctx_new", context, [number]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_output_set_flags", None, [context, number]),
        ("nft_ctx_set_dry_run", None, [context, ctypes.c_bool]),
        ("nft_run_cmd_from_filename", ctypes.c_int, [context, text]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
