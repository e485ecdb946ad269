"""Commands as flows run them: what they say, how they end, and that nothing of them is left, by real processes."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from tests.flows.processes import living, marked, wait_for

from flows.child import LINE, ChildError, Interrupted, end_all, run
from loupe.errors import InputError

ROOT = Path(__file__).parents[2]

# A trainer: says that it runs, and on SIGTERM writes a checkpoint, which takes a while.
TRAINER = """
import pathlib, signal, sys, time
def save(*_):
    print("saving", flush=True)
    time.sleep(0.3)
    pathlib.Path("checkpoint").write_text("whole")
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("running").touch()
print("training", flush=True)
time.sleep(60)
"""
STUBBORN = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("running").touch()
print("training", flush=True)
time.sleep(60)
"""
# What a flow's process does; a shell between it and the trainer, as with `dvc repro`.
FLOW = """
import pathlib, sys
from flows.child import run
run(["sh", "-c", f"{sys.executable} {sys.argv[1]}; true"], cwd=pathlib.Path.cwd())
"""


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Every process that the test starts carries it."""
    with marked() as value:
        monkeypatch.setenv("LOUPE_RUN_ID", value)
        yield value


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def through_a_shell(tmp_path: Path, script: str) -> list[str]:
    (tmp_path / "trainer.py").write_text(script)
    return ["sh", "-c", f"{sys.executable} trainer.py; true"]


def test_lines_are_said_as_they_come_and_stdout_is_returned(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "print('one', flush=True); time.sleep(0.3)\n"
        "sys.stderr.write('10 %\\r50 %\\r'); sys.stderr.flush(); time.sleep(0.3)\n"
        "sys.stderr.write('100 %\\n\\n'); sys.stderr.flush(); time.sleep(0.3)\n"
        "print('two\\r\\n\\nthree', end='')"
    )
    said: list[tuple[float, str]] = []
    out = run(python(code), cwd=tmp_path, say=lambda line: said.append((time.monotonic(), line)))
    assert out == "one\ntwo\r\n\nthree"
    assert [line for _, line in said] == ["one", "10 %", "50 %", "100 %", "two", "three"]
    assert said[3][0] - said[0][0] > 0.5, "they came when they were printed"


def test_stdout_that_a_program_reads_is_not_said(tmp_path: Path) -> None:
    said: list[str] = []
    out = run(
        python("import sys; print('{}'); print('note', file=sys.stderr)"), cwd=tmp_path, say=said.append, echo=False
    )
    assert (out, said) == ("{}\n", ["note"])


def test_both_pipes_may_be_flooded(tmp_path: Path) -> None:
    code = (
        "import os, threading\n"
        "def flood(fd, text):\n"
        "    for number in range(200): os.write(fd, (text * 999 + '\\n').encode() * 10)\n"
        "threads = [threading.Thread(target=flood, args=pair) for pair in ((1, 'äö'), (2, 'x'))]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]"
    )
    said: list[str] = []
    out = run(python(code), cwd=tmp_path, say=said.append)
    assert out == ("äö" * 999 + "\n") * 2000
    assert said.count("äö" * 999) == 2000
    assert said.count("x" * 999) == 2000


def test_a_line_without_end_is_said_in_pieces(tmp_path: Path) -> None:
    said: list[str] = []
    out = run(python(f"print('x' * {3 * LINE + 5}, end='')"), cwd=tmp_path, say=said.append)
    assert len(out) == 3 * LINE + 5
    assert "".join(said) == out
    assert max(map(len, said)) == LINE


def test_what_is_no_utf8_is_replaced(tmp_path: Path) -> None:
    assert run(python(r"import os; os.write(1, b'a\xff\xc3')"), cwd=tmp_path, say=len) == "a\ufffd\ufffd"


def test_the_environment_is_the_given_one_and_stdin_is_empty(tmp_path: Path) -> None:
    code = "import os, sys; print(sorted(os.environ.keys() - {'LC_CTYPE'}), sys.stdin.read(), os.getcwd())"
    assert run(python(code), cwd=tmp_path, env={"A": "1"}, say=len) == f"['A']  {tmp_path}\n"


def test_a_failure_names_the_command_its_code_and_its_last_words(tmp_path: Path) -> None:
    code = "import sys; print('fetching'); sys.stdout.flush(); sys.exit('no such remote')"
    with pytest.raises(ChildError) as caught:
        run(python(code), cwd=tmp_path, say=len)
    error = caught.value
    assert (error.code, error.tail) == (1, ("fetching", "no such remote"))
    assert str(error).startswith(f"`{Path(sys.executable).name} -c ")
    assert str(error).endswith("ended with code 1:\n  fetching\n  no such remote")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  # Prefect stores what a task raises
    assert (str(again), again.code) == (str(error), 1)
    assert run(python(code), cwd=tmp_path, say=len, ok=(0, 1)) == "fetching\n"


def test_a_signal_is_named(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"was ended by SIGKILL, as Linux does when memory is short$"):
        run(python("import os; os.kill(os.getpid(), 9)"), cwd=tmp_path)


def test_wrong_use_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChildError, match="`no-such-program` ended with code 127:\n  no-such-program: No such file"):
        run(["no-such-program"], cwd=tmp_path, say=len)
    with pytest.raises(InputError, match="gone: no such folder; `dvc` was to run there"):
        run(["dvc"], cwd=tmp_path / "gone")
    for wrong in ("soon", "nan", "-1"):
        monkeypatch.setenv("LOUPE_GRACE", wrong)
        with pytest.raises(InputError, match=f"LOUPE_GRACE={wrong}: set it to a number"):
            run(["true"], cwd=tmp_path)


def test_an_exception_of_say_ends_the_group(tmp_path: Path, mark: str) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        raise RuntimeError(f"the log is closed: {line}")

    with pytest.raises(RuntimeError, match="the log is closed: training"):
        run(through_a_shell(tmp_path, TRAINER), cwd=tmp_path, say=say)
    assert living(mark) == []
    assert (tmp_path / "checkpoint").read_text() == "whole", "the trainer had time"
    assert said == ["training", "saving", "saved"], "what it says meanwhile is said"


def test_sigterm_that_is_ignored_becomes_sigkill(tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_GRACE", "0.5")

    def say(_: str) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run(through_a_shell(tmp_path, STUBBORN), cwd=tmp_path, say=say)
    assert living(mark) == []
    assert 0.5 < time.monotonic() - started < 10


def test_what_the_command_leaves_running_is_ended(tmp_path: Path, mark: str) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    wait = "while ! [ -e running ]; do sleep 0.02; done"
    assert run(["sh", "-c", f"{sys.executable} trainer.py >&2 & {wait}; echo done"], cwd=tmp_path, say=len) == "done\n"
    assert living(mark) == []
    assert (tmp_path / "checkpoint").exists()


def test_a_daemon_that_keeps_the_pipes_open_is_not_waited_for(tmp_path: Path, mark: str) -> None:
    code = (
        "import os, time\n"
        "print('one', flush=True)\n"
        "if os.fork(): time.sleep(0.5); os._exit(0)\n"
        "os.setsid(); time.sleep(60)"
    )
    started = time.monotonic()
    assert run(python(code), cwd=tmp_path, say=len) == "one\n"
    assert time.monotonic() - started < 10
    assert len(living(mark)) == 1, "it has left the group; flows/reap.py finds it"


class Flow:
    """A flow's process that runs a trainer."""

    def __init__(self, folder: Path, script: str, **env: str) -> None:
        (folder / "trainer.py").write_text(script)
        self.folder = folder
        self.process = subprocess.Popen(
            [*python(FLOW), "trainer.py"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert wait_for((folder / "running").exists), self.process.communicate()

    def send(self, number: int) -> None:
        """A signal to it alone."""
        os.kill(self.process.pid, number)
        self.process.communicate(timeout=30)


def test_kill_9_of_the_flow_ends_the_group(tmp_path: Path, mark: str) -> None:
    flow = Flow(tmp_path, TRAINER)
    flow.send(signal.SIGKILL)
    assert wait_for(lambda: not living(mark)), "something outlived the flow"
    assert (tmp_path / "checkpoint").read_text() == "whole"


def test_kill_9_of_the_flow_ends_what_ignores_sigterm(tmp_path: Path, mark: str) -> None:
    flow = Flow(tmp_path, STUBBORN, LOUPE_GRACE="0.5")
    flow.send(signal.SIGKILL)
    assert len(living(mark)) > 1, "they have their time"
    assert wait_for(lambda: not living(mark)), "something outlived the flow"


def test_ctrl_c_ends_the_group_first(tmp_path: Path, mark: str) -> None:
    flow = Flow(tmp_path, TRAINER)
    flow.send(signal.SIGINT)
    assert living(mark) == []
    assert (tmp_path / "checkpoint").read_text() == "whole"
    assert flow.process.returncode == -signal.SIGINT


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_ends_the_group(tmp_path: Path, mark: str, sent: signal.Signals) -> None:
    flow = Flow(tmp_path, TRAINER)
    supervisor = psutil.Process(flow.process.pid).children()[0]
    supervisor.send_signal(sent)
    output, _ = flow.process.communicate(timeout=30)
    assert living(mark) == []
    assert (tmp_path / "checkpoint").read_text() == "whole"
    assert b"ChildError" in output


def test_kill_9_of_the_supervisor_ends_the_command(tmp_path: Path, mark: str) -> None:
    flow = Flow(tmp_path, STUBBORN)
    psutil.Process(flow.process.pid).children()[0].kill()
    output, _ = flow.process.communicate(timeout=30)
    assert living(mark) == []
    assert b"was ended by SIGKILL" in output


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell a process that its parent has died")
def test_kill_9_of_both_ends_the_command(tmp_path: Path, mark: str) -> None:
    (tmp_path / "trainer.py").write_text(STUBBORN)
    code = (
        "import pathlib, sys; from flows.child import run; run([sys.executable, 'trainer.py'], cwd=pathlib.Path('.'))"
    )
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    flow = subprocess.Popen(python(code), cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    assert wait_for((tmp_path / "running").exists)
    supervisor = psutil.Process(flow.pid).children()[0]
    flow.send_signal(signal.SIGSTOP)  # it cannot react
    supervisor.kill()
    flow.kill()
    flow.wait()
    assert wait_for(lambda: not living(mark), 5), "the command outlived its supervisor"


def test_end_all_ends_commands_of_other_threads(tmp_path: Path, mark: str) -> None:
    raised: list[BaseException] = []

    def task() -> None:
        try:
            run(through_a_shell(tmp_path, TRAINER), cwd=tmp_path, say=len)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=task)
    thread.start()
    assert wait_for((tmp_path / "running").exists)
    end_all()
    thread.join(20)
    assert [type(error) for error in raised] == [Interrupted]
    assert living(mark) == []
    assert (tmp_path / "checkpoint").exists()
    assert run(["true"], cwd=tmp_path) == "", "later commands run"


def test_an_interrupt_while_the_group_ends_is_raised_when_it_has(tmp_path: Path, mark: str) -> None:
    def say(line: str) -> None:
        if line == "saving":  # SIGTERM of Prefect, while the group ends for another reason
            raise KeyboardInterrupt
        raise RuntimeError

    with pytest.raises(KeyboardInterrupt):
        run(through_a_shell(tmp_path, TRAINER), cwd=tmp_path, say=say)
    assert living(mark) == []
    assert (tmp_path / "checkpoint").exists()


# How Prefect interrupts what runs: `direct` in the flow's thread, `submitted` in another, `late` by a task's timeout.
PREFECT_FLOW = """
import pathlib, sys
from prefect import flow, task
from flows.child import end_all, run

FOLDER, HOW = pathlib.Path(sys.argv[1]), sys.argv[2]

@task(timeout_seconds=2 if HOW == "late" else None, retries=1)
def train():
    (FOLDER / "tries").open("a").write("x")
    run(["sh", "-c", f"{sys.executable} trainer.py; true"], cwd=FOLDER)

@flow
def retrain():
    try:
        train() if HOW == "direct" else train.submit().result()
    except BaseException:
        end_all()
        raise

retrain()
"""


@pytest.mark.parametrize("how", ["direct", "submitted", "late"])
def test_prefect_interrupts_a_command(
    how: str, tmp_path: Path, mark: str, prefect_server: str, prefect_env: dict[str, str]
) -> None:
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "flow.py").write_text(PREFECT_FLOW)
    env = {
        "PREFECT_API_URL": prefect_server,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "LOUPE_RUN_ID": mark,
    }
    flow = subprocess.Popen(
        [sys.executable, "flow.py", str(tmp_path), how],
        cwd=tmp_path,
        env=prefect_env | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert wait_for((tmp_path / "running").exists, 60), flow.communicate()
    if how != "late":
        flow.terminate()
    output, _ = flow.communicate(timeout=60)
    assert living(mark) == [], output
    assert (tmp_path / "checkpoint").read_text() == "whole"
    assert "saved" in output
    assert ("TimedOut" if how == "late" else "aborted by a termination signal") in output
    assert (tmp_path / "tries").read_text() == ("xx" if how == "late" else "x"), "what was ended is not tried again"
