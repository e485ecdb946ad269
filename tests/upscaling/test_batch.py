"""Many pictures: nothing lost, nothing torn, nothing done twice, whatever happens in between."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tests.conftest import picture
from tests.horrors import make_horrors
from tests.upscaling.enlargers import Repeating

from loupe.errors import InputError
from loupe.imaging.files import write_png
from loupe.imaging.resize import Pixels
from loupe.upscaling import batch
from loupe.upscaling.pictures import read_picture, write_picture
from loupe.upscaling.upscaler import Upscaler

ROOT = Path(__file__).parents[2]


def run(
    source: Path, out: Path, kind: str = "", identity: str = "one", enlarger: Repeating | None = None
) -> tuple[dict[str, Any], list[batch.Outcome]]:
    outcomes: list[batch.Outcome] = []
    jobs = batch.plan([source], out, kind)
    upscaler = Upscaler(enlarger or Repeating(), identity=identity)
    return batch.run(jobs, upscaler, out, kind, batch.Stop(), outcomes.append), outcomes


def fill(folder: Path, count: int) -> Path:
    for number in range(count):
        write_png(folder / f"{number % 3}" / f"{number}.png", picture(number, 40, 50))
    return folder


def whole(out: Path, count: int) -> bool:
    """Whether each of the pictures of `fill` is there, twice the size and with the right pixels."""
    for number in range(count):
        with Image.open(out / f"{number % 3}" / f"{number}.png") as image:
            expected = picture(number, 40, 50).repeat(2, axis=0).repeat(2, axis=1)
            if not np.array_equal(np.asarray(image), expected):
                return False
    return True


def parts(out: Path) -> list[Path]:
    return list(out.rglob(".*.part"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "in", 6)


def test_folders_keep_their_names_and_a_second_run_does_nothing(folder: Path, tmp_path: Path) -> None:
    found, outcomes = run(folder, tmp_path / "out")
    assert (found["done"], found["skipped"], found["failed"]) == (6, 0, 0)
    assert [outcome.job.source for outcome in outcomes] == sorted(folder.rglob("*.png"))
    assert whole(tmp_path / "out", 6)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}
    found, _ = run(folder, tmp_path / "out")
    assert (found["done"], found["skipped"]) == (0, 6)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}


def test_what_changed_is_made_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(folder, out)
    write_png(folder / "0" / "0.png", picture(99, 40, 50))  # another input
    (out / "1" / "1.png").unlink()  # a lost output
    (out / "2" / "2.png").write_bytes(b"torn by another program")
    assert run(folder, out)[0]["done"] == 3
    assert run(folder, out, identity="two")[0]["done"] == 6  # another model
    assert run(folder, out, kind="webp", identity="two")[0]["done"] == 6  # another format
    assert sorted(path.suffix for path in out.rglob("*.*") if path.parent != out) == [".png"] * 6 + [".webp"] * 6
    journal = out / batch.JOURNAL
    journal.write_text(journal.read_text()[:-20] + "\nnonsense\n[]\n{}\n")  # as a kill or an editor leaves it
    assert run(folder, out, kind="webp", identity="two")[0]["done"] == 1


def test_the_folder_of_horrors(tmp_path: Path) -> None:
    """Every file with an image's suffix ends as a right picture or as a failure with a reason."""
    horrors = make_horrors(tmp_path / "in")
    out = tmp_path / "out"
    found, outcomes = run(tmp_path / "in", out)
    assert found["done"] + found["failed"] == len(outcomes) == sum(horror.listed for horror in horrors.values())
    by_path = {horror.path: horror for horror in horrors.values()}
    for outcome in outcomes:
        source, target = outcome.job.source, outcome.job.target
        assert isinstance(source, Path)
        assert isinstance(target, Path)
        horror = by_path[source]
        if outcome.state == "done":
            assert not horror.error or horror.error.startswith(("refused: a link", "refused: cannot be read"))
            with Image.open(source) as before, Image.open(target) as after:
                width, height = ImageOps.exif_transpose(before).size
                assert after.size == (2 * width, 2 * height)
                assert after.format == before.format
                after.load()
        else:
            assert outcome.reason.startswith(horror.error or "refused: 131000 x 24 pixels are more than JPEG can hold")
            assert not target.exists()
    named = [json.loads(line) for line in (out / batch.FAILURES).read_text().splitlines()]
    assert named == found["failures"]
    assert len(named) == found["failed"] > 9
    assert not parts(out)


def test_failures_of_a_former_run_are_forgotten(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    run(folder, out)
    assert "bad.png" in (out / batch.FAILURES).read_text()
    (folder / "bad.png").unlink()
    assert run(folder, out)[0]["skipped"] == 6
    assert not (out / batch.FAILURES).exists()


def test_a_failing_network_fails_its_picture_only(folder: Path, tmp_path: Path) -> None:
    class Failing(Repeating):
        calls = 0

        def __call__(self, batch: Pixels) -> Pixels:
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("primitive could not be created")
            return super().__call__(batch)

    found, _ = run(folder, tmp_path / "out", enlarger=Failing())
    assert (found["done"], found["failed"]) == (5, 1)
    assert found["failures"][0]["reason"] == "RuntimeError: primitive could not be created"


def test_decoding_network_and_encoding_run_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the network holds one picture, the next has been read and the last is being written."""
    at_once = threading.Barrier(3, timeout=20)  # breaks unless all three are there at the same time
    met = []

    def meet(step: str, number: int) -> None:
        if number == {"read": 2, "network": 1, "write": 0}[step]:
            at_once.wait()
            met.append(step)

    def numbered(path: Path) -> int:
        return int(path.stem)

    def read(path: Path, *rest: Any) -> Any:
        meet("read", numbered(path))
        return read_picture(path, *rest)

    def write(path: Path, made: Any) -> Any:
        meet("write", numbered(path))
        return write_picture(path, made)

    class Meeting(Repeating):
        calls = 0

        def __call__(self, batch: Pixels) -> Pixels:
            meet("network", self.calls)
            self.calls += 1
            return super().__call__(batch)

    monkeypatch.setattr(batch, "read_picture", read)
    monkeypatch.setattr(batch, "write_picture", write)
    for number in range(5):
        write_png(tmp_path / "in" / f"{number}.png", picture(number, 20, 20))
    assert run(tmp_path / "in", tmp_path / "out", enlarger=Meeting())[0]["done"] == 5
    assert sorted(met) == ["network", "read", "write"]


def test_inputs_stay_what_they_are(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"in: is the folder of the pictures themselves"):
        batch.plan([folder], folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(InputError, match=r"link: is the folder of the pictures themselves"):
        batch.plan([folder], tmp_path / "link")
    with pytest.raises(InputError, match=r"0.png: would replace itself"):
        batch.plan([folder / "0" / "0.png"], folder / "0")
    with pytest.raises(InputError, match=r"0.png: would replace itself"):
        batch.plan([folder / "0" / "0.png"], folder / "0" / "0.png")
    with pytest.raises(InputError, match=r"would both become .*0.png; rename one"):
        batch.plan([folder, folder / "0" / "0.png", folder / "0"], tmp_path / "out")
    with pytest.raises(
        InputError, match=r"new/0.png: would replace .*in/0/x/../0.png, an input; choose another folder"
    ):
        write_png(tmp_path / "new" / "0" / "0.png", picture(1, 20, 20))
        write_png(tmp_path / "new" / "0.png", picture(1, 20, 20))
        batch.plan([tmp_path / "new" / "0.png", folder / "0" / "0.png"], folder / "0" / "x" / "..")
    with pytest.raises(InputError, match="is a file; give a folder"):
        batch.plan([folder], folder / "0" / "0.png")
    with pytest.raises(InputError, match="no images here"):
        (tmp_path / "none").mkdir()
        batch.plan([tmp_path / "none"], tmp_path / "out")
    with pytest.raises(InputError, match="no format 'psd'; there are png, jpeg"):
        batch.plan([folder], tmp_path / "out", "psd")


def test_an_output_folder_among_the_inputs_is_not_read(folder: Path) -> None:
    assert run(folder, folder / "out")[0]["done"] == 6
    found, _ = run(folder, folder / "out")
    assert (found["done"], found["skipped"]) == (0, 6)


def test_an_output_folder_is_known_however_it_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    for source, out in ((folder, Path("out")), (Path(), folder / "out"), (Path(), Path("0/../out"))):
        write_png(folder / "out" / "old.png", picture(1, 20, 20))
        assert {Path(str(job.source)).name for job in batch.plan([source], out)} == {
            f"{number}.png" for number in range(6)
        }
    monkeypatch.chdir(tmp_path)
    targets = {job.target for job in batch.plan([folder], Path())}
    assert Path("0/0.png") in targets, "a folder above the pictures does not hide them"
    write_png(tmp_path / "new" / "9.png", picture(1, 20, 20))
    sources = {job.source for job in batch.plan([tmp_path / "new", folder / "0"], folder)}
    assert folder / "0" / "0.png" in sources, "what was named is an input, whatever lies around it"


def test_two_runs_into_one_folder(folder: Path, tmp_path: Path) -> None:
    with (
        batch.Journal(tmp_path / "out"),
        pytest.raises(InputError, match=r"out: another run is writing here; wait for it"),
    ):
        run(folder, tmp_path / "out")
    assert run(folder, tmp_path / "out")[0]["done"] == 6


@dataclass
class Started:
    """A slow run in a process of its own."""

    process: subprocess.Popen[str]

    def lines(self, count: int) -> list[str]:
        assert self.process.stdout
        return [self.process.stdout.readline().strip() for _ in range(count)]


@pytest.fixture
def slow_run() -> Iterator[Callable[[Path, Path], Started]]:
    with ExitStack() as stack:

        def start(source: Path, out: Path) -> Started:
            command = [sys.executable, "-m", "tests.upscaling.slow_run", str(source), str(out)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return Started(process)

        yield start


def test_killed_ten_times_and_run_again(tmp_path: Path, slow_run: Callable[[Path, Path], Started]) -> None:
    source, out = fill(tmp_path / "in", 30), tmp_path / "out"
    chance = random.Random(0)
    for _ in range(10):
        started = slow_run(source, out)
        started.lines(1)
        time.sleep(chance.uniform(0, 0.3))
        started.process.kill()
        started.process.wait()
        for path in out.rglob("*.png"):
            with Image.open(path) as image:
                image.load()  # nothing torn ever has a picture's name
    done_before = sum(1 for _ in out.rglob("*.png"))
    last = slow_run(source, out)
    said = last.process.communicate(timeout=60)[0].split("\n")
    assert last.process.returncode == 0
    assert whole(out, 30)
    assert not parts(out)
    assert 0 < said.count("skipped") <= done_before
    assert said.count("done") + said.count("skipped") == 30


def test_interrupted_once_the_pictures_at_work_are_finished(
    tmp_path: Path, slow_run: Callable[[Path, Path], Started]
) -> None:
    source, out = fill(tmp_path / "in", 30), tmp_path / "out"
    started = slow_run(source, out)
    assert started.lines(3) == ["begun", "done", "done"]
    started.process.send_signal(signal.SIGINT)
    said = started.process.communicate(timeout=60)[0]
    assert started.process.returncode == 130
    assert "finishing the pictures at work; Ctrl-C again to stop at once" in said
    assert "interrupted; run again, it goes on where it stopped" in said
    written = sum(1 for _ in out.rglob("*.png"))
    assert written == 2 + said.split().count("done") < 30
    assert not parts(out)
    again = slow_run(source, out)
    assert again.process.communicate(timeout=60)[0].split().count("skipped") == written
    assert whole(out, 30)


def test_interrupted_twice_it_stops_at_once(tmp_path: Path, slow_run: Callable[[Path, Path], Started]) -> None:
    source, out = fill(tmp_path / "in", 30), tmp_path / "out"
    started = slow_run(source, out)
    started.lines(2)
    started.process.send_signal(signal.SIGINT)
    while "finishing" not in started.lines(1)[0]:
        pass
    started.process.send_signal(signal.SIGINT)
    assert started.process.wait(timeout=20) in (130, -signal.SIGINT)
    for path in out.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
    assert slow_run(source, out).process.wait(timeout=60) == 0
    assert whole(out, 30)


def test_a_full_disk_stops_with_a_word_and_nothing_torn(tmp_path: Path) -> None:
    """On a real disk of 100 kB, in a mount namespace of its own."""
    source, out = fill(tmp_path / "in", 30), tmp_path / "out"
    out.mkdir()
    script = (
        f"mount -t tmpfs -o size=100k none {out} && {sys.executable} -m tests.upscaling.slow_run {source} {out}; "
        f"code=$?; ls -A {out}/*; exit $code"
    )
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    if shutil.which("unshare") is None or subprocess.run([*command[:4], "true"], check=False).returncode:
        pytest.skip("needs user namespaces to mount a small disk")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "no room left on the disk; make room and run again, it goes on" in done.stdout
    assert done.stdout.split().count("failed") <= 3  # those that were being written
    assert done.stdout.split().count("left") > 10
    assert ".part" not in done.stdout


def test_names_that_are_as_long_as_names_can_be(tmp_path: Path) -> None:
    name = "ž" * 125 + ".png"
    assert len(os.fsencode(name)) == 254
    write_png(tmp_path / "in" / name, picture(1, 8, 8))
    assert run(tmp_path / "in", tmp_path / "out")[0]["done"] == 1
    assert (tmp_path / "out" / name).exists()


def test_a_dry_run_reads_everything_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "bad.png").write_bytes(b"nothing")
    out = tmp_path / "out"
    outcomes: list[batch.Outcome] = []
    jobs = batch.plan([folder], out)
    found = batch.run(jobs, Upscaler(Repeating()), out, "", batch.Stop(), outcomes.append, dry=True)
    assert (found["left"], found["failed"]) == (6, 1)
    assert not out.exists()
    assert {outcome.size for outcome in outcomes if outcome.state == "left"} == {(50, 40)}
