"""DIV2K's exact layout in small, from a real server: fetched once, whole or not at all, and comparable bit for bit."""

import hashlib
import io
import json
import signal
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.datasets.conftest import png, python, wait_for_bytes, zip_of
from tests.file_server import Serving

from loupe.datasets import div2k
from loupe.datasets.div2k import HR, LR_X2, Div2kArchive, Div2kError, check_lr, write_div2k
from loupe.errors import InputError
from loupe.imaging.files import atomic_folder
from loupe.imaging.resize import downscale

pytestmark = pytest.mark.timeout(60)

TRAIN = {f"DIV2K_train_HR/{number:04d}.png": png(number, 300, 400) for number in (1, 2, 3, 4)}
VALID = {f"DIV2K_valid_HR/{number:04d}.png": png(number) for number in (801, 802)}
SCRIPT = """
import json, sys
from pathlib import Path
from loupe.datasets.div2k import Div2kArchive, write_div2k
from loupe.imaging.files import atomic_folder
catalogue = {split: Div2kArchive(**facts) for split, facts in json.loads(sys.argv[1]).items()}
with atomic_folder(Path("data/photos")) as folder:
    write_div2k(folder, Path("cache"), catalogue)
"""


def reduced(pictures: Mapping[str, bytes], change: int = 0) -> dict[str, bytes]:
    """The official low-resolution pictures of `pictures`; `change` is added to one sample of the last."""
    small = {}
    for name, content in pictures.items():
        pixels = downscale(np.asarray(Image.open(io.BytesIO(content))), 2)
        pixels[0, 0, 0] += change * (name == max(pictures))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        small[name.replace("_HR/", "_LR_bicubic/X2/").replace(".png", "x2.png")] = stream.getvalue()
    return small


def publish(
    server: Serving, official: Mapping[str, Div2kArchive], *contents: dict[str, bytes]
) -> dict[str, Div2kArchive]:
    """Serves small archives under the official names, at one mirror; the catalogue that describes them."""
    small = {}
    for (split, archive), members in zip(official.items(), contents, strict=True):
        body = zip_of(members)
        server.files[f"/mirror/{archive.name}"] = body
        digest = hashlib.sha256(body).hexdigest()
        small[split] = Div2kArchive(
            archive.name, len(body), digest, archive.inside, len(members), [f"{server.url}/mirror/"]
        )
    return small


@pytest.fixture
def catalogue(server: Serving, monkeypatch: pytest.MonkeyPatch) -> dict[str, Div2kArchive]:
    monkeypatch.delenv("LOUPE_DIV2K_MIRRORS", raising=False)
    return publish(server, HR, TRAIN, VALID)


def photos(tmp_path: Path, catalogue: Mapping[str, Div2kArchive]) -> tuple[Path, list[str]]:
    lines: list[str] = []
    with atomic_folder(tmp_path / "data" / "photos") as folder:
        write_div2k(folder, tmp_path / "cache", catalogue, lines.append)
    return tmp_path / "data" / "photos", lines


def test_both_splits_and_the_licence(catalogue: dict[str, Div2kArchive], server: Serving, tmp_path: Path) -> None:
    for _ in range(2):
        folder, lines = photos(tmp_path, catalogue)
        found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.suffix == ".png"}
        assert found == {name.replace("DIV2K_", "").replace("_HR", ""): body for name, body in (TRAIN | VALID).items()}
        assert "academic research" in lines[0]
        assert "academic research" in (folder / "LICENCES.md").read_text()
        assert {path.name for path in folder.iterdir()} == {"train", "valid", "LICENCES.md"}
    assert server.sent() == [archive.size for archive in catalogue.values()], "the second time nothing is fetched"


def test_killed_half_way_it_goes_on_and_shows_nothing_before(
    catalogue: dict[str, Div2kArchive], server: Serving, tmp_path: Path
) -> None:
    train = catalogue["train"]
    facts = json.dumps({split: asdict(archive) for split, archive in catalogue.items()})
    part = tmp_path / "cache" / f"{train.name}.part"
    server.script[f"/mirror/{train.name}"] = [("stall", train.size // 2)]
    first = python(SCRIPT, facts, cwd=tmp_path)
    wait_for_bytes(part, train.size // 3)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    have = part.stat().st_size
    assert have < train.size
    assert not (tmp_path / "data" / "photos").exists()
    second = python(SCRIPT, facts, cwd=tmp_path)
    output = second.communicate(timeout=30)[0]
    assert second.returncode == 0, output
    assert server.ranges_asked() == [None, f"bytes={have}-", None]
    assert server.sent()[1:] == [train.size - have, catalogue["valid"].size]
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"photos"}, "also what the first left is gone"
    assert len(list((tmp_path / "data" / "photos").glob("*/*.png"))) == 6


def test_mirrors_are_asked_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_DIV2K_MIRRORS", " https://one/x/ , http://two")
    assert HR["valid"].remote().addresses == (
        "https://one/x/DIV2K_valid_HR.zip",
        "http://two/DIV2K_valid_HR.zip",
        "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        "http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        "https://huggingface.co/datasets/eugenesiow/Div2k/resolve/main/DIV2K_valid_HR.zip",
    )
    monkeypatch.delenv("LOUPE_DIV2K_MIRRORS")
    assert len(HR["valid"].remote().addresses) == 3


def test_ones_own_mirror_is_asked_first_and_the_next_one_helps(
    catalogue: dict[str, Div2kArchive], server: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/bad/DIV2K_valid_HR.zip"] = bytes(catalogue["valid"].size)
    monkeypatch.setenv("LOUPE_DIV2K_MIRRORS", f"{server.url}/bad")
    folder, lines = photos(tmp_path, catalogue)
    assert len(list(folder.glob("*/*.png"))) == 6
    assert "DIV2K_valid_HR.zip: wrong checksum: thrown away" in lines
    assert [request.path.split("/")[1] for request in server.requests] == ["bad", "mirror"] * 2


def test_failures_leave_nothing_under_data(catalogue: dict[str, Div2kArchive], server: Serving, tmp_path: Path) -> None:
    valid = server.files.pop("/mirror/DIV2K_valid_HR.zip")
    with pytest.raises(InputError, match=r"DIV2K_valid_HR.zip could not be fetched.*\n.*HTTP 404"):
        photos(tmp_path, catalogue)
    assert list((tmp_path / "data").iterdir()) == []
    server.files["/mirror/DIV2K_valid_HR.zip"] = valid
    odd = {**catalogue, "valid": Div2kArchive(**asdict(catalogue["valid"]) | {"pictures": 3})}
    with pytest.raises(Div2kError, match="expected 3 pictures in DIV2K_valid_HR, found 2"):
        photos(tmp_path, odd)
    huge = {**catalogue, "valid": Div2kArchive(**asdict(catalogue["valid"]) | {"size": 10**18})}
    with pytest.raises(InputError, match=r"1.00EB are needed on this disk and .* are free"):
        photos(tmp_path, huge)
    assert list((tmp_path / "data").iterdir()) == []
    assert len(list(photos(tmp_path, catalogue)[0].glob("*/*.png"))) == 6


def test_a_damaged_archive_leaves_nothing_under_data(
    catalogue: dict[str, Div2kArchive], server: Serving, tmp_path: Path
) -> None:
    body = server.files["/mirror/DIV2K_valid_HR.zip"][:-60]
    server.files["/mirror/DIV2K_valid_HR.zip"] = body
    facts = asdict(catalogue["valid"]) | {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    with pytest.raises(InputError, match=r"DIV2K_valid_HR.zip: damaged"):
        photos(tmp_path, {**catalogue, "valid": Div2kArchive(**facts)})
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("change", [0, 1])
def test_our_reductions_against_the_official(
    catalogue: dict[str, Div2kArchive], server: Serving, tmp_path: Path, change: int
) -> None:
    folder, _ = photos(tmp_path, catalogue)
    small = publish(server, LR_X2, reduced(TRAIN, change), reduced(VALID))
    lines: list[str] = []
    assert check_lr(folder, tmp_path / "cache", small, lines.append) == change
    assert f"train: {4 - change} of 4 identical, bit for bit" in lines
    assert "valid: 2 of 2 identical, bit for bit" in lines
    assert ("train/0004x2.png: differs from our reduction" in lines) == bool(change)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".zip", ".lock"}, "nothing is left unpacked"


def test_the_check_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        div2k.main(["--check-lr", "--photos", str(tmp_path)])
    assert caught.value.code == 2
    assert "train: no DIV2K here; run `loupe profile div2k`, `dvc repro download` first" in capsys.readouterr().err


def test_the_catalogue_is_of_one_piece() -> None:
    assert sum(archive.size for archive in HR.values()) == 3_979_597_606
    assert {archive.pictures for archive in (*HR.values(), *LR_X2.values())} == {800, 100}
    assert all(len(archive.sha256) == 64 for archive in (*HR.values(), *LR_X2.values()))
