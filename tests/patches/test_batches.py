"""Batches: exactly aligned, seeded, resumable at any step, shared between ranks, and fair to every patch."""

from collections import Counter
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loupe.errors import InputError
from loupe.imaging.degradations import Degradation
from loupe.imaging.resize import Pixels, downscale
from loupe.patches.batches import CHANNELS, PatchBatches, Strategy, turned
from loupe.patches.index import LowResolution, PatchIndex

MakeIndex = Callable[..., PatchIndex]
Name = Literal["pool", "grid", "random"]
STRATEGIES = ("pool", "grid", "random")
EVERY_PATCH = Strategy(per_image=10**6)


def places(image: Pixels, patch: Pixels) -> set[tuple[int, int, int]]:
    """Where (turn, y, x) the square `patch` occurs in `image`."""
    side = len(patch)
    corners = image[: len(image) - side + 1, : image.shape[1] - side + 1]
    found = set()
    for turn in range(8):
        wanted = turned(patch, turn)
        for y, x in np.argwhere((corners == wanted[0, 0]).all(axis=2)):
            if (image[y : y + side, x : x + side] == wanted).all():
                found.add((turn, int(y), int(x)))
    return found


@pytest.mark.parametrize("low_resolution", get_args(LowResolution))
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_both_resolutions_show_the_same_place_exactly(
    make_index: MakeIndex, scale: int, name: Name, low_resolution: LowResolution
) -> None:
    index = make_index(scale=scale, patch=8, low_resolution=low_resolution, products=1, reductions=(2,))
    assert any(row.reduction == 2 for row in index.images) == (scale == 2)
    reduced = [downscale(index.hr(number), scale) for number in range(len(index.images))]
    batches = PatchBatches(index, 4, 5, 0.5, Strategy(name, images=2, per_image=3))
    for step in range(4):
        for lr, hr in zip(*batches.batch_at(step), strict=True):
            assert lr.shape == (8, 8, 3)
            assert hr.shape == (8 * scale, 8 * scale, 3)
            train = [n for n, row in enumerate(index.images) if row.split == "train"]
            low = {(n, t, y * scale, x * scale) for n in train for t, y, x in places(reduced[n], lr)}
            high = {(n, t, y, x) for n in train for t, y, x in places(index.hr(n), hr)}
            assert low & high


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(STRATEGIES), seed=st.integers(0, 2**32 - 1), difficulty=st.floats(0, 0.99))
def test_a_batch_depends_on_seed_and_step_alone(
    make_index: MakeIndex, name: Name, seed: int, difficulty: float
) -> None:
    index = INDEX[0] if INDEX else make_index(products=2)
    INDEX[:] = [index]
    strategy = Strategy(name, images=2, per_image=5, difficulty=difficulty, channel_shuffle=0.5)
    forward = [PatchBatches(index, 6, seed, 0.4, strategy).batch_at(step) for step in range(5)]
    one = PatchBatches(index, 6, seed, 0.4, strategy)
    for step in reversed(range(5)):
        for ours, theirs in zip(one.batch_at(step), forward[step], strict=True):
            np.testing.assert_array_equal(ours, theirs)
    other = PatchBatches(index, 6, seed + 1, 0.4, strategy).batch_at(0)
    assert (other[0] != forward[0][0]).any()


INDEX: list[PatchIndex] = []  # one for all examples


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("world", [2, 3])
def test_the_ranks_together_get_the_batch_of_one_process(make_index: MakeIndex, name: Name, world: int) -> None:
    index = make_index(products=2)
    strategy = Strategy(name, images=2, per_image=5, channel_shuffle=0.5)
    degradation = Degradation(noise_probability=0.5, jpeg_probability=0.5)
    whole = PatchBatches(index, 2 * world, 9, 0.4, strategy, degradation)
    ranks = [PatchBatches(index, 2, 9, 0.4, strategy, degradation, rank, world) for rank in range(world)]
    for step in range(6):
        parts = [rank.batch_at(step) for rank in ranks]
        for side, expected in enumerate(whole.batch_at(step)):
            np.testing.assert_array_equal(np.concatenate([part[side] for part in parts]), expected)


Place = tuple[int, ...]


def drawn(batches: PatchBatches, count: int) -> list[Place]:
    return [tuple(int(number) for number in batches._place(position)[0]) for position in range(count)]


@pytest.mark.parametrize("strategy", [Strategy("grid"), EVERY_PATCH, Strategy("pool", images=1, per_image=999)])
def test_an_epoch_visits_every_training_patch_once_and_no_other(make_index: MakeIndex, strategy: Strategy) -> None:
    index = make_index()
    rows = index.patches[index.patches["split"] == "train"][["image", "y", "x"]]
    everything = sorted(map(tuple, rows.to_numpy().tolist()))
    places = drawn(PatchBatches(index, 1, 3, 0.4, strategy), 2 * len(rows))  # no products here: all are photos
    epochs = places[: len(rows)], places[len(rows) :]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]


def test_the_pool_mixes_n_pictures_with_p_patches_each(make_index: MakeIndex) -> None:
    index = make_index(train=6)
    places = drawn(PatchBatches(index, 1, 3, 0.0, Strategy("pool", images=2, per_image=4)), 48)
    for epoch in (places[:24], places[24:]):
        assert len(set(epoch)) == 24
        groups = [Counter(image for image, _, _ in epoch[start : start + 8]) for start in (0, 8, 16)]
        assert all(sorted(group.values()) == [4, 4] for group in groups)
        assert sorted(image for group in groups for image in group) == list(range(6))
    orders = [[image for image, _, _ in places[start : start + 8]] for start in range(0, 48, 8)]
    assert any(order != sorted(order) and order != sorted(order, reverse=True) for order in orders), "mixed"


def test_random_takes_one_patch_of_each_picture(make_index: MakeIndex) -> None:
    index = make_index(train=5)
    places = drawn(PatchBatches(index, 1, 3, 0.0, Strategy("random")), 10)
    assert [sorted(image for image, _, _ in places[start : start + 5]) for start in (0, 5)] == [list(range(5))] * 2
    assert len({tuple(places[start : start + 5]) for start in (0, 5)}) == 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_products_get_their_share_and_are_spread_evenly(make_index: MakeIndex, share: float) -> None:
    index = make_index(train=2, products=3)
    places = drawn(PatchBatches(index, 1, 3, share, EVERY_PATCH), 400)
    from_products = [index.images[image].set == "products" for image, _, _ in places]
    assert sum(from_products) == 400 * share
    assert all(abs(sum(from_products[i : i + 10]) - 10 * share) <= 1 for i in range(390))
    products = [place for place, is_product in zip(places, from_products, strict=True) if is_product]
    epoch = int((index.patches["image"].map(lambda n: index.images[n].set == "products")).sum())
    assert len(set(products[:epoch])) == min(epoch, len(products))


def test_difficulty_makes_easy_patches_rare_but_never_absent(make_index: MakeIndex) -> None:
    index = make_index(train=3)
    train = index.patches[index.patches["split"] == "train"]

    def visits(difficulty: float) -> pd.Series:
        strategy = Strategy("pool", images=3, per_image=1, difficulty=difficulty)
        counted = Counter(drawn(PatchBatches(index, 1, 3, 0.0, strategy), 3 * 1600))
        return pd.Series([counted[tuple(place)] for place in train[["image", "y", "x"]].to_numpy().tolist()])

    even, weighted = visits(0.0), visits(0.9)
    hardest = train["bicubic_psnr"].rank().to_numpy() <= len(train) / 4
    easiest = train["bicubic_psnr"].rank().to_numpy() > len(train) * 3 / 4
    assert even[hardest].mean() == pytest.approx(even[easiest].mean(), rel=0.2)
    assert weighted[hardest].mean() > 2.5 * weighted[easiest].mean()
    assert weighted.min() > 0


def test_degradation_touches_product_input_alone(make_index: MakeIndex) -> None:
    index = make_index(train=3, products=3)
    clean = PatchBatches(index, 20, 4, 0.5)
    rough = PatchBatches(index, 20, 4, 0.5, degradation=Degradation(noise_probability=1.0))
    (clean_lr, clean_hr), (rough_lr, rough_hr) = clean.batch_at(0), rough.batch_at(0)
    np.testing.assert_array_equal(clean_hr, rough_hr)
    changed = (clean_lr != rough_lr).any(axis=(1, 2, 3))
    assert changed.tolist() == [clean._place(position)[1] for position in range(20)]
    assert np.abs(rough_lr.astype(int) - clean_lr)[changed].mean() < 8
    off = PatchBatches(index, 20, 4, 0.5, degradation=Degradation())
    np.testing.assert_array_equal(off.batch_at(0)[0], clean_lr)


@pytest.mark.parametrize("low_resolution", get_args(LowResolution))
def test_channels_are_shuffled_in_both_resolutions_alike(make_index: MakeIndex, low_resolution: LowResolution) -> None:
    index = make_index(train=3, products=3, low_resolution=low_resolution)
    rough = Degradation(jpeg_probability=0.3)
    straight, half, full = (
        PatchBatches(index, 100, 4, 0.5, Strategy(channel_shuffle=share), rough) for share in (0.0, 0.5, 1.0)
    )
    lr, hr = straight.batch_at(2)
    for batches, share in ((half, 0.5), (full, 1.0)):
        spots, shuffled = batches.spots(2), batches.batch_at(2)
        for i, spot in enumerate(spots):
            order = CHANNELS[spot.channels]
            np.testing.assert_array_equal(shuffled[0][i], lr[i][..., order])
            np.testing.assert_array_equal(shuffled[1][i], hr[i][..., order])
        clean = [spot for spot in spots if spot.degradation is None]
        assert len(clean) < 100
        assert not any(spot.channels for spot in spots if spot.degradation)
        counts = np.bincount([spot.channels for spot in clean], minlength=6) / len(clean)
        assert counts[1:] == pytest.approx(share / 6, abs=0.1)
        assert (counts[1:] > 0).all()
    assert CHANNELS[0].tolist() == [0, 1, 2]


def test_an_index_without_training_patches_is_refused(make_index: MakeIndex) -> None:
    index = make_index()
    index.patches["split"] = "valid"
    with pytest.raises(InputError, match="no training patches"):
        PatchBatches(index, 1, 0, 0.3)


def test_the_eight_turns_differ() -> None:
    image = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    assert len({turned(image, turn).tobytes() for turn in range(8)}) == 8
