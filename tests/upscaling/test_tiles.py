"""Pictures in windows: the same to the last bit as in one piece, and no more memory than allowed."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.conftest import picture
from tests.upscaling.enlargers import Blurring
from tests.upscaling.networks import network

from loupe.imaging.resize import Pixels
from loupe.models.export import halo
from loupe.models.inference import to_pixels, to_tensor
from loupe.upscaling.tiles import Tiler, TooLittleMemoryError, is_out_of_memory
from loupe.upscaling.upscaler import Twice, Upscaler


def tiler(enlarger: Blurring | Twice, most: int) -> Tiler:
    return Tiler(lambda window: enlarger(window[None])[0], enlarger.scale, enlarger.halo, most)


def test_tiled_is_whole_on_fifty_random_sizes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        reach = int(rng.integers(0, 9))
        height, width = rng.integers(1, 150, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        most = int(rng.integers((2 * reach + 8) ** 2, 6000))
        enlarger = Blurring(reach)
        whole = enlarger(pixels[None])[0]
        enlarger.largest = 0
        np.testing.assert_array_equal(tiler(enlarger, most).whole(pixels), whole)
        assert enlarger.largest <= most


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small windows: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_real_network_tiled_is_whole_on_fifty_random_sizes() -> None:
    real = network().double()  # rounding in another order is then far below half a level

    def enlarge(window: Pixels) -> Pixels:
        with torch.inference_mode():
            return to_pixels_of_doubles(real(to_tensor(window[None]).double()))

    rng = np.random.default_rng(1)
    reach = halo(network())
    for seed in range(50):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        pixels = picture(seed, height + 31, width + 31)[:height, :width]
        most = int(rng.integers((2 * reach + 8) ** 2, 3000))
        np.testing.assert_array_equal(Tiler(enlarge, 2, reach, most).whole(pixels), enlarge(pixels))


def to_pixels_of_doubles(output: torch.Tensor) -> Pixels:
    made: Pixels = to_pixels(output.mul(255).round().div(255))[0]
    return made


@pytest.mark.parametrize(("D", "C"), [(1, 1), (2, 2), (3, 1)])
def test_the_halo_of_an_rdn_is_exact(D: int, C: int) -> None:
    """By derivatives: an output pixel depends on inputs `halo` away, in some network, and on none beyond."""
    real = network(D=D, C=C, residual="none").double()
    for parameter in real.parameters():
        parameter.data = parameter.data.abs() + 0.1  # nothing cancels, and no ReLU closes
    reach = D * C + 5
    assert halo(real) == reach
    x = torch.ones((1, 3, 4 * reach, 4 * reach), dtype=torch.float64, requires_grad=True)
    middle = 2 * reach
    real(x)[0, 0, 2 * middle : 2 * middle + 2, 2 * middle : 2 * middle + 2].sum().backward()
    assert x.grad is not None
    touched = np.flatnonzero(x.grad[0].abs().sum(dim=(0, 1)))
    assert (touched.min(), touched.max()) == (middle - reach, middle + reach)


def test_two_passes_tiled_are_two_passes_whole() -> None:
    rng = np.random.default_rng(2)
    for reach in (0, 1, 2, 3):
        once = Blurring(reach)
        pixels = rng.integers(0, 256, (61, 47, 3), dtype=np.uint8)
        whole = once(once(pixels[None]))[0]
        np.testing.assert_array_equal(tiler(Twice(once), 1200).whole(pixels), whole)


def test_all_windows_of_a_picture_have_one_shape_and_cost_little_more_than_the_picture() -> None:
    shapes = []

    def enlarge(window: Pixels) -> Pixels:
        shapes.append(window.shape[:2])
        return window.repeat(2, axis=0).repeat(2, axis=1)

    pixels = np.zeros((1001, 733), np.uint8)
    Tiler(enlarge, 2, 17, 300 * 300).whole(pixels)
    assert len(set(shapes)) == 1
    height, width = shapes[0]
    assert len(shapes) * height * width < 1.2 * pixels.size


def test_strips_come_before_the_picture_was_read_to_its_end() -> None:
    class Watched:
        shape = (5000, 40, 3)
        furthest = 0

        def __getitem__(self, rows: slice) -> Pixels:
            self.furthest = max(self.furthest, rows.stop)
            return np.zeros((min(rows.stop, 5000) - rows.start, 40, 3), np.uint8)

    watched = Watched()
    strips = tiler(Blurring(2), 60 * 40).strips(watched)
    first = next(strips)
    assert watched.furthest <= 60
    assert len(first) + sum(map(len, strips)) == 10_000


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_when_memory_runs_out_windows_shrink_and_the_work_goes_on(error: Exception) -> None:
    class Full(Blurring):
        def __call__(self, batch: Pixels) -> Pixels:
            if batch.shape[1] * batch.shape[2] > 1000:
                self.calls += 1
                raise error
            return super().__call__(batch)

    pixels = np.random.default_rng(3).integers(0, 256, (150, 90, 3), dtype=np.uint8)
    enlarger = Full(4)
    upscaler = Upscaler(enlarger, memory=10**9)
    np.testing.assert_array_equal(upscaler.upscale(pixels), Blurring(4)(pixels[None])[0])
    calls = enlarger.calls
    upscaler.upscale(pixels)
    assert enlarger.calls - calls < calls  # it remembers: nothing is tried in vain again


def test_in_the_middle_of_a_picture_too() -> None:
    class Filling(Blurring):
        def __call__(self, batch: Pixels) -> Pixels:
            if self.calls >= 3 and batch.shape[1] * batch.shape[2] > 700:
                raise MemoryError
            return super().__call__(batch)

    pixels = np.random.default_rng(4).integers(0, 256, (200, 90, 3), dtype=np.uint8)
    np.testing.assert_array_equal(tiler(Filling(3), 2000).whole(pixels), Blurring(3)(pixels[None])[0])


def test_too_little_memory_for_even_one_window_says_so() -> None:
    with pytest.raises(
        TooLittleMemoryError, match=r"a window of 784 pixels is the least .* memory for 783; .*--memory"
    ):
        tiler(Blurring(10), 783).whole(np.zeros((100, 100, 3), np.uint8))
    tiler(Blurring(10), 784).whole(np.zeros((100, 100, 3), np.uint8))

    class Never(Blurring):
        def __call__(self, batch: Pixels) -> Pixels:
            raise MemoryError

    with pytest.raises(TooLittleMemoryError):
        tiler(Never(3), 10**6).whole(np.zeros((100, 100, 3), np.uint8))


def test_other_errors_are_not_taken_for_it() -> None:
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    assert not is_out_of_memory(ValueError("out of memory"))

    def broken(window: Pixels) -> Pixels:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        Tiler(broken, 2, 0, 100).whole(np.zeros((5, 5, 3), np.uint8))
