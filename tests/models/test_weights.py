"""Networks on disk: a round trip is exact, and whatever does not fit is said clearly."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loupe.models.weights import (
    ModelError,
    build_network,
    describe,
    load_network,
    rounded,
    save_network,
    trained_on,
)

CONFIG = {"name": "rdn", "D": 2, "C": 2, "G": 4, "G0": 4, "scale": 2, "residual": "bicubic"}


def test_round_trip(tmp_path: Path) -> None:
    network = build_network(CONFIG)
    save_network(tmp_path, network, CONFIG)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        loaded = load_network(place)
        assert not loaded.training
        for name, tensor in network.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    assert load_file(tmp_path / "model.safetensors").keys() == network.state_dict().keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    assert describe(tmp_path)["label"] == "RDN D2 C2 G4"


def test_rounded_weights_take_half_the_space_and_come_back_the_same(tmp_path: Path) -> None:
    network = build_network({**CONFIG, "G": 32, "G0": 32})
    save_network(tmp_path / "whole", network, {**CONFIG, "G": 32, "G0": 32})
    half = rounded(network.state_dict())
    for name, tensor in network.state_dict().items():
        assert half[name].dtype == torch.float32
        torch.testing.assert_close(half[name], tensor, rtol=2**-11, atol=2**-25)
    network.load_state_dict(half)
    save_network(tmp_path / "half", network, {**CONFIG, "G": 32, "G0": 32})
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.55 * sizes[1]
    loaded = load_network(tmp_path / "half").state_dict()
    for name, tensor in half.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor)


def test_the_file_tells_on_what_it_was_trained(tmp_path: Path) -> None:
    save_network(tmp_path, build_network(CONFIG), CONFIG)
    assert trained_on(tmp_path) is None
    save_network(tmp_path, build_network(CONFIG), CONFIG, "PyTorch 3, an abacus")
    assert trained_on(tmp_path) == "PyTorch 3, an abacus"


def test_missing_damaged_and_foreign_models(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model here: config.json is missing"):
        load_network(tmp_path)
    save_network(tmp_path, build_network(CONFIG), CONFIG)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**CONFIG, "G": 8}))
    with pytest.raises(ModelError, match=r"weights do not fit config.json: .*size mismatch"):
        load_network(tmp_path)
    config.write_text(json.dumps({**CONFIG, "name": "edsr"}))
    with pytest.raises(ModelError, match="unknown network 'edsr'; known: rdn"):
        load_network(tmp_path)
    config.write_text(json.dumps({**CONFIG, "width": 3}))
    with pytest.raises(ModelError, match="width"):
        load_network(tmp_path)
    config.write_text(json.dumps(CONFIG))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    for read in (load_network, trained_on):
        with pytest.raises(ModelError, match="damaged"):
            read(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"model.safetensors is missing"):
        load_network(tmp_path)
