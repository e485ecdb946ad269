"""A command in a process group of its own, under a supervisor, its lines handed on as they come. No Prefect in here.

    a flow's process --stdin--> _supervise.py --> dvc repro --> sh --> python -m loupe.stages.train

A trainer that outlives its run costs money and writes where the next one writes. So whatever ends the flow's process
ends the whole group: an exception, Prefect's SIGTERM, `kill -9`. The trainer has LOUPE_GRACE seconds (25) from SIGTERM
on to write a checkpoint.
"""

from __future__ import annotations

import codecs
import os
import re
import selectors
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from flows._supervise import GRACE, UNKILLABLE
from loupe.errors import InputError

SUPERVISOR = Path(__file__).with_name("_supervise.py")
TAIL = 20  # lines that an error shows
LINE = 10_000  # characters; a longer line is handed on in pieces
PIPE = 1 << 20  # bytes; no pipe holds more
PAUSE = 0.1  # seconds until it is looked again whether the group has ended, or was told to

_running: set[_Child] = set()


class ChildError(InputError):
    """A command failed: `command`, its exit `code` (128 + n if signal n ended it), and the last lines of its output."""

    def __init__(self, command: Sequence[str], code: int, tail: Sequence[str]) -> None:
        super().__init__(command, code, tail)
        self.command, self.code, self.tail = tuple(command), code, tuple(tail)

    def __str__(self) -> str:
        name = shlex.join([Path(self.command[0]).name, *self.command[1:]])
        ended = f"ended with code {self.code}"
        with suppress(ValueError):
            ended = f"was ended by {signal.Signals(self.code - 128).name}"
        if self.code == 128 + signal.SIGKILL:
            ended += ", as Linux does when memory is short"
        return "\n  ".join([f"`{name}` {ended}" + (":" if self.tail else ""), *self.tail])


class Interrupted(SystemExit):  # it is no error
    """`end_all` ended the command."""


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    say: Callable[[str], object] = print,
    ok: Collection[int] = (0,),
    echo: bool = True,
) -> str:
    """Run a command to its end. When this returns or raises, nothing of its process group is left.

    Whatever interrupts the calling thread (KeyboardInterrupt, Prefect's TerminationSignal, a timeout, an exception of
    `say`) goes on after the group has ended; what it prints until then is still said.

    Args:
        command: the program and its arguments; no shell sees them. It reads an empty stdin.
        cwd: the folder to run in.
        env: the whole environment; without, that of this process.
        say: receives the lines of stdout and stderr as they come, without their ends, empty ones left out, in the
            calling thread. A carriage return, as progress bars print it, ends a line too.
        ok: exit codes that are no error.
        echo: whether lines of stdout are said. Turn it off for what a program reads.

    Returns:
        What the command wrote to stdout, as it is; bytes that are no UTF-8 are replaced.

    Raises:
        ChildError: another exit code than those of `ok`; 127 if there is no such program.
        InputError: `cwd` is no folder, or LOUPE_GRACE no number.
        Interrupted: see `end_all`.
    """
    environment = os.environ if env is None else env
    seconds = grace(environment)
    if not cwd.is_dir():
        raise InputError(f"{cwd}: no such folder; `{Path(command[0]).name}` was to run there")
    child = _Child(command, cwd, environment, seconds, say, echo)
    try:
        _running.add(child)
        try:
            child.follow()
        except BaseException:
            child.end()
            raise
    finally:
        _running.discard(child)
        child.close()
    code = child.process.returncode
    code = 128 - code if code < 0 else code  # the supervisor itself was killed
    if code not in ok:
        raise ChildError(command, code, list(child.tail))
    return "".join(child.stdout)


def end_all() -> None:
    """Have all commands end that `run` runs in this process; there it raises Interrupted, in whatever thread.

    Prefect interrupts a flow in its main thread only, and then waits for the tasks that were submitted to other
    threads: a flow that submits tasks calls this when an exception passes.
    """
    for child in list(_running):
        child.told.set()


def grace(environment: Mapping[str, str]) -> float:
    """Seconds from SIGTERM to SIGKILL: LOUPE_GRACE, else GRACE.

    Raises:
        InputError: it is no number of seconds.
    """
    text = environment.get("LOUPE_GRACE", "")
    with suppress(ValueError):
        seconds = float(text) if text else GRACE
        if 0 <= seconds < float("inf"):
            return seconds
    raise InputError(f"LOUPE_GRACE={text}: set it to a number of seconds, or leave it out")


class _Child:
    """A running command and what has come from it.

    tail: the last lines. stdout: its text, in pieces. told: set to end it.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        grace: float,
        say: Callable[[str], object],
        echo: bool,
    ) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self.stdout: list[str] = []
        self.told = threading.Event()
        self._grace, self._say, self._echo = grace, say, echo
        self._ending = False
        # -I -S: the environment and site-packages do not concern the supervisor, and it starts sooner without
        supervisor = [sys.executable, "-I", "-S", str(SUPERVISOR), "--", *command]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            supervisor, cwd=cwd, env=env, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True
        )
        self._selector = selectors.DefaultSelector()
        for stream, is_stdout in ((self.process.stdout, True), (self.process.stderr, False)):
            assert stream is not None  # noqa: S101  # for the type checker
            self._selector.register(stream.fileno(), selectors.EVENT_READ, _Lines(is_stdout))

    def follow(self, until: float = float("inf")) -> None:
        """Hand on what comes until the group has ended, or the clock says `until`.

        Raises:
            Interrupted: `told` was set.
            Exception: what `say` raises, but while the group is being ended.
        """
        while time.monotonic() < until:
            if self.told.is_set() and not self._ending:
                raise Interrupted(128 + signal.SIGTERM)
            ended = self.process.poll() is not None  # asked first: what was written before the end is read below
            open_streams = bool(self._selector.get_map())
            # A daemon that left the group may keep the pipes open: when the supervisor has ended they do not count.
            wait = 0 if ended else PAUSE if open_streams else PAUSE / 10
            for key, _ in self._selector.select(wait):
                self._read(key.fd, key.data)
            if ended:
                for key in list(self._selector.get_map().values()):
                    self._hand_on(key.data.rest(), key.data.is_stdout)
                return

    def end(self) -> None:
        """End the group, by closing the supervisor's stdin, and wait until it has ended.

        What interrupts the waiting is raised when it is over: it must not be lost, nor leave a trainer behind.
        """
        self._ending = True
        assert self.process.stdin is not None  # noqa: S101  # for the type checker
        self.process.stdin.close()
        until = time.monotonic() + self._grace + 2 * UNKILLABLE
        late: BaseException | None = None
        while self.process.poll() is None and time.monotonic() < until:
            try:
                self.follow(until)
            except BaseException as error:
                late = error
        if late is not None:
            raise late

    def close(self) -> None:
        """Kill what the supervisor has left, and close the pipes."""
        code = self.process.poll()
        if code is None or code < 0 or sys.platform != "linux":  # it hangs, it was killed itself, or it cannot look
            with suppress(ProcessLookupError, PermissionError):  # macOS says the second where only zombies are left
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._selector.close()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None  # noqa: S101  # for the type checker
            stream.close()

    def _read(self, stream: int, lines: _Lines) -> None:
        data = os.read(stream, PIPE)
        text, whole = lines.add(data)
        if lines.is_stdout:
            self.stdout.append(text)
        if not data:
            self._selector.unregister(stream)
            whole += lines.rest()
        self._hand_on(whole, lines.is_stdout)

    def _hand_on(self, lines: list[str], is_stdout: bool) -> None:
        self.tail.extend(lines)
        for line in lines if self._echo or not is_stdout else ():
            with suppress(*(Exception,) if self._ending else ()):
                self._say(line)


class _Lines:
    """Lines of a stream of bytes."""

    def __init__(self, is_stdout: bool) -> None:
        self.is_stdout = is_stdout
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        self._begun = ""

    def add(self, data: bytes) -> tuple[str, list[str]]:
        """The text of `data`, the end of the stream if it is empty; and the lines that have become whole."""
        text = self._decode(data, final=not data)
        lines = re.split(r"[\r\n]", self._begun + text)
        pieces = [line[at : at + LINE] for line in lines for at in range(0, len(line) or 1, LINE)]
        self._begun = pieces.pop()
        return text, [piece for piece in pieces if piece.strip()]

    def rest(self) -> list[str]:
        """The last line, where nothing ended it."""
        rest, self._begun = self._begun, ""
        return [rest] if rest.strip() else []
