"""The ONNX file against PyTorch, in ONNX Runtime; and how far a pixel reaches."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import picture

from loupe.models.export import compact, halo, to_onnx
from loupe.models.inference import super_resolve
from loupe.models.onnx import OnnxModel
from loupe.models.rdn import RDN, Residual
from loupe.models.weights import ModelError, rounded


def network(residual: Residual = "bicubic", scale: int = 2) -> RDN:
    """An untrained network whose output is far from plain enlargement, with values to clip."""
    torch.manual_seed(1)
    made = RDN(D=2, C=2, G=8, G0=8, scale=scale, residual=residual).eval()
    torch.nn.init.normal_(made.output.weight, 0, 0.3)
    return made


def stored(made: RDN, path: Path) -> OnnxModel:
    path.write_bytes(to_onnx(made).SerializeToString())
    return OnnxModel(path)


@pytest.mark.parametrize(
    ("residual", "scale", "count"),
    [("bicubic", 2, 50), ("bicubic", 3, 8), ("bicubic", 4, 8), ("nearest", 2, 8), ("none", 2, 8)],
)
def test_onnx_equals_pytorch_within_a_level_on_any_size(
    tmp_path: Path, residual: Residual, scale: int, count: int
) -> None:
    made = network(residual, scale)
    model = stored(made, tmp_path / "model.onnx")
    assert model.scale == scale
    draws = np.random.default_rng(7)
    sizes = [(1, 1), (1, 40), (33, 1), *draws.integers(1, 70, (count - 3, 2)).tolist()]
    off, samples = 0, 0
    for number, (height, width) in enumerate(sizes):
        pixels = (
            picture(number)[:height, :width] if number % 2 else draws.integers(0, 256, (height, width, 3), np.uint8)
        )
        found, expected = model(pixels), super_resolve(made, pixels)
        assert found.shape == expected.shape
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= 1, (height, width)
        off += int((difference > 0).sum())
        samples += difference.size
    assert off < samples / 1000, "a rounding turned over now and then, and nothing else"


def test_a_compact_file_computes_the_same_bytes_from_half_the_space(tmp_path: Path) -> None:
    torch.manual_seed(2)
    made = RDN(D=2, C=2, G=32, G0=32, residual="bicubic").eval()
    torch.nn.init.normal_(made.output.weight, 0, 0.3)
    assert compact(to_onnx(made)).ByteSize() > 0.9 * to_onnx(made).ByteSize(), "float32 weights stay what they are"
    made.load_state_dict(rounded(made.state_dict()))
    small = compact(to_onnx(made))
    assert small.ByteSize() < 0.6 * to_onnx(made).ByteSize()
    (tmp_path / "small.onnx").write_bytes(small.SerializeToString())
    pixels = picture(5)
    np.testing.assert_array_equal(
        OnnxModel(tmp_path / "small.onnx")(pixels), stored(made, tmp_path / "model.onnx")(pixels)
    )


def test_gray_goes_through_as_in_pytorch(tmp_path: Path) -> None:
    made = network()
    gray = picture(3)[..., 0]
    found = stored(made, tmp_path / "model.onnx")(gray).astype(int)
    assert np.abs(found - super_resolve(made, gray)).max() <= 1


def test_pictures_of_a_batch_do_not_touch_each_other(tmp_path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(to_onnx(network()).SerializeToString())
    batch = np.stack([picture(number, 20, 31) for number in range(3)])
    (together,) = session.run(None, {"pixels": batch})
    for pixels, found in zip(batch, together, strict=True):
        assert found.dtype == np.uint8
        (alone,) = session.run(None, {"pixels": pixels[None]})
        assert np.abs(alone[0].astype(int) - found).max() <= 1


def test_the_same_weights_give_the_same_bytes() -> None:
    assert to_onnx(network()).SerializeToString() == to_onnx(network()).SerializeToString()


def test_weights_that_are_no_numbers_are_refused() -> None:
    made = network()
    with torch.no_grad():
        made.state_dict()["blocks.1.fusion.weight"][0, 0] = float("inf")
    with pytest.raises(ModelError, match=r"blocks.1.fusion.weight: weights that are no numbers"):
        to_onnx(made)


@pytest.mark.parametrize(("D", "C", "scale"), [(1, 1, 2), (2, 3, 2), (1, 2, 3)])
def test_a_pixel_reaches_as_far_as_the_halo_and_no_further(D: int, C: int, scale: int) -> None:
    made = RDN(D, C, G=2, G0=2, scale=scale, residual="bicubic").eval()
    for parameter in made.parameters():
        torch.nn.init.constant_(parameter, 0.05)  # nothing cancels out
    reach = halo(made)
    assert reach == D * C + 5
    side = 2 * reach + 5
    x = torch.full((1, 3, side, side), 0.25, dtype=torch.float64)
    other = x.clone()
    other[0, :, side // 2, side // 2] = 0.75
    with torch.inference_mode():
        touched = (made.double()(x) != made(other)).any(dim=1)[0]
    rows, columns = (np.flatnonzero(touched.any(dim=axis).numpy()) // scale for axis in (1, 0))
    for places in (rows, columns):
        assert (places.min(), places.max()) == (side // 2 - reach, side // 2 + reach)


def test_tiles_with_their_halo_are_the_whole(tmp_path: Path) -> None:
    made = network()
    model, reach, side = stored(made, tmp_path / "model.onnx"), halo(made), 24
    pixels = picture(5, 61, 70)
    whole = model(pixels)
    for top in range(0, 61, side):
        for left in range(0, 70, side):
            above, before = max(0, top - reach), max(0, left - reach)
            part = model(pixels[above : top + side + reach, before : left + side + reach])
            middle = part[2 * (top - above) :, 2 * (left - before) :][: 2 * side, : 2 * side]
            there = whole[2 * top : 2 * (top + side), 2 * left : 2 * (left + side)]
            assert np.abs(middle[: len(there), : there.shape[1]].astype(int) - there).max() <= 1
