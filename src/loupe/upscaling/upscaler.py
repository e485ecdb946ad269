"""The object that a program holds: a network, ready to enlarge any picture.

    upscaler = loupe.load("bundle")
    sharp = upscaler.upscale(image)  # uint8 [H, W(, 3 or 4)], or a picture of Pillow's; twice the size, the same kind

The network knows RGB only. Gray goes through it as three equal channels and comes back as their luma. With transparency
colours are premultiplied by alpha, so that what is hidden behind a transparent edge does not shine through, and alpha
goes through the network as a gray picture of its own; there it may not leave the range of its neighbours, or what was
opaque would end up a little transparent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

import numpy as np
from PIL import Image

from loupe.errors import InputError
from loupe.imaging.files import expanded
from loupe.imaging.resize import Pixels
from loupe.upscaling.tiles import Enlarger, Rows, Tiler

MEMORY = 2**30  # bytes that one window may take in the network, where nobody says otherwise
KINDS = ("L", "LA", "RGB", "RGBA")

Picture = TypeVar("Picture", Pixels, Image.Image)


class Upscaler:
    """A network that enlarges pictures of any kind and size; threads may share one.

    Args:
        enlarger: the network.
        scale: size factor of each side: the network's own, or its square by two passes. Between these the picture is
            rounded to 8 bits, as the network's input always is.
        memory: bytes that the network may take at once.

    Attributes:
        scale: size factor.
        identity: what network this is: the sha256 of its file; pictures of one identity are equal.

    Raises:
        InputError: the network cannot reach that scale.
    """

    def __init__(self, enlarger: Enlarger, scale: int | None = None, memory: int = MEMORY, identity: str = "") -> None:
        if scale == enlarger.scale**2:
            enlarger = Twice(enlarger)
        elif scale not in (None, enlarger.scale):
            raise InputError(
                f"this network enlarges {enlarger.scale} times, or {enlarger.scale**2} times by two passes; not {scale}"
            )
        self.scale = enlarger.scale
        self.identity = identity
        self._enlarger = enlarger
        self._lock = threading.Lock()  # one window at a time, so that memory is that of one
        reach = max(1, enlarger.halo)  # alpha looks at its neighbours
        self._tiler = Tiler(self._any_kind, enlarger.scale, reach, memory // enlarger.bytes_per_pixel)

    def upscale(self, image: Picture) -> Picture:
        """Enlarge one picture.

        Args:
            image: uint8 [H, W] gray, [H, W, 2] gray and alpha, [H, W, 3] sRGB or [H, W, 4] sRGB and alpha (not
                premultiplied), any size from
                1 x 1; or a picture of Pillow's with 8 bits a channel.

        Returns:
            The same kind, each side `scale` times as long. Pillow's palettes become RGB or RGBA, bilevel gray.

        Raises:
            InputError: another type or shape; or not enough memory for even a small part.
        """
        if isinstance(image, Image.Image):
            plain = expanded(image)
            plain = plain.convert("L") if plain.mode == "1" else plain
            if plain.mode not in KINDS:
                raise InputError(f"a picture of mode {image.mode}; convert it to RGB, RGBA or L first")
            enlarged = Image.fromarray(self.upscale(np.asarray(plain)))
            enlarged.info = {key: value for key, value in image.info.items() if key != "transparency"}
            return enlarged
        known = image.ndim > 1 and image.shape[2:] in ((), (2,), (3,), (4,)) and 0 not in image.shape
        if image.dtype != np.uint8 or not known:
            raise InputError(f"{image.dtype} {list(image.shape)}: a picture is uint8 [H, W], [H, W, 3] or [H, W, 4]")
        return self._tiler.whole(image)

    def strips(self, picture: Rows) -> Iterator[Pixels]:
        """The enlarged picture in strips of rows from top to bottom, for one too large to be held; see `upscale`."""
        return self._tiler.strips(picture)

    def _any_kind(self, window: Pixels) -> Pixels:
        """uint8 [h, w(, 1 to 4)] -> uint8 [h * scale, w * scale(, 1 to 4)]."""
        if window.ndim == 2:
            return self._gray(window)
        if window.shape[2] == 3:
            return self._colour(window)
        if window.shape[2] == 1:
            return self._gray(window[..., 0])[..., None]
        colour, alpha = window[..., :-1], window[..., -1]
        enlarged = self._any_kind(premultiplied(colour, alpha))
        if alpha.min() == alpha.max():
            opacity = np.full(enlarged.shape[:2], alpha.flat[0])
        else:
            opacity = among_neighbours(self._gray(alpha), alpha)
        return np.dstack([straight(enlarged, opacity), opacity])

    def _gray(self, window: Pixels) -> Pixels:
        return np.asarray(Image.fromarray(self._colour(np.repeat(window[..., None], 3, axis=2))).convert("L"))

    def _colour(self, window: Pixels) -> Pixels:
        with self._lock:
            made = self._enlarger(np.ascontiguousarray(window)[None])
        height, width = window.shape[:2]
        if made.shape != (1, height * self.scale, width * self.scale, 3) or made.dtype != np.uint8:
            raise InputError(
                f"the model made {made.dtype} {list(made.shape)} of {height} x {width} pixels; it is none of loupe's"
            )
        window_made: Pixels = made[0]
        return window_made


class Twice:
    """An enlarger that goes through another one twice, as an enlarger."""

    def __init__(self, once: Enlarger) -> None:
        self._once = once
        self.scale = once.scale**2
        self.halo = once.halo + -(-once.halo // once.scale)  # the second pass sees as far in finer pixels
        self.bytes_per_pixel = once.bytes_per_pixel * once.scale**2

    def __call__(self, batch: Pixels) -> Pixels:
        """uint8 [N, H, W, 3] -> uint8 [N, H * scale, W * scale, 3]."""
        return self._once(self._once(batch))


def premultiplied(colour: Pixels, alpha: Pixels) -> Pixels:
    """Colours, uint8 [h, w, C], times their alpha, uint8 [h, w], as on black; rounded to the nearest."""
    return ((colour.astype(np.uint16) * alpha[..., None] + 127) // 255).astype(np.uint8)


def straight(colour: Pixels, alpha: Pixels) -> Pixels:
    """The inverse of `premultiplied`, as near as 8 bits allow; black where alpha is 0."""
    opaque = alpha[..., None].astype(np.uint32)
    levels = np.minimum((colour * np.uint32(255) + opaque // 2) // np.maximum(opaque, 1), 255)
    made: Pixels = np.where(opaque > 0, levels, 0).astype(np.uint8)
    return made


def among_neighbours(enlarged: Pixels, original: Pixels) -> Pixels:
    """`enlarged`, uint8 [h * s, w * s], held between least and greatest of 3 x 3 pixels of `original`, uint8 [h, w]."""
    scale = enlarged.shape[0] // original.shape[0]
    bounds = []
    for extreme in (np.minimum, np.maximum):
        lines = np.pad(original, 1, mode="edge")
        lines = extreme(extreme(lines[:-2], lines[1:-1]), lines[2:])
        lines = extreme(extreme(lines[:, :-2], lines[:, 1:-1]), lines[:, 2:])
        bounds.append(lines.repeat(scale, axis=0).repeat(scale, axis=1))
    return np.clip(enlarged, *bounds)
