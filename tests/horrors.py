"""The folder of horrors: everything that a supplier, an accident or an attacker may put among product pictures."""

import os
import socket
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms
from tests.conftest import picture

OUT_OF_FOLDER = "refused: a link out of the folder; put the picture itself there"
DAMAGED, NO_IMAGE = "refused: damaged or truncated", "refused: not an image that can be decoded"
UNREADABLE = "refused: cannot be read"


@dataclass(frozen=True)
class Horror:
    """What must be found out about a file.

    path: where it lies. error: how the reason begins for which it cannot be used; "" if it can. facts: some that it
    must have. listed: whether `find_images` names it; what it does not name is no file with an image's suffix.
    """

    path: Path
    error: str
    facts: dict[str, object]
    listed: bool = True


def png(width: int, height: int, depth: int, colour: int, rows: bytes, more: dict[bytes, bytes] | None = None) -> bytes:
    """A PNG file by hand: `rows` are its scan lines, each with a filter byte; they may be fewer than `height`.

    `more` chunks, by their kind, go before the pixels, or after them if they come after an IDAT of their own.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0)
    chunks = {b"IHDR": header, **(more or {}), b"IDAT": zlib.compress(rows), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks.items())


def make_horrors(folder: Path) -> dict[str, Horror]:
    """Fill the new `folder`, and another beside it that links lead to; what to expect, by the path in a table of facts.

    Everything is made for real, pipe and socket too. Only unreadable permissions need care: root reads all the same.
    """
    folder.mkdir()
    outside = folder.with_name(f"{folder.name}-outside")
    outside.mkdir()
    horrors: dict[str, Horror] = {}
    good = Image.fromarray(picture(1))
    height, width = 72, 88

    def expect(name: str, error: str = "", listed: bool = True, **facts: object) -> Path:
        shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        horrors[shown] = Horror(folder / name, error, facts, listed)
        return folder / name

    def save(
        name: str, image: Image.Image, kind: str, options: dict[str, object] | None = None, **facts: object
    ) -> None:
        size = {"format": kind, "width": image.width, "height": image.height}
        image.save(expect(name, **(size | facts)), format=kind, **(options or {}))  # type: ignore[arg-type]

    # usable, but odd
    save("plain.png", good, "PNG", frames=1, orientation=1, suffix_matches=True, alpha_share=0.0)
    save("png-called.jpg", good, "PNG", suffix_matches=False)
    save("jpeg-called.png", good, "JPEG", {"quality": 83}, suffix_matches=False, jpeg_quality=83.0)
    save("SHOUTED.JPEG", good, "JPEG", suffix_matches=True)
    save("print.jpg", good.convert("CMYK"), "JPEG", mode="CMYK")
    save("palette.png", good.quantize(16), "PNG", {"transparency": 0}, mode="P")
    save("hole.png", Image.new("RGBA", (40, 30)), "PNG", alpha_share=1.0, white_share=1.0)
    save("one-pixel.png", Image.new("RGB", (1, 1), "red"), "PNG", width=1, height=1)
    save("one-column.png", Image.new("L", (1, 50)), "PNG", width=1, height=50)
    strip = Image.fromarray(np.tile(picture(2)[:12], (1, 745, 1))[:, :65500])
    save("strip.jpg", strip, "JPEG", width=65500, height=12)
    turned = good.getexif()
    turned[0x0112] = 6
    save("turned.jpg", good, "JPEG", {"exif": turned}, orientation=6, width=height, height=width)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    save("tagged.jpg", good, "JPEG", {"icc_profile": profile}, icc="sRGB built-in")
    save("bad-profile.png", good, "PNG", {"icc_profile": b"no profile"}, icc="damaged")
    save("bad-exif.jpg", good, "JPEG", {"exif": b"Exif\0\0II*\0"}, orientation=1)  # ends before its directory
    save("print.tif", Image.merge("LAB", good.split()), "TIFF", mode="LAB")
    more = {"save_all": True, "append_images": [Image.fromarray(picture(seed)) for seed in (2, 3)]}
    save("moving.gif", good, "GIF", more, frames=3)
    save("moving.webp", good, "WEBP", more, frames=3)
    deep = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    save("deep-gray.png", Image.fromarray(deep), "PNG", mode="I;16")
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.repeat(deep[..., None], 3, axis=2))
    expect("deep-colour.png", format="PNG", mode="RGB", width=64, height=64).write_bytes(png(64, 64, 16, 2, rows))
    for name in ("žluťoučký 靴 👟.png", "-rf.png", "--help.png", "line\nbreak.png", "\x1b[31mred.png"):
        save(name, good, "PNG")
    for name in ("'quotes\".png", "<img src=x onerror=alert(1)>.png", "=1+1.png", "%s{0}$(id).png", "a" * 251 + ".png"):
        save(name, good, "PNG")
    save(os.fsdecode(b"latin-1-\xe9.png"), good, "PNG")

    # not usable
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpg")):
        whole = outside / f"whole.{suffix}"
        Image.fromarray(picture(4, 300, 300)).save(whole, format=kind)
        expect(f"torn.{suffix}", DAMAGED).write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    good.save(outside / "whole.avif")
    whole_avif = (outside / "whole.avif").read_bytes()
    start = whole_avif.index(b"mdat") + 4
    expect("avif-called.jpg", DAMAGED).write_bytes(whole_avif[:start] + b"\xff" * 40 + whole_avif[start + 40 :])
    expect("empty.png", "refused: the file is empty").touch()
    expect("text.jpg", NO_IMAGE).write_text("Dear shop, the picture is attached.")
    expect("page.png", NO_IMAGE).write_text("<html><body>404 Not Found</body></html>")
    expect("program.png", NO_IMAGE).write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")  # EPS
    bomb = png(50_000, 50_000, 1, 0, bytes(6251 * 50_000))  # 300 MB of black in 300 kB
    expect("bomb.png", "refused: over 178 megapixels").write_bytes(bomb)
    Image.fromarray(np.zeros((20, 20), np.float32)).save(expect("float.tif", "refused: floating-point samples"))
    with expect("vast.png", "refused: over 1024 MiB").open("wb") as stream:
        stream.truncate(2**40)  # a hole: takes no room on disk
    secret = expect("secret.png", UNREADABLE)
    good.save(secret)
    secret.chmod(0)

    # no files of this folder
    target = outside / "other.png"
    good.save(target)
    expect("link-out.png", OUT_OF_FOLDER).symlink_to(target)
    (folder / "link-to-folder").symlink_to(outside)
    expect("link-to-folder/other.png", OUT_OF_FOLDER, listed=False)
    expect("link-inside.png", format="PNG").symlink_to("plain.png")
    expect("link-to-nothing.png", UNREADABLE, listed=False).symlink_to("nothing.png")
    expect("link-to-itself.png", UNREADABLE, listed=False).symlink_to("link-to-itself.png")
    expect("folder.png", UNREADABLE, listed=False).mkdir()
    os.mkfifo(expect("pipe.png", "refused: no file but a pipe", listed=False))
    here = Path.cwd()
    os.chdir(folder)  # a socket's path may have 107 characters only
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.png")
    finally:
        os.chdir(here)
    expect("socket.png", UNREADABLE, listed=False)
    return horrors
