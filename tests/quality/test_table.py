"""A table of facts over the folder of horrors, and its files."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import picture
from tests.horrors import Horror, make_horrors

from loupe.errors import InputError
from loupe.imaging.facts import Facts, refused
from loupe.imaging.files import ImageError, find_images, read_image, write_png
from loupe.quality.table import DTYPES, measure_all, read_table, summarise, write_table

NOBODY = 65534


@contextmanager
def without_power() -> Iterator[None]:
    """As a user who cannot read everything: root can."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def horrors(tmp_path: Path) -> dict[str, Horror]:
    for folder in (tmp_path, *tmp_path.parents[:3]):  # of the test, a worker, the session, the user
        folder.chmod(0o755)  # else nobody reaches any of them
    return make_horrors(tmp_path / "horrors")


@pytest.mark.timeout(120)
def test_each_horror_has_a_row_that_says_what_it_is(horrors: dict[str, Horror], tmp_path: Path) -> None:
    done: list[None] = []
    with without_power():
        frame = measure_all(
            tmp_path / "horrors", [horror.path for horror in horrors.values()], progress=lambda: done.append(None)
        )
    assert list(frame["path"]) == list(horrors)
    assert len(done) == len(frame)
    for (name, horror), row in zip(horrors.items(), frame.to_dict("records"), strict=True):
        assert row["error"].startswith(horror.error), name
        assert row["decodable"] == (not horror.error) == (row["error"] == ""), name
        assert str(tmp_path) not in row["error"], name
        assert {key: row[key] for key in horror.facts} == horror.facts, name


@pytest.mark.timeout(120)
def test_a_folder_of_horrors_is_measured_like_it_is_read(horrors: dict[str, Horror], tmp_path: Path) -> None:
    folder = tmp_path / "horrors"
    with without_power():
        frame = measure_all(folder)
        assert sorted(frame["path"]) == sorted(name for name, horror in horrors.items() if horror.listed)
        for path, row in zip(find_images(folder), frame.to_dict("records"), strict=True):
            if row["path"] == "link-out.png":
                continue
            try:
                shape = read_image(path).pixels.shape
                assert (row["error"], row["height"], row["width"]) == ("", *shape[:2])
            except ImageError as error:
                assert str(error) == f"{path}: {row['error']}"
        followed = measure_all(folder, [folder / "link-out.png"], follow_links=True)
    assert followed["decodable"].all()


def test_types_stay_whatever_there_is(tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    write_png(tmp_path / "good.png", picture(1))
    for files in ([], [tmp_path / "torn.png"], None):
        frame = measure_all(tmp_path, files)
        assert {name: str(kind) for name, kind in frame.dtypes.items()} == DTYPES
    torn = frame.set_index("path").loc["torn.png"]
    assert torn["bytes"] == 4
    assert torn["sha256"] == "0f4636c78f65d3639ece5a064b5ae753e3408614a14fb18ab4d7540d2c248543"
    assert list(torn[["width", "format", "perceptual_hash"]]) == [0, "", ""]
    assert torn[["detail", "brightness", "jpeg_quality"]].isna().all()
    with pytest.raises(ImageError, match="no such folder"):
        measure_all(tmp_path / "missing")


def test_pictures_are_measured_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(8)]
    for path in paths:
        path.touch()

    at_once = threading.Barrier(8, timeout=20)  # breaks unless all eight are there at the same time

    def together(path: Path) -> Facts:
        at_once.wait()
        return refused(path.stem)

    monkeypatch.setattr("loupe.quality.table.measure", together)
    frame = measure_all(tmp_path, paths, workers=8)
    assert list(frame["error"]) == [path.stem for path in paths]


def test_tables_are_written_whole(horrors: dict[str, Horror], tmp_path: Path) -> None:
    frame = measure_all(tmp_path / "horrors")
    write_table(frame, tmp_path / "facts.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "facts.parquet"), frame)
    write_table(frame, tmp_path / "facts.csv")
    again = pd.read_csv(tmp_path / "facts.csv", keep_default_na=False)
    assert list(again["path"]) == list(frame["path"])
    assert list(again["sha256"]) == list(frame["sha256"])
    for suffix in ("parquet", "csv"):
        pd.testing.assert_frame_equal(read_table(tmp_path / f"facts.{suffix}"), frame)
    with pytest.raises(InputError, match=r"facts.xlsx: a table is written as .parquet or .csv"):
        write_table(frame, tmp_path / "facts.xlsx")
    assert not (tmp_path / "facts.xlsx").exists()


def test_the_summary_counts_and_names_what_failed(tmp_path: Path) -> None:
    for number, size in enumerate((20, 30, 60)):
        write_png(tmp_path / f"{number}.png", picture(number, size, size))
    (tmp_path / "torn.png").write_bytes(b"\x89PNG")
    summary = summarise(measure_all(tmp_path))
    assert summary["files"] == 4
    assert summary["formats"] == {"PNG": 3}
    assert summary["facts"]["width"] == {"min": 20, "median": 30, "max": 60}
    assert "jpeg_quality" not in summary["facts"]
    assert list(summary["undecodable"]) == ["torn.png"]
    assert summary["undecodable"]["torn.png"].startswith("refused: ")
