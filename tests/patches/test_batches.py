"""Batches: exactly aligned, seeded, resumable at any step, and fair to every patch."""

from collections.abc import Callable

import numpy as np
import pytest

from loupe.errors import InputError
from loupe.imaging.resize import Pixels
from loupe.patches.batches import PatchBatches, turned
from loupe.patches.index import PatchIndex

MakeIndex = Callable[..., PatchIndex]


def places(image: Pixels, patch: Pixels) -> set[tuple[int, int, int]]:
    """Where (turn, y, x) the square `patch` occurs in `image`."""
    side = len(patch)
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    found = set()
    for turn in range(8):
        wanted = turned(patch, turn).transpose(2, 0, 1)
        ys, xs = np.nonzero((windows == wanted).all(axis=(2, 3, 4)))
        found |= {(turn, int(y), int(x)) for y, x in zip(ys, xs, strict=True)}
    return found


@pytest.mark.parametrize("scale", [2, 3])
def test_both_resolutions_show_the_same_place(make_index: MakeIndex, scale: int) -> None:
    index = make_index(scale=scale, patch=8)
    batches = PatchBatches(index, size=4, seed=5, product_share=0.5)
    for step in range(4):
        for lr, hr in zip(*batches.batch_at(step), strict=True):
            assert lr.shape == (8, 8, 3)
            assert hr.shape == (8 * scale, 8 * scale, 3)
            low = {(n, t, y * scale, x * scale) for n in range(3) for t, y, x in places(index.lr(n), lr)}
            high = {(n, t, y, x) for n in range(3) for t, y, x in places(index.hr(n), hr)}
            assert low & high


def test_a_batch_depends_on_seed_and_step_alone(make_index: MakeIndex) -> None:
    index = make_index()
    forward = [PatchBatches(index, 6, 1, 0.0).batch_at(step) for step in range(9)]
    one = PatchBatches(index, 6, 1, 0.0)
    for step in reversed(range(9)):
        for ours, theirs in zip(one.batch_at(step), forward[step], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    other = PatchBatches(index, 6, 2, 0.0).batch_at(0)
    assert (other[0] != forward[0][0]).any()


def drawn(batches: PatchBatches, count: int) -> list[tuple[int, ...]]:
    return [tuple(int(number) for number in batches._place(position)) for position in range(count)]


def test_an_epoch_visits_every_training_patch_once_and_no_other(make_index: MakeIndex) -> None:
    index = make_index()
    rows = index.patches[index.patches["split"] == "train"][["image", "y", "x"]]
    everything = sorted(map(tuple, rows.to_numpy().tolist()))
    places = drawn(PatchBatches(index, 1, 3, product_share=0.4), 2 * len(rows))  # no products here: all are photos
    epochs = places[: len(rows)], places[len(rows) :]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_products_get_their_share_and_are_spread_evenly(make_index: MakeIndex, share: float) -> None:
    index = make_index(train=2, products=3)
    places = drawn(PatchBatches(index, 1, 3, share), 400)
    from_products = [index.images[image].set == "products" for image, _, _ in places]
    assert sum(from_products) == 400 * share
    assert all(abs(sum(from_products[i : i + 10]) - 10 * share) <= 1 for i in range(390))
    products = [place for place, is_product in zip(places, from_products, strict=True) if is_product]
    epoch = int((index.patches["image"].map(lambda n: index.images[n].set == "products")).sum())
    assert len(set(products[:epoch])) == min(epoch, len(products))


def test_an_index_without_training_patches_is_refused(make_index: MakeIndex) -> None:
    index = make_index()
    index.patches["split"] = "valid"
    with pytest.raises(InputError, match="no training patches"):
        PatchBatches(index, 1, 0, 0.3)


def test_the_eight_turns_differ() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert len({turned(image, turn).tobytes() for turn in range(8)}) == 8
