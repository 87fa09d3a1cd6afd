"""A seccomp filter for Linux: which system calls a confined process may not make.

Runs in the launcher too, so it imports the standard library alone. The filter is a deny list: what Landlock and mount
namespaces do not cover, and what has no use in a sandbox but a history of faults.

Sources: linux/seccomp.h, linux/filter.h, asm/unistd_64.h, asm-generic/unistd.h.
"""

import ctypes
import errno
import os
import struct

# System calls by name: numbers on x86-64 and on AArch64; None where there is none.
_NUMBERS = {
    "accept": (43, 202),
    "accept4": (288, 242),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bind": (49, 200),
    "bpf": (321, 280),
    "chmod": (90, None),
    "chown": (92, None),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "fcntl": (72, 25),
    "finit_module": (313, 273),
    "fremovexattr": (199, 16),
    "fsconfig": (431, 431),
    "fsetxattr": (190, 7),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, None),
    "get_robust_list": (274, 100),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "kill": (62, 129),
    "lchown": (94, None),
    "listen": (50, 201),
    "lookup_dcookie": (212, 18),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "migrate_pages": (256, 238),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pivot_root": (155, 41),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "prctl": (157, 167),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "removexattr": (197, 14),
    "request_key": (249, 218),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semget": (64, 190),
    "sendmmsg": (307, 269),
    "sendmsg": (46, 211),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "settimeofday": (164, 170),
    "setxattr": (188, 5),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "tkill": (200, 130),
    "truncate": (76, 45),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
    "vhangup": (153, 58),
}
_DENIED = (
    # sockets of every family, so TCP, UDP, unix and abstract ones
    *("accept", "accept4", "bind", "connect", "listen", "socket"),
    # messages that hold files: deleted ones would take room on the disk that nobody sees
    *("sendmmsg", "sendmsg"),
    # other processes
    *("get_robust_list", "kcmp", "migrate_pages", "move_pages", "pidfd_getfd", "pidfd_open", "pidfd_send_signal"),
    *("process_madvise", "process_mrelease", "process_vm_readv", "process_vm_writev", "ptrace", "rt_sigqueueinfo"),
    # namespaces and mounts
    *("chroot", "fsconfig", "fsmount", "fsopen", "fspick", "mount", "mount_setattr", "move_mount", "open_tree"),
    *("pivot_root", "setns", "umount2", "unshare", "name_to_handle_at", "open_by_handle_at"),
    # memory that no limit counts, and objects that outlive the process
    *("memfd_secret", "mq_open", "msgget", "semget", "shmget"),
    # keys, and large parts of the kernel that a script has no use for
    *("add_key", "keyctl", "request_key", "bpf", "fanotify_init", "io_uring_enter", "io_uring_register"),
    *("io_uring_setup", "lookup_dcookie", "modify_ldt", "perf_event_open", "userfaultfd"),
    # the machine
    *("acct", "adjtimex", "clock_adjtime", "clock_settime", "delete_module", "finit_module", "init_module", "ioperm"),
    *("iopl", "kexec_file_load", "kexec_load", "quotactl", "quotactl_fd", "reboot", "setdomainname", "sethostname"),
    *("settimeofday", "swapoff", "swapon", "syslog", "vhangup"),
)
# Only of the caller itself, which these calls name 0.
_SELF_ONLY = {
    "ioprio_set": 1,
    "prlimit64": 0,
    "sched_setaffinity": 0,
    "sched_setattr": 0,
    "sched_setparam": 0,
    "sched_setscheduler": 0,
    "setpriority": 1,
}
# Metadata of files, which Landlock does not guard: they report success and do nothing, since copying a file calls them.
_PRETENDED = ("chmod", "fchmod", "fchmodat", "fchmodat2", "futimesat", "utime", "utimensat", "utimes")
_UNSUPPORTED = ("fremovexattr", "fsetxattr", "lremovexattr", "lsetxattr", "removexattr", "setxattr")
_OWNERS = ("chown", "fchown", "fchownat", "lchown")
_SIGNALS = ("kill", "rt_tgsigqueueinfo", "tkill")

_CLONE_NAMESPACES = 0x7E020000 | 0x80  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; NEWTIME
_TIOCSTI, _TIOCLINUX, _TIOCSETD, _TIOCCONS = 0x5412, 0x541C, 0x5423, 0x541D
_FIOSETOWN, _SIOCSPGRP = 0x8901, 0x8902
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX = 8, 10, 15
_SOCK_STREAM = 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


class SeccompError(Exception):
    """The filter cannot be installed."""


def filter_program(machine: str, *, guard_metadata: bool, guard_signals: bool) -> bytes:
    """Return the filter as a BPF program.

    Args:
        machine: as `os.uname` names it.
        guard_metadata: also against changing modes, owners, times and attributes of files outside.
        guard_signals: also against signals to any process but the caller.

    Raises:
        SeccompError: the machine is not known.
    """
    if machine not in _ARCHITECTURES:
        raise SeccompError(f"no system call filter for {machine}")
    column, audit = _ARCHITECTURES[machine]
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]

    def rule(name: str, *then: tuple[int, int, int, int]) -> None:
        number = _NUMBERS[name][column]
        if number is not None:
            code.extend([(_EQUAL, 0, len(then), number), *then])

    def deny(name: str, error: int = errno.EPERM) -> None:
        rule(name, (_RETURN, 0, 0, _ERRNO | error))

    def unless_zero(name: str, argument: int) -> None:
        rule(
            name,
            (_LOAD, 0, 0, 16 + 8 * argument),
            (_EQUAL, 0, 1, 0),
            (_RETURN, 0, 0, _ALLOW),
            (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        )

    def with_values(name: str, argument: int, values: tuple[int, ...]) -> None:
        denied = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
        tests = [step for value in values for step in ((_EQUAL, 0, 1, value), denied)]
        rule(name, (_LOAD, 0, 0, 16 + 8 * argument), *tests, (_RETURN, 0, 0, _ALLOW))

    for name in _DENIED:
        deny(name)
    deny("memfd_create", errno.ENOSYS)
    deny("clone3", errno.ENOSYS)  # its flags lie in memory; the C library then calls clone
    for name, argument in _SELF_ONLY.items():
        unless_zero(name, argument)
    rule(
        "clone",
        (_LOAD, 0, 0, 16),
        (_ANY_BIT, 0, 1, _CLONE_NAMESPACES & ~0xFF),  # the low byte is the exit signal
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    )
    # A datagram socket could send to any address, though it cannot connect.
    rule(
        "socketpair",
        (_LOAD, 0, 0, 16 + 8),
        (_AND, 0, 0, 0xF),
        (_EQUAL, 0, 1, _SOCK_STREAM),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
    )
    with_values("ioctl", 1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD, _TIOCCONS, _FIOSETOWN, _SIOCSPGRP))
    with_values("prctl", 0, (_PR_SET_DUMPABLE,))  # the watcher has to see its files
    with_values("fcntl", 1, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX))
    if guard_metadata:
        for name in _PRETENDED:
            deny(name, 0)
        for name in _UNSUPPORTED:
            deny(name, errno.ENOTSUP)
        for name in (*_OWNERS, "truncate"):
            deny(name)
    if guard_signals:
        for name in _SIGNALS:
            deny(name)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in code)


def install(program: bytes) -> None:
    """Put the calling thread, and all that it starts, under the filter; there is no way back.

    Raises:
        SeccompError: the kernel does not take it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    prog = Program(len(program) // 8, ctypes.cast(text, ctypes.c_void_p))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(prog), 0, 0
    ):
        raise SeccompError(f"seccomp: {os.strerror(ctypes.get_errno())}")
