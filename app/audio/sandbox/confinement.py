"""What a decoder takes from itself before it touches an upload: rights, memory, time, files.

Each layer holds without the others. None of them needs root, a further package or a namespace
(a service under systemd may not make one), so they are the same in a container and on a host.

    no new privileges   programs with more rights than this one cannot be had
    Landlock            no file is opened or made, no TCP connection; once, for the fork server too
    limits              processor time, memory, size of the samples, no further descriptor
    seccomp             a few system calls on memory and open descriptors; every other is refused
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# What a decoder may take beside what the fork server already had. Its samples are written as they
# come, so a recording takes little however long it is; 32 channels of float64 fit. A file of
# 1.3 kB can make the library ask for 2 GB.
MEMORY_BYTES = 512 << 20

PR_SET_SECCOMP = 22  # from <linux/prctl.h>
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

# From <linux/landlock.h>: which rights each version of the interface knows. All are given up.
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_VERSION = 1
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # version -> bits
TCP_RIGHTS = {4: 2}
SCOPES = {6: 2}  # abstract sockets and signals beyond the fork server

# From <linux/filter.h> and <linux/seccomp.h>.
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # REFUSE: the call fails with EPERM
NUMBER_AT, MACHINE_AT, THIRD_ARGUMENT_AT = 0, 4, 32  # in struct seccomp_data, little endian
PROT_EXEC = 4


@dataclass(frozen=True)
class Machine:
    """One architecture's system calls.

    Attributes:
        audit: its number in <linux/audit.h>.
        calls: those that decoding needs: on memory, on open descriptors, and to end.
        mappings: mmap and mprotect, allowed as long as nothing becomes executable.
    """

    audit: int
    calls: tuple[int, ...]
    mappings: tuple[int, int]


# read write close fstat lseek munmap brk rt_sigprocmask rt_sigreturn pread64 pwrite64 sched_yield
# mremap madvise getpid exit ftruncate gettid futex sched_getaffinity clock_gettime
# clock_nanosleep exit_group restart_syscall getrandom
MACHINES = {
    "x86_64": Machine(
        0xC000003E,
        (0, 1, 3, 5, 8, 11, 12, 14, 15, 17, 18, 24, 25, 28, 39, 60, 77, 186, 202, 204, 228, 230,
         231, 219, 318),
        (9, 10),
    ),
    "aarch64": Machine(
        0xC00000B7,
        (63, 64, 57, 80, 62, 215, 214, 135, 139, 67, 68, 124, 216, 233, 172, 93, 46, 178, 98, 123,
         113, 115, 94, 128, 278),
        (222, 226),
    ),
}  # fmt: skip


class Refused(OSError):
    """The kernel does not grant a layer."""


def give_up_privileges() -> None:
    """Nothing that is executed from here on has more rights than this process.

    Raises:
        Refused: the kernel has no such thing.
    """
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def close_the_files() -> None:
    """No file is opened, made or executed from here on, nor a TCP connection; for children too.

    Raises:
        Refused: the kernel has no Landlock, or it is not switched on.
    """
    version = _call("syscall", LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION)
    rights = [_bits(known, version) for known in (FILE_RIGHTS, TCP_RIGHTS, SCOPES)]
    while not rights[-1]:  # an older kernel takes a shorter structure
        rights.pop()
    attributes = struct.pack(f"={len(rights)}Q", *rights)
    rules = _call("syscall", LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _call("syscall", LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _bits(known: dict[int, int], version: int) -> int:
    """All rights of a kind that this version of the interface knows."""
    return (1 << max((n for since, n in known.items() if since <= version), default=0)) - 1


def limit(cpu_s: int, file_bytes: int, memory_bytes: int) -> None:
    """Bound what this process may use; it cannot raise any of it again.

    Args:
        cpu_s: processor time from now on; the process has just been forked.
        file_bytes: size of what it may write.
        memory_bytes: address space, all that is mapped now included.
    """
    for what, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),  # a core dump would hold what people said
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),  # what is open stays so
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def go_first() -> None:
    """When the machine has no memory left, the kernel ends this process before one with a model."""
    with contextlib.suppress(OSError):  # no harm: the limits hold
        Path("/proc/self/oom_score_adj").write_text("500")


def address_space() -> int:
    """What this process has mapped, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def filter_of_calls() -> Callable[[], None]:
    """Prepare the filter of system calls.

    Returns:
        Puts it on the calling process, for good.

    Raises:
        Refused: nobody has written this architecture's list down.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise Refused(f"no list of system calls for {platform.machine()}")
    code = _program(machine)
    instructions = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(instructions))

    def apply(_keep: object = instructions) -> None:
        _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)

    return apply


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _program(machine: Machine) -> bytes:
    """The filter in classic BPF: what is listed may pass, all else fails with EPERM.

    It fails rather than kills, so that a C library which tries something new and can do without
    it goes on.
    """
    mmap, mprotect = machine.mappings
    lines = [
        (LOAD, 0, 0, MACHINE_AT), (EQUAL, 1, 0, machine.audit), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
    ]  # fmt: skip
    for number in machine.calls:
        lines += [(EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW)]
    lines += [
        (EQUAL, 1, 0, mmap), (EQUAL, 0, 3, mprotect),
        (LOAD, 0, 0, THIRD_ARGUMENT_AT), (ANY_BIT, 1, 0, PROT_EXEC), (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]  # fmt: skip
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _call(function: str, *arguments: object) -> int:
    """One of the C library's functions that say -1 and errno."""
    library = ctypes.CDLL(None, use_errno=True)
    wide = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    found = int(getattr(library, function)(*wide))
    if found < 0:
        number = ctypes.get_errno()
        raise Refused(number, os.strerror(number))
    return found
