"""A manifest names every file, and tells whatever is not as it says."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from loupe.errors import InputError
from loupe.release.manifest import MANIFEST, ManifestError, identity, parse_manifest, verify_folder, write_manifest


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "golden" / "1.png").write_bytes(b"png")
    write_manifest(folder)
    return folder


def test_what_was_written_is_verified(bundle: Path) -> None:
    entries = verify_folder(bundle)
    assert list(entries) == ["golden/1.png", "model.onnx"]
    assert entries["model.onnx"].bytes == 4
    assert entries["model.onnx"].sha256 == hashlib.sha256(b"onnx").hexdigest()
    data = (bundle / MANIFEST).read_bytes()
    assert write_manifest(bundle) == data, "the same files give the same manifest"
    assert len(identity(data)) == 64


def test_each_difference_is_named(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"other")
    (bundle / "golden" / "1.png").unlink()
    (bundle / ".hidden").touch()
    with pytest.raises(ManifestError) as caught:
        verify_folder(bundle)
    for line in ("golden/1.png is missing", ".hidden is not in the manifest", "model.onnx is damaged", "get it again"):
        assert line in str(caught.value)
    (bundle / MANIFEST).unlink()
    with pytest.raises(ManifestError, match="unfinished, or no bundle"):
        verify_folder(bundle)


def test_links_and_pipes_are_refused(bundle: Path) -> None:
    (bundle / "link").symlink_to("model.onnx")
    with pytest.raises(ManifestError, match="files only"):
        verify_folder(bundle)
    (bundle / "link").unlink()
    os.mkfifo(bundle / "pipe")
    with pytest.raises(ManifestError, match="files only"):
        write_manifest(bundle)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no manifest of a bundle"),
        (b"[" * 100_000, "no manifest of a bundle"),
        (b"{}", "no manifest of a bundle"),
        (b'{"format": 1, "files": []}', "no manifest of a bundle"),
        (b'{"format": 1, "files": {"a": 1}}', "no manifest of a bundle"),
        (b'{"format": 2, "files": {}}', "its format is 2"),
        (b" " * (1 << 20) + b"{}", "no manifest of a bundle"),
    ],
)
def test_what_is_no_manifest(content: bytes, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_manifest(content, "x")


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("../evil", {}),
        ("/etc/passwd", {}),
        ("a\\..\\b", {}),
        ("a//b", {}),
        ("", {}),
        (MANIFEST, {}),
        ("a", {"bytes": -1}),
        ("a", {"bytes": True}),
        ("a", {"bytes": "1"}),
        ("a", {"sha256": "0" * 63}),
        ("a", {"sha256": 5}),
    ],
)
def test_hostile_entries(name: str, entry: dict[str, object]) -> None:
    files = {name: {"bytes": 1, "sha256": "0" * 64} | entry}
    with pytest.raises(InputError, match="x: "):
        parse_manifest(json.dumps({"format": 1, "files": files}).encode(), "x")
