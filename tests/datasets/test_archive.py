"""Archives from anybody: pictures come out, and nothing else ever does, inside the folder or outside of it."""

import bz2
import gzip
import io
import lzma
import struct
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.datasets.conftest import png, python, zip_of

from loupe.datasets.archive import ArchiveError, unpack
from loupe.errors import InputError
from loupe.names import UnsafeNameError, safe_name

pytestmark = pytest.mark.timeout(60)

PICTURES = {"set/train/a.png": png(1), "set/valid/b.PNG": png(2), "set/c d.jpg": b"broken, for the index to refuse"}
REST = {"set/readme.txt": b"x", "__MACOSX/set/._a.png": b"x", "set/.hidden/d.png": b"x", "set/a.png.exe": b"x"}

PRESS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


def tar_of(members: dict[str, bytes], *odd: tarfile.TarInfo) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as pack:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            pack.addfile(item, io.BytesIO(content))
        for item in odd:
            pack.addfile(item, io.BytesIO(bytes(item.size)))
    return stream.getvalue()


def odd_member(kind: bytes, name: str = "a.png", target: str = "/etc/passwd") -> tarfile.TarInfo:
    item = tarfile.TarInfo(name)
    item.type, item.linkname = kind, target
    return item


def zip_link(name: str = "a.png") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as pack:
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o120777 << 16
        pack.writestr(info, "/etc/passwd")
    return stream.getvalue()


def zip_lying(size: int, method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip whose directory says `size` for a picture of another size."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as pack:
        pack.writestr("a.png", png(1))
    content = bytearray(stream.getvalue())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, size)
    return bytes(content)


def zip_twice() -> bytes:
    return zip_of({"a.png": b"one", "b.png": b"two"}).replace(b"b.png", b"a.png")


def packed_zeros(kind: Callable[[bytes], bytes]) -> bytes:
    return kind(tar_of({}, sized("a.bmp", 100 * 2**20)))


def long_header(form: int, **attributes: str) -> bytes:
    """A tar of one small picture whose name or attributes take megabytes, packed to almost nothing."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as pack:
        item = tarfile.TarInfo(attributes.pop("name", "a.png"))
        item.pax_headers = attributes
        pack.addfile(item, io.BytesIO())
    return lzma.compress(stream.getvalue())


def sized(name: str, size: int) -> tarfile.TarInfo:
    item = tarfile.TarInfo(name)
    item.size = size
    return item


def zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as pack:
        for number in range(10):
            pack.writestr(f"{number}.bmp", bytes(10 * 2**20))
    return stream.getvalue()


def attempt(content: bytes, tmp_path: Path) -> Path:
    """Unpacks into a folder below `tmp_path`; the archive lies outside of it."""
    (tmp_path / "archive").write_bytes(content)
    (tmp_path / "room" / "out").mkdir(parents=True)
    unpack(tmp_path / "archive", tmp_path / "room" / "out")
    return tmp_path / "room" / "out"


@pytest.mark.parametrize("form", ["zip", "deflated", *PRESS])
def test_pictures_come_out_as_they_are(tmp_path: Path, form: str) -> None:
    if form in ("zip", "deflated"):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED if form == "deflated" else zipfile.ZIP_STORED) as pack:
            pack.mkdir("set")
            for name, content in (PICTURES | REST).items():
                pack.writestr(name, content)
        packed = stream.getvalue()
    else:
        packed = PRESS[form](tar_of(PICTURES | REST, odd_member(tarfile.DIRTYPE, "set", "")))
    out = attempt(packed, tmp_path)
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == PICTURES


HOSTILE = {
    "long attributes": (long_header(tarfile.PAX_FORMAT, comment="x" * (2 << 20)), "attributes of 20971.. bytes"),
    "long name": (long_header(tarfile.GNU_FORMAT, name="x" * (2 << 20)), "attributes of 2097153 bytes"),
    "absolute": (zip_of({"/etc/a.png": b""}), "'/etc/a.png' leads out of the folder"),
    "out": (zip_of({"x/../../a.png": b""}), "leads out of the folder"),
    "out, in a text": (zip_of({"../a.txt": b""}), "leads out of the folder"),
    "Windows": (zip_of({"..\\a.png": b""}), "leads out of the folder"),
    "drive": (zip_of({"C:\\a.png": b""}), "leads out of the folder"),
    "control": (zip_of({"a\x1b[2J.png": b""}), "cannot be written"),
    "link": (zip_link(), "'a.png' is a link or device"),
    "link of a text": (zip_link("a.txt"), "'a.txt' is a link or device"),
    "twice": (zip_twice(), "holds 'a.png' twice"),
    "twice, in other words": (zip_of({"a.png": b"1", "./a.png": b"2"}), "holds 'a.png' twice"),
    "file and folder": (zip_of({"a.png": b"1", "a.png/b.png": b"2"}), "exclude each other"),
    "too small": (zip_lying(100), "Bad CRC|not the size"),
    "too large": (zip_lying(10**6), "not the size that it declares"),
    "too large, deflated": (zip_lying(10**6, zipfile.ZIP_DEFLATED), "not the size that it declares"),
    "absurd": (zip_lying(2**32 - 2), "as archive bombs do"),
    "bomb": (zip_bomb(), "as archive bombs do"),
    "tar absolute": (tar_of({"/etc/a.png": b""}), "leads out of the folder"),
    "tar out": (tar_of({"x/../../a.png": b""}), "leads out of the folder"),
    "tar link": (tar_of({}, odd_member(tarfile.SYMTYPE)), "is a link or device"),
    "tar hard link": (tar_of({}, odd_member(tarfile.LNKTYPE)), "is a link or device"),
    "tar device": (tar_of({}, odd_member(tarfile.CHRTYPE)), "is a link or device"),
    "tar pipe": (tar_of({}, odd_member(tarfile.FIFOTYPE)), "is a link or device"),
    "tar twice": (tar_of({"a.png": b"1"}, sized("a.png", 3)), "holds 'a.png' twice"),
    "tar bomb": (packed_zeros(gzip.compress), "as archive bombs do"),
    "xz bomb": (packed_zeros(lzma.compress), "as archive bombs do"),
    "no archive": (b"<html>please log in</html>", "neither a zip nor a tar archive"),
    "empty": (b"", "neither a zip nor a tar archive"),
    "no picture": (zip_of(REST), "holds no picture"),
    "cut zip": (zip_of(PICTURES)[:-100], "damaged or not supported"),
    "cut tar": (tar_of(PICTURES)[: 512 + 3000], "damaged"),
    "cut gz": (gzip.compress(tar_of(PICTURES), 0)[:9000], "damaged"),
    "cut bz2": (bz2.compress(tar_of(PICTURES))[:-2000], "neither|damaged"),
    "a bit turned": (
        zip_of(PICTURES).replace(PICTURES["set/train/a.png"], PICTURES["set/train/a.png"][:-1] + b"?"),
        "CRC",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_damaged_archives_are_refused(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    with pytest.raises(InputError, match=message) as caught:
        attempt(content, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'archive'}: ")
    assert {path.name for path in (tmp_path / "room").iterdir()} == {"out"}
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    written = sum(path.stat().st_size for path in (tmp_path / "room").rglob("*") if path.is_file())
    assert written <= sum(map(len, PICTURES.values())), "a bomb is refused before it grows"


def test_an_encrypted_archive_says_so(tmp_path: Path) -> None:
    content = bytearray(zip_of({"a.png": png(1)}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    with pytest.raises(ArchiveError, match="encrypted"):
        attempt(bytes(content), tmp_path)


def test_names_that_people_really_use_are_kept() -> None:
    for name in ("a b.png", "größe/ü.png", "Screenshot 9.41\u202fAM.png", "...png", "a..b/c.png", "-rf.png"):
        assert safe_name(name, "x") == name
    assert safe_name("./a//b/./c.png", "x") == "a/b/c.png"
    for name in ("", "/", "a/..", "\udcff.png", "a\n.png", "C:"):
        with pytest.raises(UnsafeNameError):
            safe_name(name, "x")


def test_a_full_disk_while_unpacking(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(zip_of({"a.png": bytes(200_000), "b.png": bytes(200_000)}))
    (tmp_path / "out").mkdir()
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "from pathlib import Path\n"
        "from loupe.datasets.archive import ArchiveError, unpack\n"
        "from loupe.imaging.files import atomic_folder\n"
        "try:\n"
        "    with atomic_folder(Path('data/photos')) as folder:\n"
        "        unpack(Path('archive'), folder)\n"
        "except ArchiveError as error:\n"
        "    print(error)\n"
    )
    output = python(code, cwd=tmp_path).communicate(timeout=30)[0]
    assert output == "archive: cannot be unpacked into data/photos.part: File too large\n"
    assert list((tmp_path / "data").iterdir()) == []


def test_too_little_room_is_said_before_the_first_byte(tmp_path: Path) -> None:
    small = tmp_path / "room" / "out"
    small.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        (tmp_path / "archive").write_bytes(zip_of({f"{number}.png": bytes(300_000) for number in range(4)}))
        with pytest.raises(InputError, match=r"1.20MB are needed on this disk and 1.05MB are free"):
            unpack(tmp_path / "archive", small)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)
