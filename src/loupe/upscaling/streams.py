"""PNG and JPEG files of pictures that come in strips, so that a large one never lies in memory as a whole.

Pillow writes whole pictures only. So it writes a tiny one with all metadata, whose head is taken over with another
size. The rest of a PNG are filtered rows in one zlib stream. The rest of a JPEG are strips that Pillow encodes one by
one: with a restart marker behind every row of blocks the code of one does not depend on what came before, and can be
joined. Encoding goes on in a thread of its own while the next strip is made.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from loupe.imaging.resize import Pixels
from loupe.threads import in_order

STREAMED = ("PNG", "JPEG")
PNG_ROWS = 64  # filtered at a time
JPEG_ROWS = 64  # eight rows of blocks, after which the numbers of restart markers begin anew
RESTART_7, END = b"\xff\xd7", b"\xff\xd9"


def write_strips(
    stream: BinaryIO, kind: str, strips: Iterable[Pixels], height: int, width: int, options: dict[str, Any]
) -> None:
    """Write a PNG or JPEG.

    Args:
        stream: where to.
        kind: one of STREAMED.
        strips: uint8 [some rows, width(, C)], `height` rows in all; for JPEG gray or RGB.
        height: of the picture.
        width: of the picture.
        options: what Pillow's writer is to be told.
    """
    if kind == "PNG":
        _write_png(stream, strips, height, width, options)
    else:
        _write_jpeg(stream, strips, height, options)


def _write_png(stream: BinaryIO, strips: Iterable[Pixels], height: int, width: int, options: dict[str, Any]) -> None:
    packer = zlib.compressobj(options.get("compress_level", 6))
    last: Pixels | None = None

    def encode(rows: Pixels) -> bytes:
        nonlocal last
        above = np.zeros_like(rows[:1]) if last is None else last
        last = rows[-1:]
        return packer.compress(filtered(np.concatenate([above, rows])))

    blocks = _blocks(strips, PNG_ROWS)
    first = next(blocks)
    head, tail = _around_pixels(first[:1, :1], options)
    size = struct.pack(">II", width, height)
    stream.write(head[:8] + _chunk(b"IHDR", size + head[24:29]) + head[33:])
    for data in in_order(encode, chain([first], blocks), workers=1, ahead=2):
        if data:
            stream.write(_chunk(b"IDAT", data))
    stream.write(_chunk(b"IDAT", packer.flush()) + tail)


def filtered(rows: Pixels) -> bytes:
    """Rows as PNG stores them, each behind the number of its filter.

    Args:
        rows: uint8 [1 + n, width(, C)]; the first is the one above, which is not stored.

    Returns:
        n * (1 + width * C) bytes. Of Sub, Up and Paeth each row has the one whose differences are smallest, as the PNG
        specification (12.7) suggests.
    """
    count, width = len(rows) - 1, rows.shape[1]
    levels = rows.reshape(count + 1, width, -1).astype(np.int16)
    left = np.pad(levels, ((0, 0), (1, 0), (0, 0)))
    here, above, before, corner = levels[1:], levels[:-1], left[1:, :-1], left[:-1, :-1]
    base = before + above - corner
    to_left, to_above, to_corner = np.abs(base - before), np.abs(base - above), np.abs(base - corner)
    nearest = np.where(to_above <= to_corner, above, corner)
    paeth = np.where((to_left <= to_above) & (to_left <= to_corner), before, nearest)
    candidates = [(here - guess).astype(np.uint8).reshape(count, -1) for guess in (before, above, paeth)]
    sizes = [np.abs(candidate.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for candidate in candidates]
    chosen = np.argmin(sizes, axis=0)
    stored = np.empty((count, 1 + candidates[0].shape[1]), np.uint8)
    stored[:, 0] = np.array([1, 2, 4])[chosen]
    stored[:, 1:] = np.stack(candidates)[chosen, np.arange(count)]
    return stored.tobytes()


def _around_pixels(pixel: Pixels, options: dict[str, Any]) -> tuple[bytes, bytes]:
    """What stands before and behind the pixels in a PNG with these options; `pixel` is of the picture's kind."""
    small = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixel)).save(small, "PNG", **options)
    data, place = small.getvalue(), 8
    first = last = 0
    while place < len(data):
        (size,), name = struct.unpack(">I", data[place : place + 4]), data[place + 4 : place + 8]
        if name == b"IDAT":
            first, last = first or place, place + 12 + size
        place += 12 + size
    return data[:first], data[last:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _write_jpeg(stream: BinaryIO, strips: Iterable[Pixels], height: int, options: dict[str, Any]) -> None:
    coding: dict[str, Any] = {key: options[key] for key in ("quality", "subsampling") if key in options}
    described: dict[str, Any] = options | {"progressive": False}

    def encode(part: tuple[Pixels, bool]) -> bytes:
        rows, first = part
        encoded = io.BytesIO()
        image = Image.fromarray(np.ascontiguousarray(rows))
        image.save(encoded, "JPEG", restart_marker_rows=1, **(described if first else coding))
        data = encoded.getvalue()
        start = _code_of(data)
        code = data[start : -len(END)]
        return _with_height(data[:start], height) + code if first else RESTART_7 + code

    parts = ((rows, number == 0) for number, rows in enumerate(_blocks(strips, JPEG_ROWS)))
    for data in in_order(encode, parts, workers=1, ahead=2):
        stream.write(data)
    stream.write(END)


def _code_of(data: bytes) -> int:
    """Where the code of the pixels begins in a JPEG file."""
    place = 2
    while data[place + 1] != 0xDA:  # start of scan
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def _with_height(head: bytes, height: int) -> bytes:
    """The head of a JPEG file, with another height in its start of frame."""
    place = 2
    while head[place + 1] != 0xC0:  # baseline
        place += 2 + int.from_bytes(head[place + 2 : place + 4], "big")
    return head[: place + 5] + struct.pack(">H", height) + head[place + 7 :]


def _blocks(strips: Iterable[Pixels], rows: int) -> Iterator[Pixels]:
    """The same picture in strips of so many rows; the last one may have fewer."""
    kept: Pixels | None = None
    for strip in strips:
        if kept is not None:  # only what completes it is copied: a strip may be large
            missing = rows - len(kept)
            kept, strip = np.concatenate([kept, strip[:missing]]), strip[missing:]
            if len(kept) < rows:
                continue
            yield kept
        end = len(strip) // rows * rows
        for top in range(0, end, rows):
            yield strip[top : top + rows]
        kept = strip[end:].copy() if end < len(strip) else None
    if kept is not None:
        yield kept
