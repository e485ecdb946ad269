"""Runs a command and ends all that came of it: `python flows/_supervise.py -- COMMAND...`; see flows/child.py.

It leads a process group that the command and its descendants belong to. Its stdin is a pipe whose other end only the
flow's process holds, so that the kernel itself says when that process is gone, even by `kill -9`. Then, or on SIGTERM
or SIGINT, or when the command has ended and left something running, the group gets SIGTERM, and LOUPE_GRACE seconds
later SIGKILL. It ends when nothing of the group is left, with the command's exit code, 128 + n if signal n ended that.

One thread and the standard library alone: it is started for each command, and must be the last to fall.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import signal
import stat
import sys
import time
from contextlib import suppress

ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # to end the group
GRACE = 25.0  # seconds from SIGTERM to SIGKILL: Prefect's worker kills a flow's process 30 s after its SIGTERM
LOOK = 0.05  # seconds; that a process has ended which is no child of ours is seen by looking
UNKILLABLE = 5.0  # seconds from SIGKILL until a process that waits for a broken disk is given up
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>


def main() -> int:
    """Supervise the command after `--`; its exit code."""
    command = sys.argv[2:]
    if sys.argv[1:2] != ["--"] or not command:
        print(f"usage: {sys.argv[0]} -- COMMAND...", file=sys.stderr)
        return 2
    if os.getpgrp() != os.getpid():  # started by hand: the group is not ours to end
        os.setsid()
    grace = float(os.environ.get("LOUPE_GRACE") or GRACE)
    owner, parent = sys.stdin.fileno(), os.getppid()
    outputs = _reading_ends()
    noted, note = os.pipe()
    os.set_blocking(note, False)
    for number in (*ASKED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)  # what counts is the byte in the pipe, which ends `select`
    signal.set_wakeup_fd(note, warn_on_full_buffer=False)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans of the group become our children: none stays a zombie

    process = _start(command)
    watched, asked = [owner, noted], False
    drained: list[int] = []
    code: int | None = None
    kill_at = math.inf
    while True:
        code = _reap(process, code)
        if asked or code is not None:
            left = _others()
            now = time.monotonic()
            if (code is not None and not left) or now >= kill_at + UNKILLABLE:
                return 128 + signal.SIGKILL if code is None else code
            if kill_at == math.inf:
                os.killpg(0, signal.SIGTERM)
                kill_at = now + grace
            for one in left if now >= kill_at else ():
                with suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
        if asked and not drained and os.getppid() != parent:  # nobody else reads what they print, and pipes fill up
            drained = outputs
        ready, _, _ = select.select(watched + drained, [], [], None if kill_at == math.inf else LOOK)
        for end in set(ready) & set(drained):
            os.read(end, 1 << 20)
        if noted in ready and set(os.read(noted, 4096)) & set(ASKED):
            asked = True
        if owner in ready and not os.read(owner, 4096):  # the end of the pipe: nobody holds its other side any more
            asked = True
            watched.remove(owner)


def _reading_ends() -> list[int]:
    """The other sides of our stdout and stderr, where these are pipes and the system has /proc.

    While we hold them a trainer can print after the flow's process is gone. Else it would fail by that, before it has
    written its checkpoint.
    """
    ends = []
    for stream in (1, 2):
        with suppress(OSError):
            if stat.S_ISFIFO(os.fstat(stream).st_mode):
                ends.append(os.open(f"/proc/self/fd/{stream}", os.O_RDONLY | os.O_NONBLOCK))
    return ends


def _start(command: list[str]) -> int:
    """Start the command in our group; its process id. One that cannot be started says why, and ends with 127."""
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)  # a signal between fork and exec waits until it has its effect
    process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
        return process
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # it must not wait for the pipe, nor read from it
        for number in (*ASKED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores the last two
            signal.signal(number, signal.SIG_DFL)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # should we be killed, the command goes with us
        if os.getppid() == parent:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
            os.execvp(command[0], command)  # noqa: S606  # a list, no shell
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(127)


def _reap(process: int, code: int | None) -> int | None:
    """Let all children go that have ended; the command's exit code, or `code` if it is none of them."""
    with suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if not ended:
                break
            if ended == process:
                code = os.waitstatus_to_exitcode(status)
                code = 128 - code if code < 0 else code
    return code


def _others() -> list[int]:
    """The processes of our group but this one; none where the system has no /proc, and flows/child.py kills them."""
    members = []
    with suppress(FileNotFoundError):
        for name in filter(str.isdecimal, os.listdir("/proc")):  # noqa: PTH208  # pathlib takes as long as all else
            with suppress(ProcessLookupError, PermissionError):
                if os.getpgid(int(name)) == os.getpgrp() and int(name) != os.getpid():
                    members.append(int(name))
    return members


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main())
