"""A bundle as its receivers meet it: whole or refused, run without loupe and without PyTorch."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from tests.conftest import picture

from loupe.errors import InputError
from loupe.evaluation.methods import stored
from loupe.evaluation.pairs import held_out
from loupe.evaluation.run import evaluate, to_json
from loupe.imaging.files import write_png
from loupe.models.export import halo
from loupe.models.rdn import RDN
from loupe.models.weights import build_network, load_network, save_network
from loupe.patches.build import Source as Picture
from loupe.patches.build import build_index
from loupe.patches.index import PatchIndex
from loupe.release.admission import Limits
from loupe.release.bundle import Bundle, Source, write_bundle
from loupe.release.manifest import MANIFEST, identity, verify_folder, write_manifest
from loupe.release.measure import measure

HOSTILE = "<b>[x](http:x)|`y.png"
CONFIG = {"name": "rdn", "D": 1, "C": 1, "G": 8, "G0": 8, "scale": 2, "residual": "bicubic"}
ANYTHING = Limits(db=99.0, level_9999=255, level=255)
# Runs verify.py, or any script, as where neither loupe nor PyTorch is installed.
ELSEWHERE = """
import runpy, sys
for name in ("loupe", "torch", "onnx", "pandas", "scipy"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def network(seed: int) -> RDN:
    """Untrained, but not the plain enlargement."""
    torch.manual_seed(seed)
    made = build_network(CONFIG).eval()
    torch.nn.init.normal_(made.output.weight, 0, 0.02)
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """An index with photographs and products, a network and its scores."""
    folder = tmp_path_factory.mktemp("project")
    pictures = []
    for number, place in enumerate(("photos/train", "photos/valid", "products/train", "products/valid")):
        path = folder / "pictures" / f"{number}.png"
        write_png(path, picture(number, 130, 150))
        pictures.append(Picture(path, HOSTILE if number == 3 else path.name, *place.split("/")))
    (folder / "index").mkdir()
    build_index(pictures, folder / "index", scale=2, patch=16, valid_share=0.0)
    save_network(folder / "models", network(1), CONFIG)
    index = PatchIndex(folder / "index")
    report = evaluate(held_out(index), stored(folder / "models"))
    (folder / "evaluate.json").write_text(to_json(report.summary))
    return Source(
        folder / "models",
        index,
        folder / "evaluate.json",
        licences="| file | licence |\n|---|---|\n| a | CC0 |",
        jpeg_share=0.0,
        lineage={"device": "cpu"},
    )


def make(folder: Path, source: Source, int8: Limits | None = ANYTHING) -> Bundle:
    return write_bundle(folder, source, held_out(source.index), int8)


@pytest.fixture(scope="module")
def made(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "bundle"
    bundle = make(folder, source)
    assert bundle.identity == identity((folder / MANIFEST).read_bytes())
    assert bundle.without_int8 == []
    return folder


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """A copy to do harm to."""
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def run_elsewhere(script: Path, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-c", ELSEWHERE, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def check(folder: Path) -> tuple[int, str]:
    done = run_elsewhere(folder / "verify.py")
    assert not done.stderr
    return done.returncode, done.stdout


def test_it_holds_what_it_should_and_no_pickle(made: Path) -> None:
    entries = verify_folder(made)
    assert {name for name in entries if "/" not in name} == {
        "MODEL_CARD.md",
        "config.json",
        "contract.json",
        "lineage.json",
        "metrics.json",
        "model-int8.onnx",
        "model.onnx",
        "model.safetensors",
        "verify.py",
    }
    kinds = {Path(name).suffix for name in entries}
    assert kinds == {".json", ".md", ".onnx", ".png", ".py", ".safetensors"}
    assert json.loads((made / "lineage.json").read_text()) == {"device": "cpu"}
    state = load_network(made).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in network(1).state_dict().items())


def test_made_twice_it_is_the_same(made: Path, source: Source, tmp_path: Path) -> None:
    make(tmp_path / "again", source)
    assert verify_folder(made) == verify_folder(tmp_path / "again")


def test_the_contract_is_what_the_models_do(made: Path) -> None:
    contract = json.loads((made / "contract.json").read_text())
    assert list(contract["models"]) == ["model.onnx", "model-int8.onnx"]
    for name in contract["models"]:
        session = onnxruntime.InferenceSession(made / name)
        (given,), (taken,) = session.get_inputs(), session.get_outputs()
        assert (given.name, given.type) == (contract["input"]["name"], "tensor(uint8)")
        assert (taken.name, taken.type) == (contract["output"]["name"], "tensor(uint8)")
        assert given.shape == contract["input"]["shape"]
        height, width = contract["limits"]["smallest"]
        (output,) = session.run(None, {given.name: np.zeros((2, height, width, 3), np.uint8)})
        assert output.shape == (2, height * contract["scale"], width * contract["scale"], 3)
    assert contract["tiles"]["halo"] == halo(network(1)) == 6


def test_time_and_memory_are_measured_by_size(made: Path) -> None:
    contract = json.loads((made / "contract.json").read_text())
    measured = measure([made / name for name in contract["models"]])
    assert list(measured["models"]) == list(contract["models"])
    assert [row["input"] for row in measured["models"]["model.onnx"]][-1] == contract["limits"]["largest_at_once"]
    assert all(row["seconds"] > 0 and row["peak_mib"] > 10 for row in measured["models"]["model-int8.onnx"])


def test_metrics_are_the_evaluations_and_what_int8_costs(made: Path, source: Source) -> None:
    metrics = json.loads((made / "metrics.json").read_text())
    int8 = metrics.pop("int8")
    assert metrics == json.loads(source.metrics.read_text())
    assert int8["admitted"] and int8["reasons"] == []
    assert set(int8["sets"]) == {"photos", "products"}
    assert all(found["n"] == 1 and 0 < found["level"] <= 255 for found in int8["sets"].values())


def test_an_int8_variant_that_costs_too_much_is_left_out_with_the_reason(source: Source, tmp_path: Path) -> None:
    bundle = make(tmp_path / "bundle", source, Limits(db=99.0, level_9999=255, level=0))
    assert any("a sample is" in reason for reason in bundle.without_int8)
    assert "model-int8.onnx" not in verify_folder(tmp_path / "bundle")
    int8 = json.loads((tmp_path / "bundle" / "metrics.json").read_text())["int8"]
    assert (int8["admitted"], int8["reasons"]) == (False, bundle.without_int8)
    assert bundle.without_int8[0] in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert check(tmp_path / "bundle")[0] == 0


def test_scores_of_another_model_are_refused_and_the_old_bundle_stays(
    source: Source, bundle: Path, tmp_path: Path
) -> None:
    save_network(tmp_path / "other", network(2), CONFIG)
    before = (bundle / MANIFEST).read_bytes()
    other = Source(tmp_path / "other", source.index, source.metrics, "", 0.0, {})
    with pytest.raises(InputError, match=r"scores of another model than .*other; run `dvc repro evaluate`"):
        make(bundle, other)
    assert (bundle / MANIFEST).read_bytes() == before
    assert [path.name for path in bundle.parent.iterdir() if "part" in path.name] == []


def test_verify_is_content_where_neither_loupe_nor_pytorch_is(bundle: Path, tmp_path: Path) -> None:
    code, said = check(bundle)
    assert code == 0, said
    assert re.search(r"ok +model.onnx: 10 pictures, [01] grey levels off at most", said)
    assert re.search(r"ok +model-int8.onnx: 10 pictures", said)
    assert said.endswith("the bundle is in order\n")
    assert run_elsewhere(bundle / "verify.py", bundle, cwd=tmp_path).returncode == 0, "from anywhere"
    wrong_use = run_elsewhere(bundle / "verify.py", tmp_path / "nowhere")
    assert wrong_use.returncode == 2 and "usage" in wrong_use.stderr
    assert verify_folder(bundle), "checking leaves nothing behind"


def change(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def other_output(path: Path) -> None:
    """A picture of the same size, one sample two levels off."""
    pixels = np.array(Image.open(path))
    pixels[0, 0] = np.where(pixels[0, 0] > 128, pixels[0, 0] - 2, pixels[0, 0] + 2)
    write_png(path, pixels)


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.safetensors", "golden/odd.png", "verify.py", "golden/golden.json"]
)
def test_verify_tells_a_changed_file_and_runs_nothing(bundle: Path, name: str) -> None:
    (shutil.copy if name == "verify.py" else shutil.copyfile)(bundle / "verify.py", bundle.parent / "verify.py")
    change(bundle / name)
    done = run_elsewhere(bundle.parent / "verify.py", bundle)
    assert done.returncode == 1
    assert f"WRONG   {name} is damaged" in done.stdout
    assert "do not use it" in done.stdout
    assert "pictures" not in done.stdout


def test_verify_tells_what_is_missing_and_what_is_too_much(bundle: Path) -> None:
    (bundle / "golden" / "white.png").unlink()
    (bundle / "added.txt").touch()
    (bundle / "link").symlink_to("/etc/hostname")
    code, said = check(bundle)
    assert code == 1
    for line in ("golden/white.png is missing", "'added.txt' is not in MANIFEST", "'link' is not in MANIFEST"):
        assert line in said
    (bundle / MANIFEST).unlink()
    code, said = check(bundle)
    assert code == 1
    assert "WRONG   MANIFEST.json is missing" in said


def test_verify_runs_the_models_where_the_manifest_was_forged_too(bundle: Path, source: Source) -> None:
    other_output(bundle / "golden" / "odd.model.png")
    write_manifest(bundle)
    code, said = check(bundle)
    assert code == 1
    assert re.search(
        r"WRONG +model.onnx: 10 pictures, [23] grey levels off .*; 1 and .* \(most in golden/odd.png\)", said
    )
    (bundle / "extra.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    (bundle / "model.onnx").write_bytes(b"no model")
    write_manifest(bundle)
    _, said = check(bundle)
    assert "WRONG   extra.onnx has no golden pictures" in said
    (bundle / "extra.onnx").unlink()
    write_manifest(bundle)
    code, said = check(bundle)
    assert code == 1
    assert re.search(r"WRONG +model.onnx: InvalidProtobuf", said)


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "a\\..\\b", "C:/x", "a//b", "", "a/./b", "x\n", "\ud800", "MANIFEST.json"]
)
def test_verify_follows_no_name_out_of_the_folder(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("s")
    secret = {"bytes": 1, "sha256": hashlib.sha256(b"s").hexdigest()}
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = secret
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    code, said = check(bundle)
    assert code == 1
    assert f"names {name!r}, which no bundle holds" in said


def test_verify_takes_golden_names_from_the_manifest_only(bundle: Path) -> None:
    write_png(bundle.parent / "secret.png", picture(1))
    golden = json.loads((bundle / "golden" / "golden.json").read_text())
    golden["cases"][0]["input"] = "../secret.png"
    (bundle / "golden" / "golden.json").write_text(json.dumps(golden))
    write_manifest(bundle)
    code, said = check(bundle)
    assert code == 1
    assert "names '../secret.png', which MANIFEST.json does not" in said


@pytest.mark.parametrize(
    "text", ["", "[]", "[" * 100_000, '{"format": 2, "files": {}}', '{"format": 1, "files": {"a": 1}}']
)
def test_verify_refuses_what_is_no_manifest(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    code, said = check(bundle)
    assert code == 1
    assert "MANIFEST.json cannot be used" in said


def test_the_card_is_read_by_machines_and_shows_pictures_that_are_there(made: Path) -> None:
    _, front, text = (made / "MODEL_CARD.md").read_text().split("---\n", 2)
    facts = YAML(typ="safe").load(front)
    assert facts["pipeline_tag"] == "image-to-image"
    results = facts["model-index"][0]["results"]
    assert [result["dataset"]["type"] for result in results] == ["photos", "products"]
    metrics = json.loads((made / "metrics.json").read_text())
    assert results[0]["metrics"][0]["value"] == pytest.approx(metrics["sets"]["photos"]["psnr_y"], abs=1e-4)
    shown = re.findall(r"!\[.*\]\((.*)\)", text)
    assert shown and set(shown) == {path.relative_to(made).as_posix() for path in made.glob("examples/*")}
    assert HOSTILE not in text and "<b>" not in text
    for fact in ("| a | CC0 |", "bicubic", "JPEG", "Apache-2.0"):
        assert fact in text


def test_the_lines_in_the_documentation_enlarge_a_picture(bundle: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "handoff.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code and code[1].count("\n") <= 10
    (tmp_path / "enlarge.py").write_text(code[1])
    write_png(tmp_path / "small.png", picture(4, 31, 45))
    done = run_elsewhere(tmp_path / "enlarge.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    large = np.asarray(Image.open(tmp_path / "large.png"))
    expected = stored(bundle).enlarge(picture(4, 31, 45))
    assert np.abs(large.astype(int) - expected).max() <= 1
