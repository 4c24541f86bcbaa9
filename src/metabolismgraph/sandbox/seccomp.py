"""Linux seccomp: the kernel ends a process that makes a system call which honest training never makes.

Landlock guards files. This filter guards the rest: other processes and their priorities and limits, new programs,
connections, and rights and dates of files. It needs no privilege, cannot be undone, and holds for all threads. It lists
the calls that are refused, not those that are allowed, since JAX and drivers differ in what they use.

The list is written for two architectures here, since the Python packages for it need a C library (libseccomp) that pip
does not install. Numbers and structures: linux/seccomp.h, linux/bpf_common.h and asm/unistd.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Callable, Mapping

from metabolismgraph.sandbox import prctl
from metabolismgraph.sandbox.watcher import CALLS

_SET_MODE_FILTER, _ALL_THREADS, _LISTENER, _OR_FAIL = 1, 1, 8, 16
_KILL_PROCESS, _ALLOW, _ASK, _NO_SUCH_CALL = 0x80000000, 0x7FFF0000, 0x7FC00000, 0x00050000 | 38
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ARCHITECTURE, _ARGUMENTS = 4, 16  # places in the structure that the filter sees; the number of the call is first
_THREAD = 0x10000  # the flag of clone for a thread, which cannot outlive its process
_OTHER_NUMBERS = 0x40000000  # the x32 calls of x86_64
_UNKNOWN = 463  # calls from this number on are younger than this list; to their callers, the kernel is older

# Identifier of the architecture, and number of `seccomp` itself.
_MACHINES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
# Calls that are always refused, with their numbers on x86_64 and aarch64.
_NEVER: dict[str, tuple[int | None, int | None]] = {
    # memory, execution and descriptors of other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "perf_event_open": (298, 241),
    "migrate_pages": (256, 238),
    "ioprio_set": (251, 30),
    # groups, limits and privileges
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setrlimit": (160, 164),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "capset": (126, 91),
    "personality": (135, 92),
    # another filter could hide the end of the process from itself
    "seccomp": (317, 277),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
    # connections and memory that is shared with other processes
    "socket": (41, 198),
    "socketpair": (53, 199),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # ways around the filter, or around checks of paths
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "creat": (85, None),
    "openat2": (437, 437),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # what Landlock does not guard of files
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    # the whole system
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "syslog": (103, 116),
    "vhangup": (153, 58),
}
# Refused unless the compilers of an accelerator need them: they are programs of their own.
_OF_PROGRAMS: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "memfd_create": (319, 279),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
# Numbers, and arguments that have one of the given values; None: the number of this process.
_WITH: dict[str, tuple[tuple[int, int], dict[int, tuple[int | None, ...]]]] = {
    "kill": ((62, 129), {0: (None,)}),
    "tgkill": ((234, 131), {0: (None,)}),
    "rt_sigqueueinfo": ((129, 138), {0: (None,)}),
    "rt_tgsigqueueinfo": ((297, 240), {0: (None,)}),
    "setpriority": ((141, 140), {0: (0,), 1: (0, None)}),
    "sched_setaffinity": ((203, 122), {0: (0, None)}),
    "sched_setscheduler": ((144, 119), {0: (0, None)}),
    "sched_setparam": ((142, 118), {0: (0, None)}),
    "sched_setattr": ((314, 274), {0: (0, None)}),
    "move_pages": ((279, 239), {0: (0, None)}),
}
_PRLIMIT = (302, 261)
# Numbers, and the argument with the flags. Python opens files with the flag that closes them in new programs, unlike
# C, C++ and Fortran. Training writes by Python alone; what Landlock refuses to others has no report.
_OPEN = (((2, None), 1), ((257, 56), 2))
_CREATES, _CLOSES = 0o100, 0o2000000
# Numbers, and the argument with the descriptor that is closed or replaced; the last closes those from one to another.
_REPLACE = (((3, 57), 0), ((33, None), 1), ((292, 24), 1))
_CLOSE_RANGE = (436, 436)
# Refused values of an argument: other filters and tracers; owners of signals, leases on files, notices of changes;
# input for terminals, attributes of files.
_WITHOUT: dict[str, tuple[tuple[int, int], int, tuple[int, ...]]] = {
    "prctl": ((157, 167), 0, (22, 0x59616D61)),
    "fcntl": ((72, 25), 1, (8, 15, 1024, 1026)),
    "ioctl": (
        (16, 29),
        1,
        (0x5412, 0x541C, 0x8901, 0x8902, 0x40086602, 0x40046602, 0x40087602, 0x401C5820, 0x40806685),
    ),
}

Instruction = tuple[int, int, int, int]  # code, jumps if true and if false, value


def restrict(*, programs: bool = False, report: int | None = None, listen: Callable[[int], None] | None = None) -> bool:
    """Filter the system calls of this process and all its threads permanently; False where the kernel does not.

    A refused call ends the process with the signal SIGSYS, which no code in it can prevent.

    Args:
        programs: whether other programs may be started; they are under the same filter.
        report: a descriptor that must not be closed or replaced; not guarded where other programs may be started, to
            which its number means another file.
        listen: makes somebody answer the kernel's questions about files (`watcher.py`), which come from the descriptor
            that it gets; threads that open files wait for the answers. Not called where the kernel cannot ask.
    """
    machine = _machine()
    if machine is None:
        return False
    if listen is not None and not programs:
        listener = _install(_LISTENER | _OR_FAIL, program(machine, os.getpid(), report=report, asks=True), machine)
        if listener >= 0:
            listen(listener)
            return True
    return _install(0, program(machine, os.getpid(), programs=programs, report=report), machine) == 0


def asked() -> Mapping[int, str]:
    """The system calls about which the kernel can ask here, by number."""
    machine = _machine()
    return {} if machine is None else {number: name for name, number in _asked(machine).items()}


def _asked(machine: str) -> dict[str, int]:
    at = list(_MACHINES).index(machine)
    return {name: number for name, call in CALLS.items() if (number := call.numbers[at]) is not None}


def _machine() -> str | None:
    """This machine's architecture; None if the tables are not for it."""
    machine = platform.machine()
    known = sys.platform == "linux" and machine in _MACHINES and struct.calcsize("P") == 8
    return machine if known else None


def _install(flags: int, rules: list[Instruction], machine: str) -> int:
    code = b"".join(struct.pack("=HBBI", *one) for one in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    libc = ctypes.CDLL(None, use_errno=True)
    prctl.renounce_privileges()
    mode, how = ctypes.c_long(_SET_MODE_FILTER), ctypes.c_long(_ALL_THREADS | flags)
    return int(libc.syscall(ctypes.c_long(_MACHINES[machine][1]), mode, how, header))


def refused(machine: str, *, programs: bool = False) -> Mapping[str, int]:
    """Numbers of the system calls that are refused with any arguments, by name."""
    at = list(_MACHINES).index(machine)
    table = _NEVER | ({} if programs else _OF_PROGRAMS)
    return {name: number for name, numbers in table.items() if (number := numbers[at]) is not None}


def program(
    machine: str, own: int, *, programs: bool = False, report: int | None = None, asks: bool = False
) -> list[Instruction]:
    """The filter as a BPF program.

    Args:
        machine: the architecture, as `platform.machine` names it.
        own: number of the process.
        programs, report: see `restrict`.
        asks: whether the kernel asks about files.
    """
    kill, allow = _end(_KILL_PROCESS), _end(_ALLOW)
    at = list(_MACHINES).index(machine)
    rules = {number: [kill] for number in refused(machine, programs=programs).values()}
    if asks:
        rules |= {number: [_end(_ASK)] for number in _asked(machine).values()}
    # Its flags are in memory, which a filter does not see; the C library then takes clone.
    rules[_CLONE3[at]] = [_end(_NO_SUCH_CALL)]
    if not programs:
        rules[_CLONE[at]] = [_load(_ARGUMENTS), (_IF_ANY_BIT, 1, 0, _THREAD), kill, allow]
        for numbers, argument in _OPEN:
            flags = _load(_ARGUMENTS + 8 * argument)
            if (number := numbers[at]) is not None:
                fine = _end(_ASK) if asks else allow
                rules[number] = [flags, (_IF_ANY_BIT, 0, 2, _CREATES), (_IF_ANY_BIT, 1, 0, _CLOSES), kill, fine]
    if report is not None and not programs:
        for numbers, argument in _REPLACE:
            if (number := numbers[at]) is not None:
                rules[number] = [_load(_ARGUMENTS + 8 * argument), (_IF_EQUAL, 0, 1, report), kill, allow]
        last = [_load(_ARGUMENTS + 8), (_IF_AT_LEAST, 0, 1, report), kill, allow]
        rules[_CLOSE_RANGE[at]] = [_load(_ARGUMENTS), (_IF_AT_LEAST, 0, 1, report + 1), allow, *last]
    for pair, conditions in _WITH.values():
        rules[pair[at]] = _require(conditions, own)
    # Limits are read by the C library; the address of a new limit is not zero.
    rules[_PRLIMIT[at]] = _require({0: (0, None), 2: (0,)}, own)[:-1] + _require({2: (0,)}, own, high=True)
    for pair, argument, values in _WITHOUT.values():
        tests = [one for value in values for one in ((_IF_EQUAL, 0, 1, value), kill)]
        rules[pair[at]] = [_load(_ARGUMENTS + 8 * argument), *tests, allow]
    return [
        # Numbers mean other calls under another architecture, which a process of x86_64 can switch to.
        *(_load(_ARCHITECTURE), (_IF_EQUAL, 1, 0, _MACHINES[machine][0]), kill),
        *(_load(0), (_IF_AT_LEAST, 0, 1, _OTHER_NUMBERS), kill),
        *((_IF_AT_LEAST, 0, 1, _UNKNOWN), _end(_NO_SUCH_CALL)),
        # Every way through a rule ends with an action.
        *(one for number, rule in rules.items() for one in ((_IF_EQUAL, 0, len(rule), number), *rule)),
        allow,
    ]


def _load(offset: int) -> Instruction:
    return _LOAD, 0, 0, offset


def _end(action: int) -> Instruction:
    return _RETURN, 0, 0, action


def _require(conditions: Mapping[int, tuple[int | None, ...]], own: int, *, high: bool = False) -> list[Instruction]:
    """End the process unless the arguments have one of their values, in their lower or upper 32 bits."""
    body: list[Instruction] = []
    for argument, values in conditions.items():
        wanted = [own if value is None else value for value in values]
        body.append(_load(_ARGUMENTS + 8 * argument + 4 * high))
        body += [(_IF_EQUAL, len(wanted) - i, 0, value) for i, value in enumerate(wanted)]
        body.append(_end(_KILL_PROCESS))
    return [*body, _end(_ALLOW)]
