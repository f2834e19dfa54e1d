"""Runs a program under a filter of system calls: filtering.py ACTION PROGRAM ARGUMENT...

The filter is that of systemd's `SystemCallFilter=~@resources @privileged`. ACTION is `kill-process`, as without
`SystemCallErrorNumber=`, `kill-thread`, or `refuse`.
"""

import ctypes
import errno
import os
import platform
import struct
import sys

ACTIONS = {"kill-process": 0x80000000, "kill-thread": 0, "refuse": 0x00050000 | errno.EPERM}
ALLOW = 0x7FFF0000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
# The calls of both groups that exist on this architecture and that a program could make without privileges or does
# make when it is root.
CALLS = {
    "x86_64": {
        "sched_setaffinity": 203, "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314,
        "setpriority": 141, "ioprio_set": 251, "mbind": 237, "set_mempolicy": 238, "migrate_pages": 256,
        "move_pages": 279, "set_mempolicy_home_node": 450, "setrlimit": 160, "chown": 92, "fchown": 93, "lchown": 94,
        "fchownat": 260, "chroot": 161, "pivot_root": 155, "setuid": 105, "setreuid": 113, "setresuid": 117,
        "setgroups": 116, "setfsuid": 122, "capset": 126, "quotactl": 179, "acct": 163, "settimeofday": 164,
        "clock_settime": 227, "adjtimex": 159, "clock_adjtime": 305, "bpf": 321, "fanotify_init": 300,
    },
    "aarch64": {
        "sched_setaffinity": 122, "sched_setscheduler": 119, "sched_setparam": 118, "sched_setattr": 274,
        "setpriority": 140, "ioprio_set": 30, "mbind": 235, "set_mempolicy": 237, "migrate_pages": 238,
        "move_pages": 239, "set_mempolicy_home_node": 450, "setrlimit": 164, "fchown": 55, "fchownat": 54,
        "chroot": 51, "pivot_root": 41, "setuid": 146, "setreuid": 145, "setresuid": 147, "setgroups": 159,
        "setfsuid": 151, "capset": 91, "quotactl": 60, "acct": 89, "settimeofday": 170, "clock_settime": 112,
        "adjtimex": 171, "clock_adjtime": 266, "bpf": 280, "fanotify_init": 262,
    },
}.get(platform.machine())


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def instruction(code, if_true, if_false, value):
    return struct.pack("=HBBI", code, if_true, if_false, value)


def install(action):
    load, equal, give = 0x20, 0x15, 0x06
    numbers = list(CALLS.values())
    code = instruction(load, 0, 0, 0)
    for index, number in enumerate(numbers):
        # The last instruction is the action, the one before it allows.
        code += instruction(equal, len(numbers) - index, 0, number)
    code += instruction(give, 0, 0, ALLOW) + instruction(give, 0, 0, ACTIONS[action])
    libc = ctypes.CDLL(None, use_errno=True)
    program = Program(len(numbers) + 3, code)
    for words in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)):
        if libc.prctl(*words) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    install(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
