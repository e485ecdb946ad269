"""What a shop's delivery chain does to a picture besides reducing it: blur, reduction, noise, JPEG, in this order.

`draw` chooses the settings of one sample, `apply` carries them out, `degrade` does both. Randomness comes only from the
generator that is passed in: a sample with a generator of its own, such as `default_rng([seed, step, i])`, has the same
bytes whatever batch it is in. With every probability 0, the default, `degrade` is `downscale`.

    >>> rng, hr = np.random.default_rng([0, 17, 3]), np.zeros((600, 400, 3), np.uint8)
    >>> settings = draw(Degradation(jpeg_probability=1.0, jpeg_quality=(75, 75), jpeg_420_share=1.0), rng)
    >>> settings
    Settings(blur_sigma=None, shot_peak=None, noise_sigma=None, jpeg_quality=75, jpeg_subsampling='4:2:0')
    >>> apply(hr, 2, settings, rng, part=np.s_[100:132, 40:72]).shape    # a patch: only the HR around it is worked on
    (32, 32, 3)

docs/degradations.md shows the steps and gives the reasons for the ranges.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from loupe.errors import InputError
from loupe.imaging.resize import Pixels, crop_to_multiple, imresize

Subsampling: TypeAlias = Literal["4:2:0", "4:4:4"]
Range: TypeAlias = tuple[float, float]

WHOLE = (slice(None), slice(None))
NARROWEST = 5  # pixels: of fewer libjpeg enlarges the halved colour in another way
LIMITS = {  # what a range of `Degradation` may span, and its unit
    "blur_sigma": (0.0, 20.0, "HR pixels"),
    "shot_peak": (1.0, 1e9, "photons at level 255"),
    "noise_sigma": (0.0, 255.0, "grey levels"),
    "jpeg_quality": (1, 100, "quality"),
}


@dataclass(frozen=True)
class Degradation:
    """How samples are degraded: the probability of each step, and the range that its strength is drawn from.

    blur_sigma: standard deviation of a Gaussian, in HR pixels. shot_peak: photons that make level 255, fewer are
    noisier; drawn evenly on a logarithmic scale, the others evenly. noise_sigma: standard deviation in grey levels of
    the LR picture. jpeg_quality: libjpeg's, whole numbers. jpeg_420_share: share of JPEG samples with 4:2:0 (colour at
    half the resolution), the rest have 4:4:4.

    Raises:
        InputError: a probability outside [0, 1], or a range that is upside down or beyond what its unit allows.
    """

    blur_probability: float = 0.0
    blur_sigma: Range = (0.3, 1.5)
    shot_probability: float = 0.0
    shot_peak: Range = (1000.0, 10000.0)
    noise_probability: float = 0.0
    noise_sigma: Range = (1.0, 6.0)
    jpeg_probability: float = 0.0
    jpeg_quality: tuple[int, int] = (40, 95)
    jpeg_420_share: float = 0.75

    def __post_init__(self) -> None:
        for name in ("blur_probability", "shot_probability", "noise_probability", "jpeg_probability", "jpeg_420_share"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise InputError(f"{name} must be in [0, 1], not {value}")
        for name, (lowest, highest, unit) in LIMITS.items():
            low, high = getattr(self, name)
            if not lowest <= low <= high <= highest:
                raise InputError(
                    f"{name} must be [low, high] with {lowest} <= low <= high <= {highest} {unit}, not [{low}, {high}]"
                )


@dataclass(frozen=True)
class Settings:
    """What happens to one sample; None leaves a step out, and `Settings()` is plain reduction. Units: `Degradation`."""

    blur_sigma: float | None = None
    shot_peak: float | None = None
    noise_sigma: float | None = None
    jpeg_quality: int | None = None
    jpeg_subsampling: Subsampling = "4:2:0"


def draw(degradation: Degradation, rng: np.random.Generator) -> Settings:
    """The settings of one sample; takes nine numbers whatever is on, so that no step's draw depends on another."""
    d = degradation
    blur, shot, noise, jpeg, halved = rng.random(5).tolist()
    sigma, peak, level, quality = rng.random(4).tolist()
    (fewest, most), (worst, best) = d.shot_peak, d.jpeg_quality
    coded = jpeg < d.jpeg_probability
    return Settings(
        blur_sigma=_between(*d.blur_sigma, sigma) if blur < d.blur_probability else None,
        shot_peak=fewest * (most / fewest) ** peak if shot < d.shot_probability else None,
        noise_sigma=_between(*d.noise_sigma, level) if noise < d.noise_probability else None,
        jpeg_quality=math.floor(_between(worst, best + 1, quality)) if coded else None,
        jpeg_subsampling="4:4:4" if coded and halved >= d.jpeg_420_share else "4:2:0",
    )


def apply(
    hr: Pixels, scale: int, settings: Settings, rng: np.random.Generator, part: tuple[slice, slice] = WHOLE
) -> Pixels:
    """Blur, reduce, add noise (shot noise, then Gaussian) and compress, as far as `settings` asks for it.

    Args:
        hr: uint8 [H, W, 3] or [H, W], the whole picture; a view of a file is fine.
        scale: whole factor, at least 1.
        settings: of this sample.
        rng: where the noise comes from.
        part: rows and columns of the result that are wanted, in LR pixels, as `numpy.s_[y:y + 32, x:x + 32]`.

    Returns:
        uint8 [H // scale, W // scale(, 3)], or its `part`: only the HR around it is worked on, yet it equals that part
        of the whole result bit for bit (at scale 3, whose weights are not binary, up to a rounding tie). JPEG's grid of
        blocks stays where the whole file has it, so parts at random places see every phase of it. Noise is the
        exception: it is drawn for the part alone.

    Raises:
        ValueError: a side is shorter than `scale`, the array is no 8-bit image, a part is empty or has a step, or a
            setting is out of range.
    """
    _check(hr)
    hr = crop_to_multiple(hr, scale)
    block, smear = _jpeg_grid(settings.jpeg_subsampling) if settings.jpeg_quality is not None else (1, 0)
    narrowest = NARROWEST if smear else 1
    reach = _reach(settings.blur_sigma or 0.0, scale)
    window, coded, inner = [], [], []
    for side, wanted in zip(hr.shape[:2], part, strict=True):
        n = side // scale
        start, stop, step = wanted.indices(n)
        if start >= stop or step != 1:
            raise ValueError(f"part must be one or more whole rows or columns of {n}, not {wanted}")
        first = max(
            min(start - smear, stop - narrowest) // block * block, 0
        )  # the file's blocks that decide the part ...
        last = min(math.ceil((stop + smear) / block) * block, n)
        low, high = max(first - reach, 0), min(last + reach, n)  # ... and the HR that decides those, in LR pixels
        window.append(slice(low * scale, high * scale))
        coded.append(slice(first - low, last - low))
        inner.append(slice(start - first, stop - first))
    lr = hr[tuple(window)]
    if settings.blur_sigma is not None:
        lr = gaussian_blur(lr, settings.blur_sigma)
    lr = imresize(lr, 1 / scale)[tuple(coded)]
    if settings.shot_peak is not None:
        lr = add_poisson_noise(lr, settings.shot_peak, rng)
    if settings.noise_sigma is not None:
        lr = add_gaussian_noise(lr, settings.noise_sigma, rng)
    if settings.jpeg_quality is not None:
        lr = jpeg(lr, settings.jpeg_quality, settings.jpeg_subsampling)
    return lr[tuple(inner)]


def degrade(
    hr: Pixels, scale: int, degradation: Degradation, rng: np.random.Generator, part: tuple[slice, slice] = WHOLE
) -> Pixels:
    """The low-resolution sample of `hr`: `apply` with settings that `draw` takes from the same generator."""
    return apply(hr, scale, draw(degradation, rng), rng, part)


def margin(degradation: Degradation, scale: int) -> int:
    """HR pixels on each side of a patch's own that can have an influence on it, at most; a multiple of `scale`.

    The sum of the widest blur (3 sigma), the bicubic filter (2 * scale) and the JPEG blocks that the patch is cut from:
    up to 16 LR pixels with 4:2:0, whose decoder also mixes neighbouring blocks' colour, and 7 with 4:4:4. `apply` finds
    what it needs by itself; this is for whoever stores or sends windows instead of whole pictures, of patches of
    NARROWEST pixels or more.
    """
    sigma = degradation.blur_sigma[1] if degradation.blur_probability > 0 else 0.0
    block, smear = _jpeg_grid("4:2:0" if degradation.jpeg_420_share > 0 else "4:4:4")
    if degradation.jpeg_probability == 0:
        block, smear = 1, 0
    return (_reach(sigma, scale) + block - 1 + smear) * scale


def gaussian_blur(image: Pixels, sigma: float) -> Pixels:
    """Isotropic Gaussian blur: a lens out of focus, a camera's low-pass filter, an earlier enlargement.

    Args:
        image: uint8 [H, W, 3] or [H, W].
        sigma: standard deviation in pixels, at least 0 (which changes nothing); the kernel ends at ceil(3 * sigma).

    Returns:
        uint8 of the same shape, rounded half up once; borders are mirrored with the edge pixel repeated.

    Raises:
        ValueError: the array is no 8-bit image, or `sigma` is negative.
    """
    _check(image)
    _check_in("blur_sigma", sigma)
    if sigma == 0:
        return image.copy()
    return _to_uint8(gaussian_filter(image, sigma, output=np.float32, radius=_radius(sigma), axes=(0, 1)))


def add_gaussian_noise(image: Pixels, sigma: float, rng: np.random.Generator) -> Pixels:
    """Normal noise, independent for each sample: a sensor's read-out noise, film grain.

    Args:
        image: uint8 [H, W, 3] or [H, W].
        sigma: standard deviation in grey levels, at least 0.
        rng: source of the noise.

    Returns:
        uint8 of the same shape, rounded half up and clipped; clipping darkens pure white by 0.4 sigma on average.

    Raises:
        ValueError: the array is no 8-bit image, or `sigma` is negative.
    """
    _check(image)
    _check_in("noise_sigma", sigma)
    return _to_uint8(image + np.float32(sigma) * rng.standard_normal(image.shape, np.float32))


def add_poisson_noise(image: Pixels, peak: float, rng: np.random.Generator) -> Pixels:
    """Shot noise: each sample counts photons, `image / 255 * peak` on average, and is scaled back.

    Args:
        image: uint8 [H, W, 3] or [H, W], taken as proportional to light.
        peak: photons that make level 255, at least 1. A sample of value v gets a standard deviation of
            sqrt(255 * v / peak) grey levels: 8 at white for 1000, 2.6 for 10000.
        rng: source of the noise.

    Returns:
        uint8 of the same shape, rounded half up and clipped; black stays black.

    Raises:
        ValueError: the array is no 8-bit image, or `peak` is out of range.
    """
    _check(image)
    _check_in("shot_peak", peak)
    return _to_uint8(rng.poisson(image * (peak / 255)) * (255 / peak))


def jpeg(image: Pixels, quality: int, subsampling: Subsampling) -> Pixels:
    """What is left of a picture after a JPEG file: Pillow's, which is libjpeg-turbo, in memory.

    Args:
        image: uint8 [H, W, 3] sRGB or [H, W].
        quality: 1 (worst) to 100, as in `Image.save`.
        subsampling: 4:2:0 halves the resolution of colour in both directions, 4:4:4 keeps it; no matter for gray.

    Returns:
        uint8 of the same shape. Blocks of 8 x 8 (colour of 4:2:0: 16 x 16) pixels begin at the top left corner.

    Raises:
        ValueError: the array is no 8-bit image, or `quality` or `subsampling` is none of the above.
    """
    _check(image)
    _check_in("jpeg_quality", quality)
    if subsampling not in ("4:2:0", "4:4:4"):
        raise ValueError(f"subsampling must be 4:2:0 or 4:4:4, not {subsampling}")
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(stream, formats=["JPEG"]))


def _jpeg_grid(subsampling: Subsampling) -> tuple[int, int]:
    """Side of what JPEG codes as one, and how many pixels of its neighbours' colour the decoder mixes in; in pixels."""
    return (16, 1) if subsampling == "4:2:0" else (8, 0)


def _radius(sigma: float) -> int:
    return math.ceil(3 * sigma)


def _reach(sigma: float, scale: int) -> int:
    """LR pixels on each side whose HR pixels the blur and the bicubic filter read."""
    return math.ceil((2 * scale + _radius(sigma)) / scale)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def _to_uint8(values: npt.NDArray[np.floating[Any]]) -> Pixels:
    return cast(Pixels, np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8))


def _check(image: Pixels) -> None:
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(f"expected uint8 [H, W, 3] or [H, W], not {image.dtype} {list(image.shape)}")


def _check_in(name: str, value: float) -> None:
    lowest, highest, unit = LIMITS[name]
    if not lowest <= value <= highest:
        raise ValueError(f"{name} must be {lowest} to {highest} {unit}, not {value}")
