"""MANIFEST.json: every file of a bundle with its size and sha256, so that whoever receives one knows that it is whole.

    {"format": 1, "files": {"model.onnx": {"bytes": 1234, "sha256": "..."}, "golden/input-1.png": {...}}}

It is written last: a folder without one is unfinished. It does not list itself; its own sha256 is the bundle's
identity. Needs the standard library only, as those who receive a bundle do.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loupe.errors import InputError
from loupe.imaging.files import atomic_file
from loupe.names import safe_name

MANIFEST = "MANIFEST.json"
FORMAT = 1
LARGEST = 1 << 20  # bytes of a manifest: it comes from elsewhere and is read into memory
CHUNK = 1 << 20


class ManifestError(InputError):
    """A bundle that is not what its manifest says, or a manifest that cannot be used."""


@dataclass(frozen=True)
class Entry:
    """A file: size in bytes, and sha256 in hexadecimal digits."""

    bytes: int
    sha256: str


Entries = Mapping[str, Entry]  # by path below the bundle, with forward slashes


def identity(data: bytes) -> str:
    """Which bundle it is: the sha256 of its manifest, 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def file_entry(path: Path) -> Entry:
    """Size and sha256 of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Entry(size, digest.hexdigest())


def files_of(folder: Path) -> list[str]:
    """Every file below `folder` but the manifest, sorted, with forward slashes; hidden ones too.

    Raises:
        ManifestError: a link or a pipe, which no bundle holds.
    """
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ManifestError(f"{path}: refused: a bundle holds files only, no link and no pipe")
        if path.is_file() and path != folder / MANIFEST:
            found.append(path.relative_to(folder).as_posix())
    return sorted(found)


def write_manifest(folder: Path) -> bytes:
    """Write MANIFEST.json over all files below `folder`; its bytes.

    Raises:
        ManifestError: a link or a pipe among them. UnsafeNameError: a name that others could not write.
    """
    entries = {safe_name(name, folder): asdict(file_entry(folder / name)) for name in files_of(folder)}
    data = (json.dumps({"format": FORMAT, "files": entries}, indent=2) + "\n").encode()
    with atomic_file(folder / MANIFEST) as stream:
        stream.write(data)
    return data


def parse_manifest(data: bytes, origin: object) -> dict[str, Entry]:
    """The entries of a manifest that may come from anybody; `origin` is named in errors.

    Raises:
        ManifestError: it is no manifest of a known format. UnsafeNameError: a name in it leads out of the folder.
    """
    try:
        content: Any = json.loads(data) if len(data) <= LARGEST else None
        known = content["format"] == FORMAT
        entries = {name: Entry(entry["bytes"], entry["sha256"]) for name, entry in content["files"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ManifestError(f"{origin}: no manifest of a bundle, or a damaged one; get it again") from None
    if not known:
        raise ManifestError(f"{origin}: its format is {content['format']!r}; this version of loupe reads {FORMAT}")
    for name, entry in entries.items():
        hexadecimal = isinstance(entry.sha256, str) and re.fullmatch("[0-9a-f]{64}", entry.sha256)
        if type(entry.bytes) is not int or entry.bytes < 0 or not hexadecimal:
            raise ManifestError(f"{origin}: damaged: size or sha256 of {name!r} cannot be; get it again")
        if safe_name(name, origin) != name or name == MANIFEST:
            raise ManifestError(f"{origin}: refused: no bundle has a file called {name!r}")
    return entries


def verify_folder(folder: Path) -> dict[str, Entry]:
    """Check that `folder` holds exactly what its manifest says; the entries.

    Raises:
        ManifestError: no manifest, or a file that is missing, is too many, or has another content: each is named.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise ManifestError(f"{folder / MANIFEST}: {reason}: unfinished, or no bundle") from None
    entries, found = parse_manifest(data, folder / MANIFEST), set(files_of(folder))
    wrong = [f"{name} is missing" for name in entries if name not in found]
    wrong += [f"{name} is not in the manifest" for name in sorted(found) if name not in entries]
    wrong += [
        f"{name} is damaged" for name, entry in entries.items() if name in found and file_entry(folder / name) != entry
    ]
    if wrong:
        raise ManifestError(f"{folder}: {'; '.join(wrong)}; get it again")
    return entries
