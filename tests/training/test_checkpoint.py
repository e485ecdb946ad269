"""Checkpoints: atomic, the latest readable one counts, and another run's is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from loupe.errors import InputError
from loupe.training.checkpoint import KEPT, Checkpoints, key_of

IDENTITY: dict[str, Any] = {"model": {"D": 4, "C": 3}, "data": "abc"}


def save(folder: Path, *steps: int) -> Checkpoints:
    checkpoints = Checkpoints(folder, IDENTITY)
    for step in steps:
        checkpoints.save(step, {"weights": torch.full((3,), float(step))})
    return checkpoints


def test_the_latest_is_loaded_and_older_ones_are_removed(tmp_path: Path) -> None:
    checkpoints = save(tmp_path, 5, 40, 100, 1000)
    assert len(list(tmp_path.iterdir())) == KEPT
    state = checkpoints.load()
    assert state is not None
    assert state["step"] == 1000
    assert state["weights"].tolist() == [1000.0] * 3
    checkpoints.remove()
    assert checkpoints.load() is None


@pytest.mark.parametrize("damage", [b"", b"torn", b"PK\x03\x04" + bytes(500)])
def test_one_that_cannot_be_read_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    checkpoints = save(tmp_path, 5, 40)
    (tmp_path / "checkpoint-00000040.pt").write_bytes(damage)
    lines: list[str] = []
    state = checkpoints.load(lines.append)
    assert state is not None
    assert state["step"] == 5
    assert len(lines) == 1
    assert "checkpoint-00000040.pt: unreadable, and left aside" in lines[0]


def test_one_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "sprung").touch, ())

    torch.save({"identity": IDENTITY, "step": 9, "trap": Trap()}, tmp_path / "checkpoint-00000009.pt")
    assert Checkpoints(tmp_path, IDENTITY).load(lambda line: None) is None
    assert not (tmp_path / "sprung").exists()


def test_one_of_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    save(tmp_path, 5)
    with pytest.raises(InputError, match=r"a checkpoint of another run: data was abc, is xyz, model.D was 4, is 6"):
        Checkpoints(tmp_path, {"model": {"D": 6, "C": 3}, "data": "xyz"}).load()


def test_keys_tell_identities_apart() -> None:
    assert key_of(IDENTITY) == key_of({"data": "abc", "model": {"C": 3, "D": 4}})
    assert key_of(IDENTITY) != key_of({**IDENTITY, "data": "abd"})
    assert len(key_of(IDENTITY)) == 12
