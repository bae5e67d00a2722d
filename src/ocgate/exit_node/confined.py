"""`python -m ocgate.exit_node.confined [--keep-mtu] COMMAND…`: becomes the command, behind a
seccomp filter (seccomp(2)) for it and all that it executes.

It makes and enters no namespace. In a user namespace of its own a process holds every capability,
whatever bounds it outside: nothing of ours is within its reach there, but much of the kernel that
is otherwise root's. Docker's own filter says the same; podman's does not.

--keep-mtu: it is told that it has set its device's MTU, and has not. wireguard-go sets it once,
when it starts, and ends where it may not. That one call is all that it would need CAP_NET_ADMIN
for, with which it could also take the kill switch away: for nothing, since the MTU is control's.

Run by the tunnel's service; imports nothing of ocgate.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_SIOCSIFMTU = 0x8922  # linux/sockios.h

# linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. Time namespaces
# come by unshare and clone3 alone.
_CLONE_NEW = 0x7E02_0000


@dataclass(frozen=True)
class Machine:
    """audit: AUDIT_ARCH_* (linux/audit.h). The rest: numbers of system calls (asm/unistd.h)."""

    audit: int
    ioctl: int
    clone: int
    unshare: int
    setns: int
    clone3: int = 435  # the same everywhere


# By uname(2)'s machine: those of Debian that are little-endian.
MACHINES: Mapping[str, Machine] = {
    "x86_64": Machine(0xC000_003E, ioctl=16, clone=56, unshare=272, setns=308),
    "aarch64": Machine(0xC000_00B7, ioctl=29, clone=220, unshare=97, setns=268),
    "riscv64": Machine(0xC000_00F3, ioctl=29, clone=220, unshare=97, setns=268),
    "ppc64le": Machine(0xC000_0015, ioctl=54, clone=120, unshare=282, setns=350),
    "armv7l": Machine(0x4000_0028, ioctl=54, clone=120, unshare=337, setns=375),
    "i686": Machine(0x4000_0003, ioctl=54, clone=120, unshare=310, setns=346),
}
_ON_32_BIT = {"x86_64": "i686", "aarch64": "armv7l", "armv8l": "armv7l"}

_X32 = 0x4000_0000  # a bit in numbers of x86_64's second set of calls (asm/unistd.h)

# linux/filter.h, linux/seccomp.h: struct sock_filter, and offsets in struct seccomp_data.
INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _RETURN = 0x20, 0x06  # ld [k]; ret k
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45  # jeq, jge, jset: k, jt, jf
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO | errno

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38  # linux/prctl.h


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def program(machine: Machine, *, keep_mtu: bool) -> bytes:
    """The filter's instructions. Calls of another set of numbers than the machine's are refused."""
    return b"".join(INSTRUCTION.pack(*step) for step in _steps(machine, keep_mtu=keep_mtu))


def _steps(machine: Machine, *, keep_mtu: bool) -> Iterator[tuple[int, int, int, int]]:
    """A step that decides something is followed by what it decides: no jump is longer than one."""
    yield _LOAD, 0, 0, _ARCHITECTURE
    yield _EQUAL, 1, 0, machine.audit
    yield _answer(errno.EPERM)
    yield _LOAD, 0, 0, _NUMBER
    if machine.audit == MACHINES["x86_64"].audit:
        yield _AT_LEAST, 0, 1, _X32
        yield _answer(errno.EPERM)
    for number in (machine.unshare, machine.setns):
        yield _EQUAL, 0, 1, number
        yield _answer(errno.EPERM)
    yield _EQUAL, 0, 1, machine.clone3  # its flags lie in memory, where no filter sees them
    yield _answer(errno.ENOSYS)  # libraries take clone then
    yield _EQUAL, 0, 4, machine.clone
    yield _LOAD, 0, 0, _FIRST_ARGUMENT
    yield _ANY_BIT, 0, 1, _CLONE_NEW
    yield _answer(errno.EPERM)
    yield _RETURN, 0, 0, _ALLOW
    if keep_mtu:
        yield _EQUAL, 0, 3, machine.ioctl
        yield _LOAD, 0, 0, _SECOND_ARGUMENT
        yield _EQUAL, 0, 1, _SIOCSIFMTU
        yield _answer(0)
    yield _RETURN, 0, 0, _ALLOW


def _answer(number: int) -> tuple[int, int, int, int]:
    """The call is not made; 0: the caller is told that it was."""
    return _RETURN, 0, 0, _ERRNO | number


def this_machine() -> Machine | None:
    """None for one that is not in the table."""
    name = os.uname().machine
    if struct.calcsize("P") == struct.calcsize("=I"):
        name = _ON_32_BIT.get(name, name)
    return MACHINES.get(name)


def _filter_this_process(instructions: bytes) -> None:
    """For good; raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    loaded = _Program(len(instructions) // INSTRUCTION.size, instructions)
    if (
        library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        or library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0)
    ):  # fmt: skip
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _unfiltered(*, keep_mtu: bool) -> str:
    """Puts the filter on; why it can't be."""
    machine = this_machine()
    if machine is None:
        return f"none is known for {os.uname().machine}"
    try:
        _filter_this_process(program(machine, keep_mtu=keep_mtu))
    except OSError as error:
        return f"this kernel takes none: {error.strerror}"
    return ""


def main(arguments: Sequence[str]) -> str:
    """Does not return but to say why it can't. Without a filter only what needs it does not run."""
    keep_mtu = arguments[0] == "--keep-mtu"
    command = [*arguments[1:]] if keep_mtu else [*arguments]
    if why := _unfiltered(keep_mtu=keep_mtu):
        if keep_mtu:
            return f"wireguard-go needs a seccomp filter ({why}): use a kernel with WireGuard"
        print(f"no seccomp filter for the tunnel's client: {why}", file=sys.stderr, flush=True)
    os.environ.pop("LC_CTYPE", None)  # which python itself has set (PEP 538)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        return f"{command[0]}: {error.strerror}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
