"""Confine a decoder before it reads an upload: privileges, files, CPU time, memory.

Each layer works without the others. None needs root, another package or a namespace (a service
under systemd may not create one), so they are the same in a container and on a host.

    no new privileges   no program executed from here on gains privileges
    Landlock            no opening or creating files, no TCP; applied once, by the fork server
    limits              CPU time, memory, size of the samples, no new descriptors
    seccomp             a few system calls on memory and open descriptors; all others are refused
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

# A decoder's memory in addition to the fork server's. Samples are written as they are decoded, so
# memory does not grow with duration; 32 channels of float64 fit. A file of 1.3 kB can make the
# library request 2 GB.
MEMORY_BYTES = 512 << 20

PR_SET_SECCOMP = 22  # from <linux/prctl.h>
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

# From <linux/landlock.h>: the rights in each version of the ABI. All are given up.
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_RESTRICT_SELF = 446
LANDLOCK_VERSION = 1
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}  # version -> bits
TCP_RIGHTS = {4: 2}
SCOPES = {6: 2}  # abstract sockets and signals to processes outside the fork server

# From <linux/filter.h> and <linux/seccomp.h>.
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000  # REFUSE: the call fails with EPERM
NUMBER_AT, MACHINE_AT, THIRD_ARGUMENT_AT = 0, 4, 32  # in struct seccomp_data, little endian
PROT_EXEC = 4


@dataclass(frozen=True)
class Machine:
    """The system calls of one architecture.

    Attributes:
        audit: the architecture's number in <linux/audit.h>.
        calls: those that decoding needs: on memory, on open descriptors, and to exit.
        mappings: mmap and mprotect, allowed without PROT_EXEC.
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
    """The kernel does not support a layer, or refuses it."""


def give_up_privileges() -> None:
    """Set no_new_privs: no program executed from here on gains privileges.

    Raises:
        Refused: the kernel does not support it.
    """
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def close_the_files() -> None:
    """Forbid opening, creating and executing files, and TCP, also for children.

    Raises:
        Refused: the kernel has no Landlock, or it is disabled.
    """
    version = _call("syscall", LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION)
    rights = [_bits(known, version) for known in (FILE_RIGHTS, TCP_RIGHTS, SCOPES)]
    while not rights[-1]:  # older kernels take a shorter structure
        rights.pop()
    attributes = struct.pack(f"={len(rights)}Q", *rights)
    rules = _call("syscall", LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _call("syscall", LANDLOCK_RESTRICT_SELF, rules, 0)
    finally:
        os.close(rules)


def _bits(known: dict[int, int], version: int) -> int:
    """Return the mask of all rights of a kind in this version of the ABI."""
    return (1 << max((n for since, n in known.items() if since <= version), default=0)) - 1


def limit(cpu_s: int, file_bytes: int, memory_bytes: int) -> None:
    """Set resource limits on this process, which it cannot raise again.

    Args:
        cpu_s: CPU time; the process has just been forked.
        file_bytes: maximum size of a file it writes.
        memory_bytes: address space, including what is mapped already.
    """
    for limited_resource, maximum in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),  # a core dump would contain audio
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, 0),  # open descriptors stay open
    ):
        hard = resource.getrlimit(limited_resource)[1]
        maximum = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
        resource.setrlimit(limited_resource, (maximum, maximum))


def go_first() -> None:
    """Make the kernel's OOM killer choose this process before one with a model."""
    with contextlib.suppress(OSError):  # optional: the limits still apply
        Path("/proc/self/oom_score_adj").write_text("500")


def address_space() -> int:
    """Return the size of this process's address space in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def filter_of_calls() -> Callable[[], None]:
    """Prepare the seccomp filter.

    Returns:
        A function that installs the filter on the calling process, irrevocably.

    Raises:
        Refused: there is no list of system calls for this architecture.
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
    """Return the filter in classic BPF: listed calls pass, all others fail with EPERM.

    They fail rather than kill, so that a C library that tries a newer call can fall back.
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
    """Call a C function that returns -1 and sets errno on failure."""
    library = ctypes.CDLL(None, use_errno=True)
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(getattr(library, function)(*wide))
    if result < 0:
        number = ctypes.get_errno()
        raise Refused(number, os.strerror(number))
    return result
