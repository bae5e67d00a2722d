"""`python -m ocgate.exit_role.keep_mtu COMMAND…`: becomes the command, which is told that it has
set its device's MTU, and has not.

wireguard-go sets it once, when it starts, and ends where it may not. That one call is all that it
would need CAP_NET_ADMIN for, with which it could also take the kill switch away: for nothing, since
the MTU is control's. So a seccomp filter (seccomp(2)) answers the call with success, and the client
holds no capability. Run by the tunnel's service; imports nothing of ocgate.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Mapping, Sequence

_SIOCSIFMTU = 0x8922  # linux/sockios.h

# uname(2)'s machine -> AUDIT_ARCH_* (linux/audit.h) and the number of ioctl (asm/unistd.h); those
# of Debian that have wireguard-go and are little-endian.
_MACHINES: Mapping[str, tuple[int, int]] = {
    "x86_64": (0xC000_003E, 16),
    "aarch64": (0xC000_00B7, 29),
    "riscv64": (0xC000_00F3, 29),
    "ppc64le": (0xC000_0015, 54),
    "armv7l": (0x4000_0028, 54),
    "i686": (0x4000_0003, 54),
}

# linux/filter.h, linux/seccomp.h: struct sock_filter, and offsets in struct seccomp_data.
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # ld [k]; jeq k, jt, jf; ret k
_NUMBER, _ARCHITECTURE, _SECOND_ARGUMENT = 0, 4, 24
_SUCCESS, _ALLOW = 0x0005_0000, 0x7FFF_0000  # SECCOMP_RET_ERRNO with error 0, SECCOMP_RET_ALLOW

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38  # linux/prctl.h


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def program(machine: str) -> bytes:
    """The filter's instructions; raises KeyError for a machine that is not known."""
    architecture, ioctl = _MACHINES[machine]
    steps = (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 0, 5, architecture),
        (_LOAD, 0, 0, _NUMBER),
        (_IF_EQUAL, 0, 3, ioctl),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_IF_EQUAL, 0, 1, _SIOCSIFMTU),
        (_RETURN, 0, 0, _SUCCESS),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(_INSTRUCTION.pack(*step) for step in steps)


def _filter_this_process(instructions: bytes) -> None:
    """For good, and for all that it executes; raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    loaded = _Program(len(instructions) // _INSTRUCTION.size, instructions)
    if (
        library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        or library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0)
    ):  # fmt: skip
        raise OSError(ctypes.get_errno(), "the kernel takes no seccomp filter")


def main(command: Sequence[str]) -> str:
    """Does not return but to say why it can't."""
    machine = os.uname().machine
    try:
        _filter_this_process(program(machine))
        os.execvp(command[0], [*command])
    except KeyError:
        return f"no filter for wireguard-go is known on {machine}: use a kernel with WireGuard"
    except OSError as error:
        return f"{command[0]}: {error.strerror}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
