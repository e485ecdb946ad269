"""The first process of a simulated machine: starts its user-data, adopts what that leaves behind, and ends all of it.

    python init.py USER-DATA CONSOLE < commands > answers

As PID 1 of a real machine it is the parent of whatever loses its own (PR_SET_CHILD_SUBREAPER): a process that makes
itself a daemon is still below it. Like a kernel it lives on when the user-data has ended. A command is one byte:

    t   SIGTERM to all, as a system that shuts down sends it; the answer comes when nothing is left
    s   SIGSTOP to all: a machine that hangs
    k   SIGKILL to all, and the end. The end of the input means the same: nothing outlives a killed test.

When it is done, the same byte is the answer.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36


def start(program: str, console: str) -> None:
    """The user-data in a session of its own, with what it says in the console; what is no program is only told of."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, console, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:  # Python ignores SIGPIPE, programs do not
        os.posix_spawn(program, [program], os.environ, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE])
    except OSError as error:
        print(f"the user-data cannot be run: {error}", file=sys.stderr, flush=True)


def reap() -> bool:
    """Takes note of processes that have ended. Whether any is left: init is the parent, in the end, of all."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def send(number: signal.Signals) -> None:
    """A signal to all; to those, too, that are started while it is sent."""
    told: set[psutil.Process] = set()
    while reap() and (new := set(psutil.Process().children(recursive=True)) - told):
        for process in new:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        told |= new


def main() -> None:
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError("prctl(PR_SET_CHILD_SUBREAPER) failed")
    start(*sys.argv[1:3])
    ending = False
    while True:
        ready, _, _ = select.select([0], [], [], 0.02 if ending else 0.5)
        if not ready:
            if not reap() and ending:
                ending = False
                os.write(1, b"t")
            continue
        command = os.read(0, 1) or b"k"
        if command == b"t":
            send(signal.SIGTERM)
            ending = True
        elif command == b"s":
            send(signal.SIGSTOP)
            os.write(1, b"s")
        else:
            send(signal.SIGSTOP)  # first, so that none sees another die, and says so
            while reap():
                send(signal.SIGKILL)
                time.sleep(0.002)
            with contextlib.suppress(BrokenPipeError):
                os.write(1, b"k")
            return


if __name__ == "__main__":
    main()
