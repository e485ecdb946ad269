"""One's own photographs through the real pipeline, up to the patch index: from a folder, and from a server."""

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest
from PIL import Image
from tests.conftest import fabric
from tests.datasets.conftest import zip_of
from tests.file_server import Serving, serve
from tests.system.test_pipeline import Copy

from loupe.imaging.files import write_png
from loupe.patches.build import split_of
from loupe.patches.index import PatchIndex

pytestmark = pytest.mark.timeout(120)

SHARE = 0.2  # valid_share of the profile `sample`


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    copy = Copy(tmp_path_factory.mktemp("work") / "clone")
    copy.environment["NO_PROXY"] = "127.0.0.1"
    copy.run("dvc", "pull", "data.dvc")
    return copy


@pytest.fixture
def server() -> Iterator[Serving]:
    with serve() as serving:
        yield serving


def choose(copy: Copy, photos: str) -> None:
    text = (copy.folder / "profiles" / "sample.yaml").read_text()
    (copy.folder / "params.yaml").write_text(text.replace("photos: sample", f"photos: {photos}"))


def indexed(copy: Copy) -> dict[str, str]:
    """The photographs of the index, and their splits."""
    return {row.name: row.split for row in PatchIndex(copy.folder / "index").images if row.set == "photos"}


def png(seed: int) -> bytes:
    """A picture that passes the gate, as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(fabric(seed)).save(stream, "PNG")
    return stream.getvalue()


def refused(copy: Copy) -> str:
    """What `dvc repro patch-index` says when it fails, as it must."""
    failed = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "patch-index"],
        cwd=copy.folder,
        env=copy.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert failed.returncode != 0
    assert "Traceback" not in failed.stdout + failed.stderr
    return failed.stdout + failed.stderr


def test_a_folder_whose_content_decides(copy: Copy) -> None:
    own = copy.folder.parent / "own"
    for seed in range(8):
        write_png(own / "sub" / f"{seed}.png", fabric(seed))
    (own / "broken.jpg").write_bytes(b"broken")
    choose(copy, "{path: ../own}")
    stopped = refused(copy)
    assert "data/photos: 9 photographs (../own)" in stopped
    assert "run `dvc repro --force download`" in stopped
    assert "data/photos/unsplit/broken.jpg: decodable refused: not an image" in stopped
    assert not (copy.folder / "index").exists()
    (own / "broken.jpg").unlink()
    copy.run("dvc", "repro", "--force", "download")
    copy.run("dvc", "repro", "patch-index")
    rows = [row for row in PatchIndex(copy.folder / "index").images if row.set == "photos"]
    assert {row.name: row.split for row in rows} == {row.name: split_of(row.sha256, SHARE) for row in rows}
    assert set(indexed(copy)) == {f"sub/{seed}.png" for seed in range(8)}
    write_png(own / "late.png", fabric(99))
    copy.run("dvc", "repro", "--force", "download")
    copy.run("dvc", "repro", "patch-index")
    assert "late.png" in indexed(copy)


def test_an_archive_on_a_server(copy: Copy, server: Serving) -> None:
    choose(copy, f"{{url: '{server.url}/own.zip'}}")
    assert f"{server.url}/own.zip: HTTP 404 Not Found" in refused(copy)
    assert {path.name for path in (copy.folder / "data").iterdir()} == {".gitignore", "LICENCES.md", "products"}
    server.files["/own.zip"] = zip_of({f"own/{'valid' if n < 2 else 'train'}/{n}.png": png(n) for n in range(5)})
    copy.run("dvc", "repro", "patch-index")
    assert indexed(copy) == {f"{n}.png": "valid" if n < 2 else "train" for n in range(5)}
    kept = list((copy.folder / ".cache" / "downloads").glob("*-own.zip"))
    assert len(kept) == 1
    assert copy.run("git", "status", "--short").split()[1::2] == [
        "dvc.lock",
        "metrics/validation.json",
        "params.yaml",
    ]
