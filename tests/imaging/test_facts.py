"""Each fact on pictures whose answer is known, and on what real pictures go through."""

import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from tests.conftest import picture

from benchmarks.data import photograph
from loupe.imaging import facts
from loupe.imaging.facts import Facts, measure
from loupe.imaging.files import UPRIGHT, read_image
from loupe.imaging.likeness import NEAR, Hash, distance, perceptual_hash
from loupe.imaging.resize import Pixels

PHOTOGRAPH = photograph(5, 520, 460)
GRAY = np.asarray(Image.fromarray(PHOTOGRAPH).convert("L"))


def tiled(plane: npt.NDArray[np.generic]) -> Pixels:
    """All whole tiles of [H, W]."""
    side = facts.TILE
    rows, columns = (length // side for length in plane.shape)
    cut = plane[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.asarray(cut.swapaxes(1, 2).reshape(-1, side, side), np.uint8)


def textured(image: Image.Image) -> Pixels:
    below, right = facts.steps(image)
    return facts.tiles(image, np.abs(below) + np.abs(right))[0]


def through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def measured(path: Path, image: Image.Image, **options: object) -> Facts:
    image.save(path, **options)  # type: ignore[arg-type]
    return measure(path)


def noisy(sigma: float, shape: tuple[int, ...] = (12, 64, 64), level: float = 128) -> Pixels:
    noise = np.random.default_rng(0).normal(level, sigma, shape)
    return np.asarray(np.clip(np.rint(noise), 0, 255), np.uint8)


def unpacked(text: str) -> Hash:
    return np.frombuffer(bytes.fromhex(text), np.uint64)


def test_what_the_header_tells(tmp_path: Path) -> None:
    found = measured(tmp_path / "a.jpg", Image.fromarray(PHOTOGRAPH), quality=77, subsampling=0)
    data = (tmp_path / "a.jpg").read_bytes()
    assert (found.decodable, found.error, found.format, found.suffix_matches) == (True, "", "JPEG", True)
    assert (found.mode, found.width, found.height, found.frames, found.orientation) == ("RGB", 520, 460, 1, 1)
    assert (found.bytes, found.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (found.jpeg_quality, found.jpeg_subsampling, found.icc) == (77, "4:4:4", "")


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 90, 95, 99, 100])
def test_jpeg_quality_is_the_one_it_was_saved_with(tmp_path: Path, quality: int) -> None:
    assert measured(tmp_path / "a.jpg", Image.fromarray(PHOTOGRAPH), quality=quality).jpeg_quality == quality


def test_subsampling_is_named(tmp_path: Path) -> None:
    image = Image.fromarray(picture(1))
    found = [measured(tmp_path / "a.jpg", image, subsampling=kind).jpeg_subsampling for kind in (0, 1, 2)]
    assert found == ["4:4:4", "4:2:2", "4:2:0"]
    assert measured(tmp_path / "a.jpg", image.convert("L")).jpeg_subsampling == ""
    assert measured(tmp_path / "a.jpg", image.convert("CMYK")).jpeg_subsampling == ""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_files_of_one_picture_have_one_hash(tmp_path: Path, orientation: int) -> None:
    upright = Image.fromarray(PHOTOGRAPH)
    if orientation > 1:
        back = {6: 8, 8: 6}.get(orientation, orientation)  # what undoes it
        stored = upright.transpose(UPRIGHT[back])
    else:
        stored = upright
    exif = stored.getexif()
    exif[0x0112] = orientation
    found = measured(tmp_path / "a.png", stored, exif=exif)
    assert (found.width, found.height, found.orientation) == (520, 460, orientation)
    assert distance(unpacked(found.perceptual_hash), perceptual_hash(GRAY)) <= 4


def test_a_profile_that_is_no_bytes_is_a_damaged_one(tmp_path: Path) -> None:
    tags = ImageFileDirectory_v2()
    tags.tagtype[34675] = 4  # a number where the profile belongs
    tags[34675] = 7
    found = measured(tmp_path / "a.tif", Image.fromarray(PHOTOGRAPH), tiffinfo=tags)
    assert (found.decodable, found.icc) == (True, "damaged")
    assert read_image(tmp_path / "a.tif").notes == ("its damaged colour profile ignored",)


def test_the_name_of_a_profile_is_text_for_a_table(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    odd = profile.replace("sRGB".encode("utf-16-be"), "s\x1b\nB".encode("utf-16-be"))
    found = measured(tmp_path / "a.png", Image.fromarray(PHOTOGRAPH), icc_profile=odd)
    assert found.icc == "sB built-in"


def test_lab_is_measured_as_the_colours_it_is_read_as(tmp_path: Path) -> None:
    lab = Image.merge("LAB", [Image.new("L", (30, 20), level) for level in (255, 128, 128)])  # white
    found = measured(tmp_path / "a.tif", lab)
    assert (found.decodable, found.mode, found.white_share) == (True, "LAB", 1)
    assert read_image(tmp_path / "a.tif").pixels.min() >= facts.WHITE


def test_the_hash_of_small_pictures_is_exact_and_that_of_large_ones_near(tmp_path: Path) -> None:
    small = np.asarray(Image.fromarray(picture(3)).convert("L"))
    found = measured(tmp_path / "a.png", Image.fromarray(picture(3)))
    assert distance(unpacked(found.perceptual_hash), perceptual_hash(small)) == 0
    large = Image.fromarray(PHOTOGRAPH).resize((1900, 1700), Image.Resampling.BICUBIC)
    found = measured(tmp_path / "b.png", large)
    assert distance(unpacked(found.perceptual_hash), perceptual_hash(GRAY)) <= NEAR // 2


def test_tones_of_two_levels() -> None:
    plane = np.repeat(np.array([[50, 150]], np.uint8), 30, axis=0)
    assert facts.tones(plane) == pytest.approx((100, 50, 1))
    assert facts.tones(np.full((4, 4), 7, np.uint8)) == (7, 0, 0)
    assert facts.tones(np.arange(256, dtype=np.uint8))[2] == pytest.approx(8)


def test_colourfulness_by_its_formula() -> None:
    assert facts.colourfulness(np.repeat(GRAY[..., None], 3, axis=2)) == 0
    red = np.zeros((5, 5, 3), np.uint8)
    red[..., 0] = 255  # rg = 255, yb = 127.5 everywhere
    assert facts.colourfulness(red) == pytest.approx(0.3 * np.hypot(255, 127.5))
    red[:, ::2] = 0
    share = 0.4  # rg is 255 in so many columns, else 0: variance 255^2 share (1 - share)
    spread = np.sqrt((255**2 + 127.5**2) * share * (1 - share))
    assert facts.colourfulness(red) == pytest.approx(spread + 0.3 * share * np.hypot(255, 127.5), rel=1e-5)


def test_shares_count_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[:30, :, :3], pixels[..., 3] = 250, 255
    pixels[29, :, 2] = 249  # not quite white
    pixels[90:, :, 3] = 0  # white once composited
    found = measured(tmp_path / "a.png", Image.fromarray(pixels))
    assert found.white_share == pytest.approx(0.39)
    assert found.alpha_share == pytest.approx(0.10)
    assert found.brightness == pytest.approx(0.3 * 250 + 0.1 * 255, abs=0.01)


def test_steps_are_differences_of_neighbours() -> None:
    small = GRAY[:150, :120].astype(np.int16)
    below, right = facts.steps(Image.fromarray(GRAY[:150, :120]))
    np.testing.assert_array_equal(below, np.diff(small, axis=0)[:, :-1])
    np.testing.assert_array_equal(right, np.diff(small, axis=1)[:-1])
    y, x = np.mgrid[:900, :800]
    slope = Image.fromarray(((3 * y + 7 * x) % 256).astype(np.uint8))
    below, right = facts.steps(slope)  # of a larger picture some, each still to its own neighbour
    assert below.shape == (facts.STEPS, facts.STEPS)
    assert set(np.unique(below % 256)) == {3}
    assert set(np.unique(right % 256)) == {7}


def test_flat_and_edge_shares() -> None:
    below = np.array([[0, 2, 3, 0], [0, 0, 0, 30]], np.int16)
    right = np.array([[0, -2, 0, 23], [-24, 17, 18, 0]], np.int16)
    assert facts.flat_share(below, right) == 2 / 8
    assert facts.edge_density(below, right) == 2 / 8  # -24 and 30; 23 is under
    assert facts.edge_density(below + 0, np.full_like(right, 255)) == 1


def test_tiles_lie_where_there_is_something() -> None:
    plane = np.full((700, 900), 255, np.uint8)
    plane[144:216, 360:504] = noisy(40, (72, 144))
    plane[576:648, 72:144] = noisy(5, (72, 72), 200)
    image = Image.fromarray(plane)
    below, right = facts.steps(image)
    strongest, spread = facts.tiles(image, np.abs(below) + np.abs(right))
    assert len(strongest) == facts.TILES
    np.testing.assert_array_equal(strongest[:2].std(axis=(1, 2)) > 30, True)
    assert 3 <= len(spread) <= 8  # those three, and what borders on them, but no white
    assert any(np.array_equal(tile, plane[576:648, 72:144]) for tile in spread)


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (15, 700), (16, 700), (63, 64), (70, 5000), (17, 20_000)])
def test_pictures_of_any_shape_are_measured(tmp_path: Path, shape: tuple[int, int]) -> None:
    found = measured(tmp_path / "a.png", Image.fromarray(noisy(20, shape)))
    assert found.decodable
    assert (found.height, found.width) == shape
    assert found.brightness == pytest.approx(128, abs=60)
    assert np.isnan([found.detail, found.blockiness, found.noise, found.sharpness]).all() == (min(shape) < 16)
    assert np.isnan(found.flat_share) == (min(shape) == 1)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    assert facts.sharpness(noisy(10)) == pytest.approx(20 * 10**2, rel=0.03)  # 4^2 + 4 of the mask's squared weights
    slope = np.tile(np.arange(64, dtype=np.uint8), (3, 64, 1))
    assert facts.sharpness(slope) == 0


@pytest.mark.parametrize("sigma", [1.0, 4.0, 16.0])
def test_noise_is_found_beside_slopes_edges_and_clipped_parts(sigma: float) -> None:
    assert facts.noise(noisy(sigma)) == pytest.approx(sigma, rel=0.06)
    y, x = np.mgrid[:64, :64]
    scene = 60 + x + 40 * (y > 30)
    added = np.random.default_rng(1).normal(0, sigma, (12, 64, 64))
    pixels = np.clip(np.rint(scene + added), 0, 255).astype(np.uint8)
    assert facts.noise(pixels) == pytest.approx(sigma, rel=0.08)
    pixels[:8] = 255  # a white background says nothing
    assert facts.noise(pixels) == pytest.approx(sigma, rel=0.08)
    assert np.isnan(facts.noise(np.full((3, 64, 64), 255, np.uint8)))


def test_detail_by_its_bands() -> None:
    x = np.arange(64)
    waves = {f: 60 * np.sin(2 * np.pi * f * x + 1)[None] * np.ones((64, 1)) for f in (0.18, 0.4)}
    fine, coarse = waves[0.4], waves[0.18]
    both = (np.rint(128 + coarse + fine / 2))[None].astype(np.uint8)
    assert facts.detail(both) == pytest.approx(0.5, abs=0.01)
    assert facts.detail(both.swapaxes(1, 2)) == pytest.approx(0.5, abs=0.01)
    assert facts.detail(noisy(20)) == pytest.approx(np.sqrt(0.2 / 0.15), rel=0.1)  # white: as the widths of the bands
    assert np.isnan(facts.detail(np.full((3, 64, 64), 200, np.uint8)))


@pytest.mark.parametrize("name", ["BILINEAR", "BICUBIC", "LANCZOS"])
def test_an_enlarged_picture_has_no_detail(name: str) -> None:
    real = Image.fromarray(GRAY)
    enlarged = real.resize((1040, 920), Image.Resampling[name])
    assert facts.detail(textured(real)) > 0.4
    assert facts.detail(textured(enlarged)) < 0.17
    assert facts.detail(textured(through_jpeg(enlarged, 75))) < 0.25


def test_repeated_pixels_are_found_even_after_compression() -> None:
    assert facts.doubling(tiled(GRAY)) < 0.1
    for times in (2, 3, 4):
        repeated = GRAY.repeat(times, axis=0).repeat(times, axis=1)
        assert facts.doubling(tiled(repeated)) == 1
        assert facts.doubling(tiled(repeated[1:, 1:])) == 1
    twice = Image.fromarray(GRAY.repeat(2, axis=0).repeat(2, axis=1))
    assert facts.doubling(textured(through_jpeg(twice, 90))) > 0.4
    assert facts.doubling(tiled(GRAY.repeat(2, axis=1))) < 0.1  # both directions, or it may be a pattern
    assert np.isnan(facts.doubling(np.full((3, 64, 64), 9, np.uint8)))


def test_a_grid_of_blocks_is_found_wherever_it_begins() -> None:
    assert facts.blockiness(tiled(GRAY)) == pytest.approx(1, abs=0.05)
    assert facts.blockiness(np.full((3, 64, 64), 9, np.uint8)) == 1
    pressed = np.asarray(through_jpeg(Image.fromarray(GRAY), 40))
    assert facts.blockiness(tiled(pressed)) > 1.3
    assert facts.blockiness(tiled(pressed[3:, 5:])) > 1.3
    blocks = np.random.default_rng(2).integers(100, 110, (8, 8)).astype(np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    assert facts.blockiness(blocks[None]) > 20
    finer = GRAY.repeat(2, axis=0).repeat(2, axis=1)
    assert facts.blockiness(tiled(finer)) == pytest.approx(1, abs=0.1)  # a grid, but none of eight


def test_a_png_made_from_a_jpeg_gives_itself_away(tmp_path: Path) -> None:
    clean = measured(tmp_path / "a.png", Image.fromarray(PHOTOGRAPH))
    from_jpeg = measured(tmp_path / "b.png", through_jpeg(Image.fromarray(PHOTOGRAPH), 50))
    assert np.isnan(from_jpeg.jpeg_quality)
    assert from_jpeg.blockiness > clean.blockiness + 0.2


def test_transparency_hides_what_is_below(tmp_path: Path) -> None:
    garbage = np.dstack([PHOTOGRAPH, np.zeros(PHOTOGRAPH.shape[:2], np.uint8)])
    found = measured(tmp_path / "a.png", Image.fromarray(garbage))
    assert (found.brightness, found.contrast, found.edge_density, found.flat_share) == (255, 0, 0, 1)
    gray = np.dstack([GRAY, np.where(np.arange(520) < 260, 255, 0) * np.ones((460, 1))]).astype(np.uint8)
    half = measured(tmp_path / "b.png", Image.fromarray(gray))
    assert (half.mode, half.colourfulness) == ("LA", 0)
    assert half.white_share == pytest.approx(np.mean((GRAY >= 250) | (np.arange(520) >= 260)), abs=0.01)


def test_shares_of_large_pictures_are_near_those_of_all_pixels(tmp_path: Path) -> None:
    large = photograph(6, 1400, 1100)
    found = measured(tmp_path / "a.png", Image.fromarray(large))
    gray = np.asarray(Image.fromarray(large).convert("L"))
    brightness, contrast, entropy = facts.tones(gray)
    levels = gray.astype(np.int16)
    below, right = levels[1:, :-1] - levels[:-1, :-1], levels[:-1, 1:] - levels[:-1, :-1]
    assert found.brightness == pytest.approx(brightness, abs=0.5)
    assert found.contrast == pytest.approx(contrast, abs=0.5)
    assert found.entropy == pytest.approx(entropy, abs=0.02)
    assert found.colourfulness == pytest.approx(facts.colourfulness(large), rel=0.02)
    assert found.flat_share == pytest.approx(facts.flat_share(below, right), abs=0.01)
    assert found.edge_density == pytest.approx(facts.edge_density(below, right), abs=0.01)
