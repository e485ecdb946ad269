"""Unpack the pictures of a zip or tar archive that may come from anybody.

    unpack(Path("photos.zip"), folder)   # -> ["train/a.png", "valid/b.jpg"], written below `folder`

Everything about an archive is a claim until it has been checked. One with a path that leads out, a link, a device or a
name twice is refused as a whole, since nobody packs photographs like that by mistake; so is one that grows beyond what
photographs do. Sizes are checked as declared and as written. What is no picture, or hidden, stays packed.
"""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Self

from loupe.datasets.fetch import require_space
from loupe.errors import InputError
from loupe.imaging.files import SUFFIXES
from loupe.names import safe_name

CHUNK = 1 << 20  # bytes
GROWTH = 100  # largest ratio of unpacked to packed bytes: photographs hardly pack, flat drawings reach about 50
LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
MOST = 1 << 20  # bytes of a header of these types, which tarfile reads whole
SMALL = 64 * 2**20  # bytes that any archive may unpack to, whatever the ratio
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)


class ArchiveError(InputError):
    """An archive that is refused; the message names it, the member and the reason."""


class _Member(NamedTuple):
    name: str
    size: int  # as declared
    kind: str  # "file", "folder", or what else it is
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, folder: Path) -> list[str]:
    """Write the pictures of a zip or tar (plain, gz, bz2, xz) below `folder`, under the names they have inside.

    Args:
        archive: the file; its content decides of which kind it is.
        folder: an existing folder to write into. Make it a temporary one: after an error it is half full.

    Returns:
        Names below `folder`, with `/`, sorted.

    Raises:
        ArchiveError: it is hostile, damaged, encrypted, no archive, or holds no picture.
        UnsafeNameError: the name of a member leads out of the folder.
        FetchError: the disk has too little room.
    """
    names: set[str] = set()
    total = 0
    try:
        with _opened(archive) as members:
            if isinstance(members, list):
                claimed = sum(member.size for member in members)
                _check_growth(archive, claimed)
                require_space([(folder, claimed)])
            for member in members:
                total += member.size
                _check_growth(archive, total)
                name = safe_name(member.name, archive)
                if member.kind not in ("file", "folder"):
                    raise ArchiveError(f"{archive}: refused: {name!r} is a {member.kind}; pack the pictures themselves")
                if member.kind == "folder" or not is_picture(name):
                    continue
                if name in names:
                    raise ArchiveError(f"{archive}: refused: holds {name!r} twice; pack each file once")
                names.add(name)
                _write(member, folder / name, archive)
    except DAMAGE as error:
        raise ArchiveError(f"{archive}: damaged or not supported ({error}); delete it and get it again") from None
    except OSError as error:
        if error.errno is None:  # gzip and bz2 say so that they cannot go on
            raise ArchiveError(f"{archive}: damaged ({error}); delete it and get it again") from None
        raise ArchiveError(f"{archive}: cannot be unpacked into {folder}: {error.strerror}") from None
    if not names:
        raise ArchiveError(f"{archive}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return sorted(names)


def is_picture(name: str) -> bool:
    """Whether a path has a picture's suffix and no hidden part, which is what `find_images` takes too."""
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _check_growth(archive: Path, unpacked: int) -> None:
    packed = archive.stat().st_size
    if unpacked > max(SMALL, GROWTH * packed):
        raise ArchiveError(
            f"{archive}: refused: would grow from {packed} to {unpacked} bytes or more, as archive bombs do; "
            "if you trust it, unpack it yourself and give the folder"
        )


@contextmanager
def _opened(archive: Path) -> Iterator[list[_Member] | Iterator[_Member]]:
    """The members of an archive: a list of a zip's, which has one; of a tar, on the way through it.

    So a tar's member that claims too much is met before its bytes are read.
    """
    with archive.open("rb") as stream:
        zipped = stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if zipped:
        with zipfile.ZipFile(archive) as pack:
            yield [
                _Member(info.orig_filename, info.file_size, _zip_kind(info), partial(pack.open, info))
                for info in pack.infolist()
            ]
        return
    try:
        with _tar(archive) as tar:
            yield (_Member(item.name, item.size, _tar_kind(item), partial(tar.extractfile, item)) for item in tar)
    except _LargeHeaderError as error:
        raise ArchiveError(
            f"{archive}: refused: has {error}, as archive bombs do; pack the pictures themselves"
        ) from None


def _tar(archive: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(archive, tarinfo=_Header)
    except tarfile.TarError:
        raise ArchiveError(f"{archive}: neither a zip nor a tar archive; look at what lies at the address") from None


class _LargeHeaderError(Exception):
    """A header of a tar that is read into memory before anybody can look at it, and is too large for that."""


class _Header(tarfile.TarInfo):
    """A header of a tar archive, refused before what belongs to it is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See `tarfile.TarInfo`. Raises _LargeHeaderError."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in LONG and header.size > MOST:
            raise _LargeHeaderError(f"a name or attributes of {header.size} bytes")
        return header


def _zip_kind(info: zipfile.ZipInfo) -> str:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "link or device"
    return "folder" if info.is_dir() else "file"


def _tar_kind(item: tarfile.TarInfo) -> str:
    return "file" if item.isreg() else "folder" if item.isdir() else "link or device"


def _write(member: _Member, target: Path, archive: Path) -> None:
    """Write one member; never more than it declares."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        stream = target.open("xb")
    except (FileExistsError, NotADirectoryError):  # a file as a folder, or names that are one on this disk
        raise ArchiveError(f"{archive}: refused: {member.name!r} and another member exclude each other") from None
    written = 0
    with stream, member.open() or io.BytesIO() as source:
        while written <= member.size and (chunk := source.read(CHUNK)):
            written += stream.write(chunk)
    if written != member.size:
        raise ArchiveError(f"{archive}: refused: {member.name!r} has not the size that it declares; get it again")
