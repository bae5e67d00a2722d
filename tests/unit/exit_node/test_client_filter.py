"""The seccomp filter of a tunnel's client for every machine, run by a small interpreter here."""

from __future__ import annotations

import errno
import struct

import pytest

from ocgate.exit_node.confined import INSTRUCTION, MACHINES, Machine, program

ALLOW, ERRNO = 0x7FFF_0000, 0x0005_0000
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
NEW_USER, NEW_NET, THREAD, MTU = 0x1000_0000, 0x4000_0000, 0x003D_0F00, 0x8922
OTHER = 1000  # no system call of theirs


def verdict(code: bytes, audit: int, number: int, *arguments: int) -> int:
    """What bpf(4) comes to for struct seccomp_data (linux/seccomp.h), little-endian."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *(*arguments, *[0] * (6 - len(arguments))))
    at, held = 0, 0
    steps = [*INSTRUCTION.iter_unpack(code)]
    while True:
        what, yes, no, k = steps[at]
        at += 1
        match what:
            case 0x20:
                held = struct.unpack_from("<I", data, k)[0]
            case 0x06:
                return int(k)
            case 0x15:
                at += yes if held == k else no
            case 0x35:
                at += yes if held >= k else no
            case 0x45:
                at += yes if held & k else no
            case _:
                raise AssertionError(f"{what:#x} is not used")


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
@pytest.mark.parametrize("keep_mtu", [True, False])
def test_it_refuses_namespaces_and_nothing_else(machine: Machine, keep_mtu: bool) -> None:
    code = program(machine, keep_mtu=keep_mtu)

    def of(number: int, *arguments: int) -> int:
        return verdict(code, machine.audit, number, *arguments)

    assert of(machine.unshare, NEW_USER) == EPERM
    assert of(machine.setns, 3, NEW_NET) == EPERM
    assert of(machine.clone, NEW_USER | 17) == EPERM
    assert of(machine.clone3, 0x7FFF_0000_1000, 88) == ENOSYS
    assert of(machine.clone, THREAD) == of(machine.clone, 17) == ALLOW
    assert of(OTHER) == of(machine.ioctl, 3, 0x8921) == ALLOW
    assert of(machine.ioctl, 3, MTU) == (ERRNO if keep_mtu else ALLOW)
    assert of(OTHER, 3, MTU) == of(OTHER, NEW_USER) == ALLOW, "arguments of other calls"


def test_numbers_of_another_machine_do_not_go_around_it() -> None:
    """A 64-bit x86 kernel takes calls of three sets of numbers."""
    code = program(MACHINES["x86_64"], keep_mtu=True)
    assert verdict(code, MACHINES["i686"].audit, MACHINES["i686"].unshare, NEW_USER) == EPERM
    x32 = 0x4000_0000 | MACHINES["x86_64"].unshare
    assert verdict(code, MACHINES["x86_64"].audit, x32, NEW_USER) == EPERM
