"""Product shots: complete, repeatable, on a white ground, with print fine enough to be worth restoring."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from loupe.datasets import products

Pixels = npt.NDArray[np.uint8]
VERSIONED = Path(__file__).parents[2] / "data" / "products"
SUBSET = (
    "bottle-olive-oil",
    "box-hay-fever-tablets",
    "book-signals-manual",
    "watch-field-leather",
    "jar-night-cream",
    "tags-canvas-rust",
)


@pytest.fixture(scope="module")
def shots() -> dict[str, Pixels]:
    return {name: products.render_product(name) for name in SUBSET}


def test_names_are_many_unique_and_safe_as_file_names() -> None:
    names = products.product_names()
    assert len(names) >= 24
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name) for name in names)
    assert len({name.split("-")[0] for name in names}) >= 8
    assert names == products.product_names()


def test_sizes_types_and_ranges(shots: dict[str, Pixels]) -> None:
    for name, image in shots.items():
        assert image.dtype == np.uint8, name
        assert image.ndim == 3 and image.shape[2] == 3, name
        assert all(480 <= side <= 800 for side in image.shape[:2]), name
        assert image.min() < 60 and image.max() > 250, name
    assert len({image.shape for image in shots.values()}) >= 4


@pytest.mark.parametrize("name", ["bottle-olive-oil", "tags-canvas-rust"])
def test_two_calls_give_the_same_bytes(name: str, shots: dict[str, Pixels]) -> None:
    assert products.render_product(name).tobytes() == shots[name].tobytes()


@pytest.mark.skipif(not VERSIONED.is_dir(), reason="no data/products here; `dvc pull data.dvc` brings it")
@pytest.mark.parametrize("name", ["bottle-olive-oil", "tags-canvas-rust"])
def test_two_products_match_the_versioned_files(name: str, shots: dict[str, Pixels]) -> None:
    """One grey level of tolerance: another build of Pillow, FreeType or NumPy may round the other way."""
    with Image.open(VERSIONED / f"{name}.png") as image:
        versioned = np.asarray(image, np.int16)
    assert versioned.shape == shots[name].shape
    assert np.abs(versioned - shots[name]).max() <= 1


def test_products_differ(shots: dict[str, Pixels]) -> None:
    assert len({image.tobytes() for image in shots.values()}) == len(shots)


def test_corners_show_the_white_ground(shots: dict[str, Pixels]) -> None:
    for name, image in shots.items():
        for corner in (image[:12, :12], image[:12, -12:], image[-12:, :12], image[-12:, -12:]):
            assert corner.min() >= 235, name


def test_print_is_fine_enough_to_be_lost_by_x2(shots: dict[str, Pixels]) -> None:
    """Text is what a x2 reduction destroys: many neighbouring pixels differ by much, in most products."""
    rich = 0
    for image in shots.values():
        luma = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
        laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
        rich += bool((np.abs(laplacian) > 60).mean() > 0.01)
    assert rich >= 5


def test_noise_is_below_one_grey_level_on_the_ground(shots: dict[str, Pixels]) -> None:
    for name, image in shots.items():
        assert image[:12, :12].astype(np.float32).std() <= 1.5, name


def test_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'bottle-of-nothing'.*bottle-olive-oil") as caught:
        products.render_product("bottle-of-nothing")
    assert all(name in str(caught.value) for name in products.product_names())


def test_write_products_writes_exactly_the_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ["jar-night-cream", "box-hay-fever-tablets"]
    monkeypatch.setattr(products, "product_names", lambda: few)
    folder = tmp_path / "made" / "here"
    paths = products.write_products(folder)
    assert [path.name for path in paths] == [f"{name}.png" for name in few]
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in paths)
    with Image.open(paths[0]) as image:
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), products.render_product(few[0]))


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Pixels:
        raise OSError("disk full")

    monkeypatch.setattr(products, "render_product", broken)
    with pytest.raises(OSError, match="disk full"):
        products.write_products(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_command_line_prints_a_line_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(products, "product_names", lambda: ["jar-night-cream"])
    products.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'jar-night-cream.png'}\n"
