"""Product images in: every file ends accepted or in quarantine, once, whatever happens on the way."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from tests.conftest import S3, fabric
from tests.horrors import make_horrors
from tests.quality.conftest import ROOT, dvc

from loupe.imaging.files import read_image, write_png
from loupe.params import load_params
from loupe.quality import ingest
from loupe.quality.gate import Limit, Limits
from loupe.quality.inbox import InboxError
from loupe.quality.ingest import WORK, Ingested, IngestError, file_name, ingesting
from loupe.quality.sheet import write_sheet

LIMITS = Limits.of(asdict(load_params(ROOT / "params.yaml").quality))


def grain(seed: int, height: int, width: int) -> Image.Image:
    """Fine structure everywhere, so that something of it is left when it is halved."""
    return Image.fromarray(np.random.default_rng(seed).integers(60, 200, (height, width, 3), np.uint8))


def fill(inbox: Path) -> Path:
    """Pictures of every fate: three good ones, one doubled, one JPEG, one too small, one torn, one twice."""
    for number, name in enumerate(["a.png", "shop/b.png", "c.png"]):
        write_png(inbox / name, fabric(number, 420, 440))
    write_png(inbox / "doubled.png", np.repeat(np.repeat(fabric(3, 420, 440), 2, axis=0), 2, axis=1))
    grain(4, 900, 880).save(inbox / "coarse.jpg", quality=50)
    write_png(inbox / "thumb.png", fabric(5, 90, 90))
    (inbox / "torn.png").write_bytes((inbox / "a.png").read_bytes()[:5000])
    shutil.copy(inbox / "a.png", inbox / "z.png")
    (inbox / "prices.csv").write_text("a;1")
    return inbox


def take(inbox: Path | str, clear: bool = False) -> Ingested:
    with ingesting(str(inbox), LIMITS, clear=clear) as ingested:
        return ingested


def tree(folder: Path) -> dict[str, bytes]:
    """What counts of a project's folder: everything below data and quarantine, and data.dvc."""
    paths = [*folder.glob("data/**/*"), *folder.glob("quarantine/**/*"), folder / "data.dvc"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def states(ingested: Ingested) -> dict[str, str]:
    return {decision.name: decision.state for decision in ingested.decisions}


def test_every_picture_ends_where_it_belongs(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    before = {path: path.read_bytes() for path in inbox.rglob("*") if path.is_file()}
    ingested = take(inbox)
    assert states(ingested) == {
        **dict.fromkeys(["a.png", "shop/b.png", "c.png", "doubled.png", "coarse.jpg"], "accepted"),
        **{"thumb.png": "quarantined", "torn.png": "quarantined", "z.png": "duplicate"},
    }
    assert ingested.others == ("prices.csv",)
    assert ingested.before != ingested.after
    files = {decision.name: decision.file for decision in ingested.decisions}
    assert files["shop/b.png"].startswith("shop-b-")
    assert (project / "data/products" / files["a.png"]).read_bytes() == (inbox / "a.png").read_bytes()
    halved = read_image(project / "data/products" / files["doubled.png"]).pixels
    assert np.array_equal(halved, fabric(3, 420, 440))
    assert read_image(project / "data/products" / files["coarse.jpg"]).pixels.shape == (450, 440, 3)
    told = json.loads((project / "data/products" / f"{files['coarse.jpg']}.json").read_text())
    assert told["source"]["name"] == "coarse.jpg"
    assert told["changes"][0].startswith("reduced to 1/2: JPEG had")
    reason = json.loads((project / "quarantine" / f"{files['thumb.png']}.json").read_text())["reason"]
    assert reason == "min side 90, allowed is at least 128 pixels on the shorter side: deliver it larger"
    assert (project / "quarantine" / files["torn.png"]).read_bytes() == (inbox / "torn.png").read_bytes()
    assert {path: path.read_bytes() for path in before} == before, "the inbox is only read"
    dvc(project, "status", "data.dvc")  # fails if DVC does not understand its file


def test_the_same_again_adds_nothing_and_names_do_not_count(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    first = take(inbox)
    after = tree(project)
    (inbox / "a.png").rename(inbox / "renamed.png")
    repaired_one = next(one.file for one in first.decisions if one.name == "doubled.png")
    shutil.copy(project / "data/products" / repaired_one, inbox / "halved-by-us.png")
    shutil.copy(project / "data/products/first.png", inbox / "first-again.png")
    second = take(inbox)
    assert second.count("accepted") == 0
    assert states(second) | {"z.png": "known"} == {
        **{name: "known" for name, state in states(first).items() if state == "accepted" and name != "a.png"},
        **{"renamed.png": "known", "halved-by-us.png": "known", "first-again.png": "known", "z.png": "known"},
        **{"thumb.png": "quarantined", "torn.png": "quarantined"},
    }
    assert tree(project) == after
    assert second.before == second.after == first.after


def test_other_limits_release_from_quarantine(project: Path, tmp_path: Path) -> None:
    write_png(tmp_path / "inbox" / "thumb.png", fabric(5, 90, 90))
    take(tmp_path / "inbox")
    assert len(list((project / "quarantine").iterdir())) == 2
    with ingesting(str(tmp_path / "inbox"), replace(LIMITS, min_side=Limit(50, 50))) as ingested:
        assert ingested.count("accepted") == 1
    assert list((project / "quarantine").iterdir()) == []


def test_a_picture_that_would_be_too_small_after_repair_is_refused_with_both_reasons(
    project: Path, tmp_path: Path
) -> None:
    (tmp_path / "inbox").mkdir()
    grain(4, 200, 200).save(tmp_path / "inbox" / "coarse.jpg", quality=40)
    (decision,) = take(tmp_path / "inbox").decisions
    assert decision.state == "quarantined"
    assert decision.reason.startswith("reduced to 1/2: JPEG had")
    assert "min side 100, allowed is at least 128" in decision.reason
    kept = project / "quarantine" / decision.file
    assert kept.read_bytes() == (tmp_path / "inbox" / "coarse.jpg").read_bytes(), "as it was delivered"


@pytest.mark.timeout(180)
def test_the_folder_of_horrors(project: Path, tmp_path: Path) -> None:
    horrors = make_horrors(tmp_path / "horrors")
    write_png(tmp_path / "horrors" / "<img src=y onerror=alert(1)>.png", fabric(9, 420, 440))
    usable = replace(LIMITS, min_side=Limit(12, 12), min_detail=Limit(None, None), min_sharpness=Limit(None, None))
    before = {path for path in tmp_path.rglob("*") if project not in path.parents}
    root = os.geteuid() == 0
    with ingesting(str(tmp_path / "horrors"), usable) as ingested:
        page = write_sheet(project / "page", ingested).read_text()
        fates = {decision.name: decision for decision in ingested.decisions}
        for name, horror in horrors.items():
            if name in ("link-to-folder/other.png", "link-to-nothing.png") and name not in fates:
                name = name.partition("/")[0]
            fate = fates[name]
            if horror.error and not (root and name == "secret.png"):
                assert fate.state == "quarantined", name
                assert fate.findings[0]["rule"] == "decodable", name
                assert fate.reason.endswith("deliver it again as PNG or JPEG"), name
            else:
                assert fate.state in ("accepted", "quarantined", "duplicate"), name
                assert fate.state != "quarantined" or fate.reason, name
            assert str(tmp_path) not in fate.reason, name
    assert ingested.count("accepted") >= 12
    assert "&lt;img src=y onerror=alert(1)&gt;.png" in page
    assert "<img src=x" not in page
    assert {path for path in tmp_path.rglob("*") if project not in path.parents} == before, "nothing written outside"
    for path in [*(project / "data/products").iterdir(), *(project / "quarantine").iterdir()]:
        assert path.name.isascii()
        assert path.name.isprintable()
        assert len(path.name) < 100
        assert not path.name.startswith(("-", "."))
        assert path.is_file()
        assert not path.is_symlink()
        assert path.stat().st_size < 2**27, "no copy of what is too large to be read"


def test_a_trial_changes_nothing(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    before = tree(project)
    with ingesting(str(inbox), LIMITS, dry_run=True) as ingested:
        page = write_sheet(tmp_path / "page", ingested, dry_run=True).read_text()
    assert ingested.count("accepted") == 5
    assert page.count("data:image/webp") == 6, "five accepted, one too small; the torn one cannot be shown"
    assert "a trial: nothing was taken in" in page
    assert tree(project) == before


def test_clearing_the_inbox_waits_for_the_remote(project: Path, tmp_path: Path, pristine: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    remote = tmp_path / "remote"
    dvc(project, "remote", "add", "--local", "--default", "own", str(remote / "below"))
    remote.write_text("no folder")
    with pytest.raises(IngestError, match="dvc push"):
        take(inbox, clear=True)
    assert len(list(inbox.rglob("*.png"))) == 7, "nothing is removed that is not safe"
    remote.unlink()
    ingested = take(inbox, clear=True)
    assert ingested.cleared == 6
    assert sorted(path.name for path in inbox.rglob("*.*")) == ["prices.csv", "thumb.png", "torn.png"]
    assert any(remote.rglob("*.dir")), "pushed"


def test_missing_products_are_not_forgotten(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    (project / "data/products/first.png").unlink()
    with pytest.raises(IngestError, match=r"names pictures that are not there .*first.png.*dvc pull data.dvc"):
        take(inbox)
    shutil.rmtree(project / "data/products")
    with pytest.raises(IngestError, match=r"dvc pull data.dvc"):
        take(inbox)
    dvc(project, "checkout", "data.dvc")
    assert take(inbox).count("accepted") == 5


def test_wrong_places(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InboxError, match="no such folder"):
        take(tmp_path / "nowhere")
    for place in (project, project / "data", project / "data/products"):
        with pytest.raises(IngestError, match="an inbox is a folder of its own"):
            take(place)
    (project / "data.dvc").write_text("outs:\n- path: data/other\n  md5: 0.dir\n")
    with pytest.raises(IngestError, match=r"does not track data/products"):
        take(tmp_path)
    (project / "data.dvc").unlink()
    with pytest.raises(IngestError, match="run in the project's root folder"):
        take(tmp_path)


def test_only_one_at_a_time(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    WORK.mkdir(parents=True)
    with FileLock(WORK / "lock"), pytest.raises(IngestError, match="another ingest is at work"):
        take(inbox)
    assert take(inbox).count("accepted") == 5


def test_a_file_that_changes_on_the_way_is_left_for_the_next_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "inbox"
    write_png(inbox / "a.png", fabric(1, 420, 440))

    def bar(total: int | None, what: str) -> object:
        if what == "repairing":  # all is measured
            write_png(inbox / "a.png", fabric(2, 420, 440))
        return lambda: None

    with ingesting(str(inbox), LIMITS, bar=bar) as ingested:  # type: ignore[arg-type]
        assert states(ingested) == {"a.png": "changed"}
    assert states(take(inbox)) == {"a.png": "accepted"}


def _one_run(project: str, inbox: str) -> None:
    os.chdir(project)
    os.setpgid(0, 0)
    with ingesting(inbox, LIMITS):
        pass


@pytest.mark.timeout(300)
def test_killed_at_ten_moments_it_ends_as_if_it_had_not_been(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    untouched = tmp_path / "untouched"
    shutil.copytree(project, untouched, symlinks=True)
    take(inbox)
    expected = tree(project)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["loupe.quality.ingest", "great_expectations", "tests.quality.test_ingest"])
    moments = random.Random(6)
    cut = 0
    for _ in range(10):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(untouched, folder, symlinks=True)
        for seconds in (moments.uniform(0.2, 5), None):  # killed, then run to its end
            process = processes.Process(target=_one_run, args=(str(folder), str(inbox)))
            process.start()
            process.join(seconds)
            if process.is_alive():
                cut += 1
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid or 0, signal.SIGKILL)
                process.kill()
                process.join()
        assert process.exitcode == 0
        assert tree(folder) == expected
    assert cut >= 3, "the moments must lie within a run"


@pytest.mark.parametrize("left", ["", "outs:\n- md5: 0a0b", "outs:\n- md5: [\n"])
def test_killed_while_dvc_writes_its_file_it_ends_as_if_it_had_not_been(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    inbox = fill(tmp_path / "inbox")
    shutil.copytree(project, tmp_path / "other", symlinks=True)
    take(inbox)
    expected = tree(project)

    def killed(command: str, *arguments: str) -> str:
        if command == "add":
            Path("data.dvc").write_text(left)
            raise KeyboardInterrupt
        return run_dvc(command, *arguments)

    monkeypatch.chdir(tmp_path / "other")
    run_dvc = ingest.dvc
    monkeypatch.setattr(ingest, "dvc", killed)
    with pytest.raises(KeyboardInterrupt):
        take(inbox)
    monkeypatch.setattr(ingest, "dvc", run_dvc)
    take(inbox)
    assert tree(tmp_path / "other") == expected


def test_the_journey_with_inbox_and_remote_at_s3(project: Path, s3: S3, tmp_path: Path) -> None:
    dvc(project, "remote", "add", "--local", "--default", "s3", f"s3://{s3.bucket}/dvc")
    dvc(project, "remote", "modify", "--local", "s3", "endpointurl", s3.endpoint)
    local = fill(tmp_path / "inbox")
    for path in local.rglob("*.*"):
        s3.client.upload_file(str(path), s3.bucket, f"inbox/{path.relative_to(local)}")
    s3.client.put_object(Bucket=s3.bucket, Key="inbox/../escape.png", Body=(local / "thumb.png").read_bytes())
    ingested = take(f"s3://{s3.bucket}/inbox", clear=True)
    assert ingested.count("accepted") == 5
    left = [entry["Key"] for entry in s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="inbox")["Contents"]]
    assert left == ["inbox/../escape.png", "inbox/prices.csv", "inbox/thumb.png", "inbox/torn.png"]

    take(local)  # the same from a folder: nothing new
    expected = tree(project)
    elsewhere = tmp_path / "elsewhere"  # another machine gets them from the remote
    shutil.copytree(project, elsewhere, ignore=shutil.ignore_patterns("products", "cache"))
    dvc(elsewhere, "pull", "data.dvc")
    names = {name for name in expected if name.startswith("data/products/")}
    assert {name for name in tree(elsewhere) if name.startswith("data/products/")} == names


def test_two_at_once_do_not_mix(project: Path, tmp_path: Path) -> None:
    inbox = fill(tmp_path / "inbox")
    command = [sys.executable, "-m", "loupe.cli", "ingest", str(inbox), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    outcomes: list[subprocess.CompletedProcess[str]] = []

    def run() -> None:
        outcomes.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=False))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = sorted(done.returncode for done in outcomes)
    assert codes in ([1, 2], [1, 1]), [done.stderr for done in outcomes]  # at once, or by chance one after the other
    if codes == [1, 2]:
        assert "another ingest is at work" in next(done.stderr for done in outcomes if done.returncode == 2)
    assert sum(json.loads(done.stdout)["counts"]["accepted"] for done in outcomes if done.stdout) == 5
    first = next(done for done in outcomes if done.stdout)
    assert "torn.png: decodable refused: damaged or truncated" in first.stderr
    assert (project / "reports/ingest/index.html").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop 7/Schöne Jacke (grün).PNG", "shop-7-Schone-Jacke-grun-0123456789ab.png"),
        ("-rf.png", "rf-0123456789ab.png"),
        ("靴.png", "picture-0123456789ab.png"),
        ("../../etc/passwd.png", "etc-passwd-0123456789ab.png"),
        ("a" * 251 + ".png", "a" * 60 + "-0123456789ab.png"),
    ],
)
def test_names_are_safe_everywhere(name: str, expected: str) -> None:
    assert file_name(name, "0123456789abcdef" * 4, ".png") == expected
