"""The sandbox: rights that a process gives up before it reads files from strangers.

    memory          address space up to what its limits on images can need (RLIMIT_AS)
    open files      64, and no core dumps
    system calls    no network, no other program, no other process, no tracing (seccomp)
    writing         only inside the given folders; no program is run (Landlock)

Each part is applied if the kernel offers it, and for good: no code in the process can undo it.
Parts that the kernel lacks are skipped; `confine` returns which are in force. Reading stays
allowed, as images may lie anywhere. The module needs nothing but ctypes. The environment variable
VISXAI_SANDBOX=0 switches all parts off.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator, Sequence

_FILES = 64  # descriptors a worker may have open
_NO_NEW_PRIVS = 38  # PR_SET_NO_NEW_PRIVS

PARTS = ("memory", "open files", "system calls", "writing")


def confine(memory: int, writes: Sequence[str]) -> dict[str, str]:
    """Give up, in this process and for good, the rights that decoding and drawing don't need.

    Args:
        memory: Bytes of address space beyond those that the process uses now.
        writes: Folders below which files may still be written; missing ones are created.

    Returns:
        For each of PARTS the reason why it isn't in force, or "" if it is.
    """
    if os.environ.get("VISXAI_SANDBOX") == "0":
        return dict.fromkeys(PARTS, "switched off by VISXAI_SANDBOX=0")
    if sys.platform != "linux":
        return dict.fromkeys(PARTS, f"not on {platform.system()}")
    found = {
        "memory": _told(lambda: _limit_memory(memory)),
        "open files": _told(_limit_files),
        # Landlock's own system calls come before the filter of system calls.
        "writing": _told(lambda: _restrict_writes(writes)),
        "system calls": _told(_filter_calls),
    }
    return {part: found[part] for part in PARTS}


def _told(apply: Callable[[], None]) -> str:
    """Apply a part; return the reason in words if that fails, otherwise ""."""
    try:
        apply()
    except (OSError, ValueError, AttributeError) as error:
        return str(getattr(error, "strerror", None) or error).lower()
    return ""


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _limit_memory(more: int) -> None:
    import resource

    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    _lower(resource.RLIMIT_AS, used + more)


def _limit_files() -> None:
    import resource

    _lower(resource.RLIMIT_NOFILE, _FILES)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, wanted: int) -> None:
    """Set both the soft and the hard limit of a resource, never above the present hard limit."""
    import resource

    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))


def limit_cpu(seconds: float | None) -> None:
    """Let this process use `seconds` more of CPU time before the kernel ends it; None: no limit."""
    if sys.platform == "win32":
        return
    import resource

    soft = hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if seconds is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime + seconds) + 1
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


# ---- Landlock ------------------------------------------------------------------------------------

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_EXECUTE, _WRITE_FILE, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 0, 1 << 1, 1 << 5, 1 << 7, 1 << 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
# All rights of Landlock's first version that change a disk: bits 4 to 12 create and remove.
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))
_NETWORK = 0b11  # bind and connect TCP
_SCOPES = 0b11  # abstract Unix sockets and signals of other processes


def _restrict_writes(folders: Sequence[str]) -> None:
    """Forbid by Landlock to change a disk except below `folders`, and to run a program."""
    version = _syscall(_CREATE_RULESET, None, 0, 1)
    newer = (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    handled = _EXECUTE | _CHANGES | newer
    attributes = struct.pack("QQQ", handled, _NETWORK, _SCOPES)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes, 24), size, 0)
    inside = (_WRITE_FILE | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | newer) & handled
    with _closing(rules):
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
            _allow(rules, folder, inside)
        _allow(rules, os.devnull, (_WRITE_FILE | _TRUNCATE) & handled)
        _no_new_privileges()
        _syscall(_RESTRICT_SELF, rules, 0)


def _allow(rules: int, path: str, access: int) -> None:
    with _closing(os.open(path, os.O_PATH | os.O_CLOEXEC)) as place:
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, place), 12)
        _syscall(_ADD_RULE, rules, 1, rule, 0)


# ---- seccomp -------------------------------------------------------------------------------------

# Calls by their numbers on x86-64 and arm64 (None: it has no such call). Decoding, drawing and
# talking to the parent through pipes need none of them.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "accept": (43, 202),
    "sendto": (44, 206),
    "sendmsg": (46, 211),
    "bind": (49, 200),
    "listen": (50, 201),
    "socketpair": (53, 199),
    "accept4": (288, 242),
    "sendmmsg": (307, 269),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    # These reach other calls past a filter, or more of the kernel than any decoder needs.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "open_by_handle_at": (304, 265),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# The numbers of seccomp itself, and of calls that the filter judges by an argument.
_SECCOMP, _CLONE, _CLONE3 = (317, 277), (56, 220), 435
_KILL, _TGKILL, _PRLIMIT, _IOCTL = (62, 129), (234, 131), (302, 261), (16, 29)
_CLONE_THREAD, _TIOCSTI = 0x10000, 0x5412
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # of classic BPF
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data

_Step = tuple[int, int, int, int]  # code, steps to skip if true, if false, operand


def _filter_calls() -> None:
    """Make the calls of _DENIED fail with EPERM by seccomp, in all threads."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.byteorder != "little" or sys.maxsize < 2**32:
        raise ValueError(f"not on {machine}")
    column, architecture = _ARCHITECTURES[machine]
    steps = b"".join(struct.pack("HBBI", *step) for step in _program(column, architecture))
    code = ctypes.create_string_buffer(steps, len(steps))
    header = struct.pack("HxxxxxxP", len(steps) // 8, ctypes.addressof(code))
    _no_new_privileges()
    for_all_threads = 1  # SECCOMP_FILTER_FLAG_TSYNC
    program = ctypes.create_string_buffer(header, len(header))
    if thread := _syscall(_SECCOMP[column], 1, for_all_threads, program):
        raise OSError(errno.EBUSY, f"thread {thread} can't be filtered")


def _program(column: int, architecture: int) -> list[_Step]:
    """Build the filter's program, which decides on each system call.

    Args:
        column: The column of _DENIED that holds this machine's numbers.
        architecture: The machine's AUDIT_ARCH value.
    """
    denied, allowed = (_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    own = os.getpid()

    def decided(call: int, where: int, *tests: _Step) -> list[_Step]:
        """Build the steps for a call that is allowed if a test of an argument skips to the end."""
        body = [(_LOAD, 0, 0, where), *tests, denied, allowed]
        return [(_EQUAL, 0, len(body), call), *body]

    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        denied,
        (_LOAD, 0, 0, _NUMBER),
        # Deny the numbers of x86-64's second table (x32).
        (_AT_LEAST, 0, 1, 0x40000000),
        denied,
    ]
    for numbers in _DENIED.values():
        if (number := numbers[column]) is not None:
            steps += [(_EQUAL, 0, 1, number), denied]
    # Without clone3 the C library uses clone, whose flags a filter can read: they allow threads
    # only, no processes.
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]
    steps += decided(_CLONE[column], _FIRST, (_ANY_BIT, 1, 0, _CLONE_THREAD))
    # A process may send signals to itself alone, and set limits of itself alone.
    for numbers in (_KILL, _TGKILL):
        steps += decided(numbers[column], _FIRST, (_EQUAL, 1, 0, own))
    steps += decided(_PRLIMIT[column], _FIRST, (_EQUAL, 2, 0, 0), (_EQUAL, 1, 0, own))
    # TIOCSTI would type into the terminal.
    steps += decided(_IOCTL[column], _SECOND, (_EQUAL, 0, 1, _TIOCSTI))
    return [*steps, allowed]


def _no_new_privileges() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _syscall(number: int, *arguments: object) -> int:
    """Make a system call by its number; raise OSError if it fails."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    result = int(call(ctypes.c_long(number), *wide))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
