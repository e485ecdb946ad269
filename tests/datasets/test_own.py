"""One's own pictures: which are taken, where they go, and what is refused."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from tests.conftest import S3
from tests.datasets.conftest import png, zip_of
from tests.file_server import Serving

from loupe.datasets.own import OwnPicturesError, arrange, take_folder, take_url
from loupe.errors import InputError
from loupe.imaging.files import atomic_folder

pytestmark = pytest.mark.timeout(60)


def fill(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(seed))
    return folder


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def take(source: Path, tmp_path: Path) -> tuple[set[str], list[str]]:
    """As the stage does; what is in data/photos then, and the lines said."""
    lines: list[str] = []
    out = tmp_path / "data" / "photos"
    with atomic_folder(out) as folder:
        written = take_folder(source, folder, out, lines.append)
        assert all(path.is_file() for path in written)
    return tree(out), lines


def test_without_split_folders_the_content_decides(tmp_path: Path) -> None:
    source = fill(tmp_path / "own", "b.png", "sub/größe 1.JPG", "sub/.hidden.png")
    (source / "notes.txt").write_text("x")
    (source / "empty.png").touch()
    found, lines = take(source, tmp_path)
    assert found == {"unsplit/b.png", "unsplit/sub/größe 1.JPG", "unsplit/empty.png"}
    assert lines == [f"{source}: no folders train and valid there: the content of each picture decides its split"]
    copied = tmp_path / "data" / "photos" / "unsplit" / "b.png"
    assert copied.read_bytes() == png(0)
    assert copied.stat().st_nlink == 1, "writing to it must not change the original"


def test_split_folders_decide_and_the_rest_is_left_out(tmp_path: Path) -> None:
    source = fill(tmp_path / "own", "train/a/1.png", "valid/2.png", "test/3.png", "4.png")
    found, lines = take(source, tmp_path)
    assert found == {"train/a/1.png", "valid/2.png"}
    assert lines == [f"{source}: 2 pictures outside train/ and valid/ left out"]


def test_links(tmp_path: Path) -> None:
    source = fill(tmp_path / "own", "a/b.png")
    (source / "a" / "c.png").symlink_to("b.png")
    (source / "loop").symlink_to("loop")
    (source / "round").symlink_to(source)
    assert take(source, tmp_path)[0] == {"unsplit/a/b.png", "unsplit/a/c.png"}
    fill(tmp_path / "elsewhere", "secret.png")
    for name, target in (("d.png", tmp_path / "elsewhere" / "secret.png"), ("more", tmp_path / "elsewhere")):
        (source / name).symlink_to(target)
        with pytest.raises(OwnPicturesError, match=f"{name}: refused: a link out of the folder"):
            take(source, tmp_path)
        (source / name).unlink()
    assert not (tmp_path / "data" / "photos.part").exists()


def test_folders_that_cannot_be_taken(tmp_path: Path) -> None:
    with pytest.raises(OwnPicturesError, match=r"own: no such folder; mend photos.path"):
        take(tmp_path / "own", tmp_path)
    (tmp_path / "own").mkdir()
    with pytest.raises(OwnPicturesError, match="own: no picture there"):
        take(tmp_path / "own", tmp_path)
    fill(tmp_path / "own", "train/a.png")
    with pytest.raises(
        OwnPicturesError, match=r"has pictures in train/ but none in valid/; add them, or rename train/"
    ):
        take(tmp_path / "own", tmp_path)
    for around in (tmp_path, tmp_path / "data", tmp_path / "data" / "photos" / "train"):
        around.mkdir(parents=True, exist_ok=True)
        with pytest.raises(OwnPicturesError, match="or lies in it"):
            take(around, tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/own/\xff.png")).write_bytes(png(1))
    with pytest.raises(InputError, match="cannot be written"):
        take(tmp_path / "own", tmp_path)
    assert {path.name for path in (tmp_path / "data").iterdir()} == {"photos"}
    assert tree(tmp_path / "data") == set()


def test_arrange_keeps_names() -> None:
    assert arrange(["train.png", "valid/a.png", "train/b.png"], "x", print) == {
        "valid/a.png": "valid/a.png",
        "train/b.png": "train/b.png",
    }


@pytest.mark.parametrize("form", ["zip", "tar.gz"])
@pytest.mark.parametrize("above", ["", "mine/", "mine/2024/"])
def test_an_archive_from_the_web(server: Serving, tmp_path: Path, above: str, form: str) -> None:
    members = {f"{above}train/a.png": png(1), f"{above}train/b.png": png(2), f"{above}valid/a.png": png(3)}
    stream = io.BytesIO(zip_of(members))
    if form == "tar.gz":
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w:gz") as pack:
            for name, content in members.items():
                item = tarfile.TarInfo(name)
                item.size = len(content)
                pack.addfile(item, io.BytesIO(content))
    server.files["/own?version=2"] = stream.getvalue()
    for _ in range(2):  # the second time it is there already
        with atomic_folder(tmp_path / "photos") as folder:
            take_url(f"{server.url}/own?version=2", folder, tmp_path / "cache")
        assert tree(tmp_path / "photos") == {"train/a.png", "train/b.png", "valid/a.png"}
    assert (tmp_path / "photos" / "valid" / "a.png").read_bytes() == png(3)
    assert server.sent() == [len(stream.getvalue()), 0]
    with atomic_folder(tmp_path / "photos") as folder, pytest.raises(InputError, match="HTTP 404"):
        take_url(f"{server.url}/other", folder, tmp_path / "cache")


def test_an_archive_without_splits(server: Serving, tmp_path: Path) -> None:
    server.files["/own.zip"] = zip_of({"mine/a.png": png(1), "mine/sub/a.png": png(2)})
    with atomic_folder(tmp_path / "photos") as folder:
        take_url(f"{server.url}/own.zip", folder, tmp_path / "cache")
    assert tree(tmp_path / "photos") == {"unsplit/a.png", "unsplit/sub/a.png"}


def test_pictures_below_an_s3_prefix(s3: S3, tmp_path: Path) -> None:
    s3fs = pytest.importorskip("s3fs")
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    shop = s3.bucket
    for name in ("set/train/a.png", "set/valid/b.png", "set/readme.txt", "set/train/", "settled/c.png"):
        store.pipe_file(f"{shop}/{name}", png(len(name)) if name.endswith(".png") else b"")
    with atomic_folder(tmp_path / "photos") as folder:
        written = take_url(f"s3://{shop}/set/", folder, tmp_path / "cache")
        assert len(written) == 2
    assert tree(tmp_path / "photos") == {"train/a.png", "valid/b.png"}
    assert (tmp_path / "photos" / "train" / "a.png").read_bytes() == png(len("set/train/a.png"))
    store.pipe_file(f"{shop}/bad/..\\a.png", png(1))
    for url, message in (
        (f"s3://{shop}/nothing", "no picture there"),
        ("s3://nobody/set", "s3://nobody/set: .*; check the address, the credentials and AWS_ENDPOINT_URL"),
        (f"s3://{shop}/bad", "leads out of the folder"),
    ):
        with pytest.raises(InputError, match=message), atomic_folder(tmp_path / "other") as folder:
            take_url(url, folder, tmp_path / "cache")
        assert not (tmp_path / "other").exists()


def test_nobody_answers_for_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3fs")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(OwnPicturesError, match=r"s3://shop/set: .*127.0.0.1:9"):
        take_url("s3://shop/set", tmp_path, tmp_path / "cache")
