"""Pictures in and out of `loupe upscale`: the samples of a file, and a file like it with the enlarged ones.

The rules, each said as a note where it changes something:

- The format stays, unless another is asked for. What was lossy stays so, at a quality that keeps what the network made;
  what was lossless stays lossless.
- RGB keeps its colour profile, and its samples go through the network as they are: enlarging moves no colour, and an
  sRGB detour would clip some. CMYK, Lab and the like become sRGB, by their profile where there is one.
- Gray stays gray. Palettes become RGB, and a palette again only in GIF. Bilevel becomes gray.
- Transparency stays; a format without it gets the picture on white.
- 16 bits become 8: the network sees and makes 8.
- EXIF orientation is applied and its tag removed. EXIF, XMP, IPTC, comments, texts and dots per inch stay, and the
  sizes that EXIF names are those of the copy.
- Every frame of an animation, and every page of a TIFF, with their times and the number of repetitions.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from loupe.imaging.files import (
    DECODER_ERRORS,
    ORIENTATION,
    ImageError,
    atomic_file,
    decoded,
    eight_bits,
    expanded,
    on_white,
    read_bytes,
    upright,
)
from loupe.imaging.resize import Pixels
from loupe.upscaling.streams import STREAMED, write_strips

SIDES = {"JPEG": 65535, "WEBP": 16383, "GIF": 65535, "AVIF": 65536}  # the most pixels a side that a format can hold
OPAQUE = ("JPEG", "BMP")  # formats without transparency, as Pillow writes them
WITHOUT_PROFILE = ("GIF", "BMP")
MOVING = ("GIF", "PNG", "WEBP", "AVIF")  # formats with animations
LARGE = 4_000_000  # pixels: above, a picture lies on disk, and its copy is written while it is made
SPILLED_ROWS = 64
ANIMATED_PIXELS = 50_000_000  # of all frames together: they are held in memory at once
JPEG_QUALITY, WEBP_QUALITY, AVIF_QUALITY = 92, 92, 90  # at least; a JPEG of higher quality keeps its own
LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "lzma", "zstd")
MARKER = 65504  # bytes that one segment of a JPEG file has room for, at least

XMP_ORIENTATION = rb'\s*tiff:Orientation="\d"|<tiff:Orientation>\d</tiff:Orientation>'
PIXEL_WIDTH, PIXEL_HEIGHT = 0xA002, 0xA003  # EXIF
EXIF_IFD, GPS_IFD, INTEROPERABILITY, XMP_TAG = 0x8769, 0x8825, 0xA005, 700
# Texts of a PNG whose content is taken over otherwise: as they are they would say that the copy is to be turned
TAKEN_OVER = re.compile("XML:com.adobe.xmp|^Raw profile type (exif|app1)$", re.IGNORECASE)
DESCRIBING = (269, 270, 271, 272, 285, 305, 306, 315, 33432)  # TIFF tags that describe; others say how it is stored


@dataclass(frozen=True)
class Kept:
    """What the copy of a picture takes over from it, as Pillow's writers want it."""

    exif: bytes = b""
    profile: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""  # whole segments of a JPEG file
    comment: bytes = b""
    texts: tuple[tuple[str, str], ...] = ()  # of a PNG
    chunks: tuple[tuple[bytes, bytes], ...] = ()  # of a PNG: what its samples mean
    dpi: tuple[float, float] | None = None
    quality: float = math.nan  # of a JPEG, 1 to 100
    progressive: bool = False
    lossless: bool = False  # of a WebP
    compression: str = ""  # of a TIFF
    durations: tuple[float, ...] = ()  # milliseconds of each frame
    loop: int | None = None  # repetitions; 0 for ever
    default_image: bool = False  # of an animated PNG: its first frame is shown only where animations are not


class Spilled:
    """Samples of a large picture in a file without a name, which takes no memory and vanishes with this object.

    Attributes:
        shape: as that of an array, (H, W) or (H, W, C); `spilled[top:bottom]` reads these rows as uint8.

    Raises:
        ImageError: there is no room for it.
    """

    def __init__(self, image: Image.Image, path: Path) -> None:
        channels = len(image.getbands())
        self.shape = (image.height, image.width, channels)[: 3 if channels > 1 else 2]
        self._row = image.width * channels
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed when nobody needs it any more
        try:
            for top in range(0, image.height, SPILLED_ROWS):
                strip = image.crop((0, top, image.width, min(image.height, top + SPILLED_ROWS)))
                self._file.write(strip.tobytes())
            self._file.flush()
        except OSError as error:
            raise ImageError(
                f"{path}: refused: no room for it in {tempfile.gettempdir()} ({error.strerror}); name another folder "
                "in TMPDIR"
            ) from None

    def __getitem__(self, rows: slice) -> Pixels:
        top, bottom = rows.start, min(rows.stop, self.shape[0])
        data = os.pread(self._file.fileno(), (bottom - top) * self._row, top * self._row)
        return np.frombuffer(data, np.uint8).reshape(bottom - top, *self.shape[1:])

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()


@dataclass(frozen=True)
class Picture:
    """A decoded file.

    path: where it was read. format: Pillow's name of what it is, or is to become. frames: uint8 [H, W] gray, [H, W, 2]
    gray and alpha, [H, W, 3] RGB or [H, W, 4] RGB and alpha (not premultiplied); from one frame, all of one kind.
    large: a single frame of over LARGE pixels, instead. notes: what was changed. kept: what its copy takes over.
    """

    path: Path
    format: str
    frames: tuple[Pixels, ...]
    notes: tuple[str, ...] = ()
    kept: Kept = field(default_factory=Kept)
    large: Spilled | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first frame, as that of an array."""
        return self.large.shape if self.large else self.frames[0].shape


def read_picture(path: Path, data: bytes | None = None, scale: int = 2) -> Picture:
    """Decode a picture with everything that its copy must keep.

    Args:
        path: of the file.
        data: its content, if it was read already.
        scale: how many times larger the copy will be on each side.

    Raises:
        ImageError: see `loupe.imaging.files.read_image`; or an animation that is too large to be held.
    """
    data = read_bytes(path) if data is None else data
    with decoded(path, data) as source:
        image, kind, mode, count = source.image, str(source.image.format), source.image.mode, 1
        notes = ["16 bits reduced to 8"] if source.deep or mode.startswith("I") else []
        if source.orientation > 1:
            notes.append("turned upright by its EXIF orientation")
        first = upright(image, source.orientation)
        kept = _kept(image, data, (first.width * scale, first.height * scale), notes)
        if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX") and not mode.startswith("I"):
            kept = replace(kept, profile=b"", chunks=())  # they described other samples
        if kind == "MPO":
            kind = "JPEG"  # the pictures behind the first are previews, or depth
        elif kind in MOVING or kind == "TIFF":
            count = source.frames
        pixels = first.width * first.height
        if count == 1 and pixels > LARGE:
            large = Spilled(_plain(first, path, notes), path)
            return Picture(path, kind, (), tuple(dict.fromkeys(notes)), kept, large)
        frames, durations = [np.asarray(_plain(first, path, notes))], [float(image.info.get("duration", 0))]
        for number in range(1, count):
            image.seek(number)
            pixels += image.width * image.height
            if pixels > ANIMATED_PIXELS:
                limit = ANIMATED_PIXELS // 10**6
                raise ImageError(f"{path}: refused: {count} frames of over {limit} megapixels in all; split it")
            frames.append(np.asarray(_plain(upright(image, source.orientation), path, [])))
            durations.append(float(image.info.get("duration", 0)))
        if count > 1:
            kept = replace(kept, durations=tuple(durations))
        return Picture(path, kind, _alike(frames), tuple(dict.fromkeys(notes)), kept)


def check_sides(path: Path, kind: str, height: int, width: int) -> None:
    """Whether the format `kind` can hold a picture of so many pixels.

    Raises:
        ImageError: it cannot.
    """
    if max(height, width) > SIDES.get(kind, max(height, width)):
        raise ImageError(
            f"{path}: refused: {width} x {height} pixels are more than {kind} can hold, {SIDES[kind]} a side; "
            "write it as PNG (--format png)"
        )


def write_large(path: Path, picture: Picture, strips: Iterator[Pixels], scale: int) -> tuple[str, ...]:
    """Write the enlarged picture while it is made; see `write_picture`.

    Args:
        path: where to.
        picture: as it was read; one frame.
        strips: of the enlarged one, uint8 [some rows, W * scale(, C)].
        scale: how many times larger it is on each side.
    """
    if picture.format not in STREAMED:
        whole = np.concatenate(list(strips))
        return write_picture(path, replace(picture, frames=(whole,)))
    height, width = (side * scale for side in picture.shape[:2])
    notes: list[str] = []
    mode = ("L", "LA", "RGB", "RGBA")[(1, *picture.shape[2:])[-1] - 1]
    if picture.format in OPAQUE and mode in ("LA", "RGBA"):
        notes.append(f"{mode} composited on white: {picture.format} has no transparency")
        strips = (np.asarray(on_white(Image.fromarray(strip))) for strip in strips)
    options = _options(picture.format, picture.kept, mode, False, notes)
    with atomic_file(path) as stream:
        write_strips(stream, picture.format, strips, height, width, options)
    return tuple(notes)


def write_picture(path: Path, picture: Picture) -> tuple[str, ...]:
    """Write a picture in its format with all that it keeps: whole, or not at all.

    Returns:
        Notes about what had to be changed for that.

    Raises:
        ImageError: the format cannot hold it. OSError: it cannot be written.
    """
    height, width = picture.frames[0].shape[:2]
    check_sides(picture.path, picture.format, height, width)
    notes: list[str] = []
    frames = picture.frames
    if len(frames) > 1 and picture.format not in (*MOVING, "TIFF"):
        notes.append(f"first of {len(frames)} frames written: {picture.format} holds one")
        frames = frames[:1]
    if picture.format != "TIFF" and len({frame.shape[:2] for frame in frames}) > 1:
        raise ImageError(f"{picture.path}: pages of different sizes, which only TIFF can hold; use --format tiff")
    images = [Image.fromarray(frame) for frame in frames]
    if picture.format in OPAQUE and images[0].mode in ("LA", "RGBA"):
        notes.append(f"{images[0].mode} composited on white: {picture.format} has no transparency")
        images = [on_white(image) for image in images]
    if picture.format in WITHOUT_PROFILE and picture.kept.profile and images[0].mode in ("RGB", "RGBA"):
        notes.append(f"taken to sRGB: {picture.format} has no colour profile")
        images = [_to_srgb(image, picture.kept.profile) for image in images]
    options = _options(picture.format, picture.kept, images[0].mode, len(images) > 1, notes)
    if picture.format == "GIF":
        images = [_with_palette(image) for image in images]
    with atomic_file(path) as stream:
        _save(images, stream, picture.format, options)
    return tuple(notes)


def _save(images: Sequence[Image.Image], stream: BinaryIO, kind: str, options: dict[str, Any]) -> None:
    if len(images) > 1:
        options = {**options, "save_all": True, "append_images": images[1:]}
    try:
        images[0].save(stream, format=kind, **options)
    except DECODER_ERRORS as error:
        raise OSError(f"cannot be written as {kind} ({error})") from error


def _alike(frames: Sequence[Pixels]) -> tuple[Pixels, ...]:
    """Frames of one kind, which has all that any of them has."""
    modes = {Image.fromarray(frame[:1, :1]).mode for frame in frames}
    if len(modes) == 1:
        return tuple(frames)
    colour, alpha = modes & {"RGB", "RGBA"}, modes & {"LA", "RGBA"}
    common = ("RGBA" if alpha else "RGB") if colour else ("LA" if alpha else "L")
    return tuple(np.asarray(Image.fromarray(frame).convert(common)) for frame in frames)


def _plain(image: Image.Image, path: Path, notes: list[str]) -> Image.Image:
    """A decoded frame as L, LA, RGB or RGBA of 8 bits."""
    profile = image.info.get("icc_profile")
    mode = image.mode
    image = eight_bits(image, path)
    if image.mode in ("1", "L") and "transparency" in image.info:
        image = image.convert("LA")
    image = expanded(image)
    if image.mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if image.mode in ("1", "La", "PA", "RGBa"):
        return image.convert({"1": "L", "La": "LA"}.get(image.mode, "RGBA"))
    if image.mode == "RGBX":
        return image.convert("RGB")
    notes.append(f"{mode} converted to sRGB")
    if profile and image.mode in ("CMYK", "LAB"):
        try:
            return _to_srgb(image, profile)
        except DECODER_ERRORS:
            notes.append("its damaged colour profile left out")
    return image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Samples of a picture as its colour profile means them, in sRGB: RGB, or RGBA from RGBA."""
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, source, target, outputMode=mode)
    return image if converted is None else converted


def _kept(image: Image.Image, data: bytes, size: tuple[int, int], notes: list[str]) -> Kept:
    """What is to be taken over from the decoded picture that `data` holds; `size` is the copy's width and height."""
    info = image.info
    kept = Kept(
        exif=_exif(image, size, notes),
        profile=_profile(info.get("icc_profile"), notes),
        xmp=re.sub(XMP_ORIENTATION, b"", _bytes(info.get("xmp"))),
        comment=_bytes(info.get("comment")),
        dpi=_dpi(info.get("dpi")),
        loop=info["loop"] if isinstance(info.get("loop"), int) else None,
        default_image=bool(info.get("default_image")),
    )
    if image.format in ("JPEG", "MPO"):
        from loupe.imaging.facts import jpeg_quality  # brings SciPy's Fourier transform along

        table = getattr(image, "quantization", {}).get(0)
        segments = [body for name, body in getattr(image, "applist", []) if name == "APP13" and len(body) <= MARKER]
        kept = replace(
            kept,
            quality=jpeg_quality(table) if table else math.nan,
            progressive=bool(info.get("progressive")),
            iptc=b"".join(b"\xff\xed" + struct.pack(">H", len(body) + 2) + body for body in segments),
        )
    elif isinstance(image, PngImagePlugin.PngImageFile):
        texts = ((key, text) for key, text in image.text.items() if isinstance(text, str))
        kept = replace(
            kept,
            texts=tuple((key, text) for key, text in texts if not TAKEN_OVER.search(key)),
            chunks=_colour_chunks(info),
        )
    elif image.format == "WEBP":
        kept = replace(kept, lossless=_lossless_webp(data))
    elif image.format == "TIFF":
        kept = replace(kept, compression=str(info.get("compression", "")))
    return kept


def _exif(image: Image.Image, size: tuple[int, int], notes: list[str]) -> bytes:
    """EXIF without orientation, with the new sizes; b"" where there is none or it is damaged."""
    try:
        source = image.getexif()
        if not source:
            return b""
        stored = image.info.get("exif")
        exif = Image.Exif()
        exif.endian = source.endian
        groups = {group: dict(source.get_ifd(group)) for group in (EXIF_IFD, GPS_IFD)}
        pixels = groups[EXIF_IFD]
        if INTEROPERABILITY in pixels:  # Pillow gives it as its place in the old file
            pixels[INTEROPERABILITY] = dict(source.get_ifd(INTEROPERABILITY))
        sizes = [tag for tag in (PIXEL_WIDTH, PIXEL_HEIGHT) if tag in pixels]
        if isinstance(stored, bytes) and not sizes and ORIENTATION not in source:
            return stored  # to the byte
        pixels.update((tag, size[tag - PIXEL_WIDTH]) for tag in sizes)
        for tag, value in source.items():
            if tag != ORIENTATION and tag not in groups and (image.format != "TIFF" or tag in DESCRIBING):
                exif[tag] = value
        for group, tags in groups.items():
            if tags:
                exif.get_ifd(group).update(tags)
        return exif.tobytes() if exif or any(groups.values()) else b""
    except DECODER_ERRORS:
        notes.append("its damaged EXIF left out")
        return b""


def _profile(profile: Any, notes: list[str]) -> bytes:
    if not isinstance(profile, bytes) or not profile:
        return b""
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except DECODER_ERRORS:
        notes.append("its damaged colour profile left out")
        return b""
    return profile


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value if isinstance(value, bytes) else b""


def _dpi(value: Any) -> tuple[float, float] | None:
    """Dots per inch, if they can be true."""
    try:
        x, y = float(value[0]), float(value[1])
    except (TypeError, ValueError, LookupError, ArithmeticError):
        return None
    return (x, y) if 1 < x < 65535 and 1 < y < 65535 else None  # 1: what Pillow says where nothing does


def _colour_chunks(info: dict[Any, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """gAMA, cHRM and sRGB of a PNG: Pillow reads them and would write none."""
    chunks = []
    try:
        if "gamma" in info:
            chunks.append((b"gAMA", struct.pack(">I", round(info["gamma"] * 100_000))))
        if "chromaticity" in info:
            chunks.append((b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in info["chromaticity"]))))
        if "srgb" in info:
            chunks.append((b"sRGB", bytes([info["srgb"]])))
    except DECODER_ERRORS:
        return ()
    return tuple(chunks)


def _lossless_webp(data: bytes) -> bool:
    """Whether the first picture in a WebP file is stored as VP8L rather than VP8."""
    place = 12  # behind RIFF, its size, WEBP
    while place + 8 <= len(data):
        name, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        place += 8 + (16 if name == b"ANMF" else size + size % 2)  # a frame of an animation begins with 16 bytes
    return False


def _options(kind: str, kept: Kept, mode: str, moving: bool, notes: list[str]) -> dict[str, Any]:
    """What Pillow's writer of the format `kind` is to be told."""
    options: dict[str, Any] = {}
    if kind in ("PNG", "JPEG", "TIFF", "BMP") and kept.dpi:
        options["dpi"] = kept.dpi
    if kind in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF"):
        options |= {"icc_profile": kept.profile, "exif": kept.exif}
    if kind in ("JPEG", "WEBP", "AVIF"):
        options["xmp"] = kept.xmp
    if moving and kind in MOVING:
        options["duration"] = list(kept.durations)
        if kept.loop is not None and kind != "AVIF":
            options["loop"] = kept.loop
    if kind == "PNG":
        options |= {"pnginfo": _pnginfo(kept), "compress_level": 4}
        if moving:
            options |= {"disposal": 0, "blend": 0, "default_image": kept.default_image}
            if kept.default_image:
                options["duration"] = options["duration"][1:]
    elif kind == "JPEG":
        for name in ("exif", "xmp"):
            if len(options[name]) > MARKER:
                notes.append(f"its {name.upper()} left out: too long for JPEG")
                options[name] = b""
        quality = JPEG_QUALITY if math.isnan(kept.quality) else max(JPEG_QUALITY, round(kept.quality))
        options |= {
            "quality": quality,
            "subsampling": 0,  # 4:4:4: the network's colours are as fine as its luma
            "progressive": kept.progressive,
            "comment": kept.comment[:MARKER],
            "extra": kept.iptc,
        }
    elif kind == "WEBP":
        options |= {"lossless": kept.lossless, "quality": 60 if kept.lossless else WEBP_QUALITY, "exact": True}
        if not kept.lossless:
            options["method"] = 4
    elif kind == "AVIF":
        options |= {"quality": AVIF_QUALITY, "subsampling": "4:0:0" if mode in ("L", "LA") else "4:4:4"}
    elif kind == "TIFF":
        lossless = kept.compression if kept.compression in LOSSLESS_TIFF else "tiff_adobe_deflate"
        options["compression"] = lossless
        if kept.xmp:
            exif = Image.Exif()
            if kept.exif:
                exif.load(kept.exif)
            exif[XMP_TAG] = kept.xmp
            options["exif"] = exif
    elif kind == "GIF":
        if kept.comment:
            options["comment"] = kept.comment
        if moving:
            options["disposal"] = 2  # back to the background: every frame is whole
    return options


def _pnginfo(kept: Kept) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, data in kept.chunks:
        info.add(name, data)
    for key, text in kept.texts:
        info.add_text(key, text)
    if kept.xmp:
        info.add_itxt("XML:com.adobe.xmp", kept.xmp.decode("utf-8", "replace"))
    return info


def _with_palette(image: Image.Image) -> Image.Image:
    """A frame for a GIF: at most 256 colours, of which the last is transparent if the frame has transparency."""
    if image.mode == "L":
        return image
    if image.mode == "RGB":
        return image.quantize(256, Image.Quantize.MEDIANCUT)
    reduced = image.convert("RGB").quantize(255, Image.Quantize.MEDIANCUT)
    palette = (reduced.getpalette() or [])[: 255 * 3]
    transparent = np.asarray(image.getchannel("A")) < 128
    framed = Image.fromarray(np.where(transparent, 255, np.asarray(reduced)).astype(np.uint8))
    framed.putpalette(palette + [0] * (256 * 3 - len(palette)))
    framed.info["transparency"] = 255
    return framed
