"""Ways to enlarge that stand in the table, and models that cannot stand beside each other."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import picture
from tests.models.test_onnx import doubling

from loupe.errors import InputError
from loupe.evaluation.methods import bicubic, compared_with, lanczos, stored
from loupe.evaluation.pairs import Pair
from loupe.evaluation.run import evaluate
from loupe.evaluation.tables import slices_table, summary_table
from loupe.imaging.metrics import score
from loupe.imaging.resize import downscale
from loupe.models.inference import super_resolve
from loupe.models.rdn import RDN
from loupe.models.weights import build_network, save_network

CONFIG = {"name": "rdn", "D": 1, "C": 1, "G": 4, "G0": 4, "scale": 2, "residual": "none"}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Two networks, of scale 2 and 3, and an ONNX file, in one folder."""
    for scale in (2, 3):
        torch.manual_seed(scale)
        config = {**CONFIG, "scale": scale}
        save_network(tmp_path / f"net{scale}", build_network(config), config)
    doubling(tmp_path / "Twice 1.onnx")
    return tmp_path


def test_all_methods_are_scored_on_the_same_pictures(models: Path) -> None:
    hr = [picture(seed, 48, 64) for seed in (1, 2)]
    pairs = [Pair("photos", f"{number}.png", image, downscale(image)) for number, image in enumerate(hr)]
    model = stored(models / "net2")
    others = compared_with(model, models / "Twice 1.onnx", [models / "net2" / "model.safetensors"], models / "net2")
    assert [method.key for method in others] == ["champion", "net2", "ensemble"]
    report = evaluate(pairs, model, others)
    assert list(report.summary["methods"]) == ["bicubic", "lanczos", "champion", "net2", "ensemble"]
    scores = report.summary["sets"]["photos"]
    found = scores["others"]
    for key, method in {"bicubic": bicubic(2), "lanczos": lanczos(2), "champion": others[0]}.items():
        expected = [score(image, method.enlarge(downscale(image)), 2) for image in hr]
        assert found[key]["psnr_y"] == pytest.approx(np.mean([one.psnr_y for one in expected]), abs=1e-6)
        assert found[key]["ssim_y"] == pytest.approx(np.mean([one.ssim_y for one in expected]), abs=1e-6)
        assert found[key]["gain_db"] == pytest.approx(scores["psnr_y"] - found[key]["psnr_y"])
    assert found["net2"]["gain_db"] == 0
    assert found["net2"]["interval_95"]["gain_db"] == [0, 0]
    assert found["ensemble"]["psnr_y"] != scores["psnr_y"]
    kind = max(scores["slices"], key=lambda name: scores["slices"][name]["share"])
    assert found["net2"]["slices"][kind] == scores["slices"][kind]["psnr_y"]
    assert report.summary["compared"]["champion"]["sha256"]
    assert report.rows[0]["lanczos_psnr_y"] == pytest.approx(
        score(hr[0], lanczos(2).enlarge(downscale(hr[0])), 2).psnr_y
    )
    assert "Twice 1" in summary_table(report.summary)
    assert "RDN D1 C1 G4 self-ensemble" in slices_table(report.summary)


def test_the_self_ensemble_is_the_mean_over_all_eight_turns(models: Path) -> None:
    image = picture(1, 12, 15)
    network = RDN(D=1, C=1, G=4, G0=4, residual="bicubic").eval()
    torch.nn.init.normal_(network.output.weight, std=0.1)
    expected = np.zeros((24, 30, 3))
    for quarters in range(4):
        for mirrored in (False, True):
            turned = np.rot90(image[:, ::-1] if mirrored else image, quarters)
            with torch.inference_mode():
                tensor = torch.from_numpy(turned.astype(np.float32) / 255).permute(2, 0, 1)[None]
                output = network(tensor)[0].permute(1, 2, 0).numpy()
            back = np.rot90(output, -quarters)
            expected += back[:, ::-1] if mirrored else back
    found = super_resolve(network, image, ensemble=True)
    np.testing.assert_allclose(found, (expected / 8 * 255).clip(0, 255), atol=0.51)
    assert (found != super_resolve(network, image)).any()


def test_models_that_cannot_stand_beside_each_other_are_refused(models: Path) -> None:
    model = stored(models / "net2")
    with pytest.raises(InputError, match=r"RDN D1 C1 G4 enlarges 3 times, RDN D1 C1 G4 2 times"):
        compared_with(model, models / "net3")
    with pytest.raises(InputError, match="two models are called 'net2'"):
        compared_with(model, others=[models / "net2", models / "net2" / "model.safetensors"])
    (models / "Lanczos.onnx").write_bytes((models / "Twice 1.onnx").read_bytes())
    with pytest.raises(InputError, match="two models are called 'lanczos'"):
        compared_with(model, others=[models / "Lanczos.onnx"])


def test_a_network_of_nan_fails_each_picture_with_a_line(models: Path) -> None:
    network = build_network(CONFIG)
    torch.nn.init.constant_(network.output.weight, torch.nan)
    save_network(models / "nan", network, CONFIG)
    image = picture(1, 40, 40)
    pair = Pair("photos", "a.png", image, downscale(image))
    line = "photos/a.png: RDN D1 C1 G4: the network gave values that are no numbers; its weights are damaged"
    with pytest.raises(InputError, match=f"^{line}\nnothing could be scored$"):
        evaluate([pair], stored(models / "nan"))
    with pytest.raises(InputError, match="no numbers"):
        evaluate([pair], stored(models / "net2"), [dataclasses.replace(stored(models / "nan"), key="champion")])
