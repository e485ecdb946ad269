"""Image files in and out: every picture becomes 8-bit sRGB, and whatever had to be changed for that is said.

Inside the project an image is uint8 [H, W, 3], or [H, W] when the file holds a single gray channel. Reading never
guesses silently: `read_image` returns notes such as "RGBA composited on white", and refuses with an `ImageError` that
names the file and what to do.
"""

from __future__ import annotations

import io
import os
import secrets
import shutil
import stat
import struct
import warnings
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from loupe.errors import InputError
from loupe.imaging.resize import Pixels

# The decoders that may touch a file, by Pillow's names, and the suffixes that fit. The content decides which of them
# is used, whatever the file is called, and Pillow has more: that of EPS runs a program.
FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # JPEG with more pictures behind the first, as some phones write; found by that decoder
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "AVIF": (),  # read where a shop's server sent it under another name; not looked for
}
DECODERS = tuple(name for name in FORMATS if name != "MPO")
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
# What Pillow raises on damaged files. Its parsers unpack, index and divide by what they read, and let the error of that
# pass; where, changes with its releases. A lack of memory and a user's interrupt say nothing of the file: not here.
DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, RuntimeError, EOFError, ImageCms.PyCMSError),  # raised on purpose
    *(ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, struct.error, zlib.error),
)
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {  # its values to what makes a picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MOST_BYTES = 2**30  # a file is read into memory; the largest pictures that are decoded take half of that


class ImageError(InputError):
    """A file that cannot be used as an image; the message names the file, the reason and what to do."""


@dataclass(frozen=True)
class LoadedImage:
    """A decoded image file.

    pixels: uint8 [H, W, 3] sRGB, or [H, W] for a file with one gray channel. notes: what was changed, if anything.
    """

    pixels: Pixels
    notes: tuple[str, ...] = ()

    @property
    def rgb(self) -> Pixels:
        """uint8 [H, W, 3]; a gray channel is repeated."""
        return self.pixels if self.pixels.ndim == 3 else np.repeat(self.pixels[..., None], 3, axis=2)


@dataclass(frozen=True)
class Decoded:
    """The picture of a file, decoded but not yet converted, and what its decoder knows of it.

    image: of any mode. deep: whether samples have 16 bits. frames: from 1; `image` is the first. orientation: EXIF, 1
    (upright) to 8, by which `image` is still to be turned; 1 also for a TIFF, whose decoder turns it.
    """

    image: Image.Image
    deep: bool
    frames: int
    orientation: int


def find_images(folder: Path, suffixes: Container[str] = SUFFIXES) -> list[Path]:
    """The files in `folder` and below with one of `suffixes`, sorted by path; hidden ones are left out.

    Raises:
        ImageError: there is no such folder.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder}: no such folder")
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def read_image(path: Path) -> LoadedImage:
    """Decode `path` into 8-bit sRGB.

    Rules: EXIF orientation is applied; of an animation the first frame is taken; transparency is composited on white;
    16-bit samples are scaled to 8; palettes are expanded; CMYK and other colour spaces go to sRGB, through the
    embedded ICC profile where there is one; one gray channel stays one channel.

    Raises:
        ImageError: the file is unreadable, empty, truncated, no image, a decompression bomb, or of a kind (such as
            floating point) whose range is unknown.
    """
    with decoded(path, read_bytes(path)) as picture:
        return _to_srgb(picture, path)


def read_bytes(path: Path) -> bytes:
    """The content of an image file; never waits for what is no file, such as a pipe.

    Raises:
        ImageError: the file is not there or unreadable, no regular file, empty, or over MOST_BYTES.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as stream:  # Path.open takes no opener
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{path}: refused: no file but a pipe or a device; deliver a picture")
            if status.st_size == 0:
                raise ImageError(f"{path}: refused: the file is empty; deliver it again")
            if status.st_size > MOST_BYTES:
                raise ImageError(f"{path}: refused: over {MOST_BYTES >> 20} MiB; deliver it compressed")
            return stream.read()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ImageError(f"{path}: refused: cannot be read ({reason}); check the file and its permissions") from None


@contextmanager
def decoded(path: Path, data: bytes) -> Iterator[Decoded]:
    """The picture in `data`, the content of `path`.

    Raises:
        ImageError: what `read_image` says of content. Errors of decoders inside the block become one, too.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata; pixels are what counts here
            with Image.open(io.BytesIO(data), formats=DECODERS) as image:
                frames = getattr(image, "n_frames", 1)  # to count them after decoding throws pixels away
                deep = any(";16" in str(tile) for tile in image.tile)  # Pillow keeps the high bytes of 16-bit colour
                image.load()
                yield Decoded(image, deep, frames, orientation(image))
    except UnidentifiedImageError:
        raise ImageError(f"{path}: refused: not an image that can be decoded; deliver it as PNG or JPEG") from None
    except ImageError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6  # where Pillow refuses
        raise ImageError(f"{path}: refused: over {limit} megapixels, as decompression bombs have") from None
    except MemoryError:
        raise ImageError(f"{path}: refused: not enough memory to decode it") from None
    except DECODER_ERRORS as error:
        told = isinstance(error, (OSError, SyntaxError, ValueError, RuntimeError))  # of the others the name says more
        reason = getattr(error, "strerror", None) or (str(error) if told else repr(error))
        raise ImageError(f"{path}: refused: damaged or truncated ({reason}); deliver it again") from None


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of a decoded picture, 1 (upright) to 8.

    1 also where EXIF is damaged: many programs write it badly, and the pixels are good without.
    """
    try:
        value = image.getexif().get(ORIENTATION)
    except DECODER_ERRORS:
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """`image` turned or mirrored as its EXIF orientation, 1 to 8, asks for."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """`image` with 8 bits a sample: 16-bit gray scaled to them, all else unchanged.

    Raises:
        ImageError: floating point, or integers beyond 16 bits, whose range is unknown.
    """
    if image.mode.startswith("I"):  # I;16, I;16B, or 32-bit integers holding 16-bit gray
        samples = np.asarray(image)
        if samples.size and (samples.min() < 0 or samples.max() > 65535):
            raise ImageError(f"{path}: refused: {image.mode} samples outside 0..65535; deliver 8 or 16 bits a channel")
        gray = Image.fromarray(((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
        clear = image.info.get("transparency")  # a level, which may be one with others once there are 256
        if not isinstance(clear, int):
            return gray
        return Image.merge("LA", (gray, Image.fromarray(np.where(samples == clear, 0, 255).astype(np.uint8))))
    if image.mode == "F":
        raise ImageError(f"{path}: refused: floating-point samples have no known range; deliver 8 or 16 bits a channel")
    return image


def expanded(image: Image.Image) -> Image.Image:
    """`image` with palettes and transparent colours expanded to RGB or RGBA."""
    if image.mode == "P" or (image.mode in ("RGB", "L", "1") and "transparency" in image.info):
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image


def on_white(image: Image.Image) -> Image.Image:
    """An expanded `image` with its transparency composited on white, if it has any: then L or RGB."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
        return image
    alpha = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(alpha, mask=alpha)  # what alpha_composite gives, in a quarter of the time
    return canvas.convert("L") if image.mode.startswith("L") else canvas


def write_png(path: Path, pixels: Pixels) -> None:
    """Write uint8 [H, W, 3] or [H, W] as PNG: under a temporary name first, so that `path` is never half a file."""
    with atomic_file(path) as stream:
        Image.fromarray(pixels).save(stream, format="PNG")


@contextmanager
def atomic_folder(path: Path, resume: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, beside `path`, which it replaces when the block ends well.

    When the block fails the folder vanishes. With `resume` it stays, and the next time it is found as it was left: the
    block must then know what in it is whole.
    """
    temporary = path.with_name(f"{path.name}.part")
    if not resume:
        shutil.rmtree(temporary, ignore_errors=True)  # what a killed run left
    temporary.mkdir(parents=True, exist_ok=resume)
    try:
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    finally:
        if not resume:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open `path` for writing bytes; it appears under its name when the block ends well, else not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")  # short: the name itself may be as long as names can be
    try:
        with temporary.open("w+b") as stream:  # Pillow reads what it wrote of a TIFF with pages
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _without_waiting(path: str, flags: int) -> int:
    """Opens a pipe that nobody writes to at once, where `open` alone would wait for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _to_srgb(picture: Decoded, path: Path) -> LoadedImage:
    """Convert a decoded picture by the rules of `read_image`."""
    notes: list[str] = []
    image = picture.image
    if picture.deep and not image.mode.startswith("I"):
        notes.append("16-bit colour reduced to 8 bits")
    if picture.frames > 1:
        notes.append(f"first of {picture.frames} frames taken")
    if picture.orientation > 1:
        notes.append("turned upright by its EXIF orientation")
    if image.mode.startswith("I"):
        notes.append("16-bit gray scaled to 8 bits")
    profile = image.info.get("icc_profile")
    image = eight_bits(upright(image, picture.orientation), path)
    mode = image.mode
    image = expanded(image)
    if image.mode != mode:
        notes.append(f"{_mode_name(mode)} expanded to {image.mode}")
    mode = image.mode
    image = on_white(image)
    if image.mode != mode:
        notes.append(f"{mode} composited on white")
    if image.mode == "1":
        notes.append("bilevel expanded to gray")
        image = image.convert("L")
    image = _apply_profile(image, profile, notes)
    if image.mode not in ("L", "RGB"):
        notes.append(f"{image.mode} converted to RGB")
        image = image.convert("RGB")
    return LoadedImage(np.asarray(image), tuple(notes))


def _apply_profile(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Take an RGB or CMYK image with an embedded ICC profile other than sRGB to sRGB; a bad profile is ignored."""
    if not profile or image.mode not in ("RGB", "CMYK"):  # a gray profile changes tone, not colour: kept as it is
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = ImageCms.getProfileDescription(source).strip()
        if "srgb" in name.lower():
            return image
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except DECODER_ERRORS:
        notes.append("its damaged colour profile ignored")
        return image
    notes.append(f"converted from the colour profile {name!r} to sRGB")
    return converted if converted is not None else image


def _mode_name(mode: str) -> str:
    return {"P": "palette", "1": "bilevel"}.get(mode, mode)
