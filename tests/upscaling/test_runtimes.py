"""The same picture from every runtime, and models that cannot be run."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import picture
from tests.upscaling.networks import CONFIG, network

import loupe
from loupe.errors import InputError
from loupe.models.export import to_onnx
from loupe.models.inference import super_resolve
from loupe.models.weights import save_network
from loupe.upscaling.runtimes import RUNTIMES, Runtime, bytes_per_pixel, load_enlarger


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle's folder with what `loupe upscale` reads of it."""
    folder = tmp_path_factory.mktemp("bundle")
    save_network(folder, network(), CONFIG)
    (folder / "model.onnx").write_bytes(to_onnx(network()).SerializeToString())
    (folder / "contract.json").write_text(json.dumps({"scale": 2, "tiles": {"halo": 9}}))
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "bundle")


def installed(runtime: Runtime) -> Runtime:
    return runtime if runtime == "torch" else pytest.importorskip(runtime).__name__


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_makes_the_networks_picture(bundle: Path, runtime: Runtime) -> None:
    upscaler = loupe.load(bundle, runtime=installed(runtime), memory=40 * 40 * bytes_per_pixel(CONFIG))  # in tiles
    real = network()
    for seed, (height, width) in enumerate([(1, 1), (3, 50), (64, 65), (100, 71)]):
        pixels = picture(seed, 100, 100)[:height, :width]
        made = upscaler.upscale(pixels).astype(int)
        assert np.abs(made - super_resolve(real, pixels)).max() <= 1


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_threads_may_share_one(bundle: Path, runtime: Runtime) -> None:
    enlarger = load_enlarger(bundle, installed(runtime))
    pixels = [picture(seed, 20 + seed, 30)[None] for seed in range(8)]
    alone = [enlarger(one) for one in pixels]
    together: list[object] = [None] * 8

    def work(number: int) -> None:
        together[number] = enlarger(pixels[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_model_of_one_file_works_whole_and_finds_its_scale(bundle: Path, tmp_path: Path) -> None:
    shutil.copy(bundle / "model.onnx", tmp_path / "alone.onnx")
    upscaler = loupe.load(tmp_path / "alone.onnx", memory=2**30)
    assert upscaler.scale == 2
    pixels = picture(1, 30, 40)
    np.testing.assert_array_equal(upscaler.upscale(pixels), loupe.load(bundle).upscale(pixels))
    with pytest.raises(InputError, match=r"there is memory for 1000; allow more"):
        loupe.load(tmp_path / "alone.onnx", memory=1000 * 16384).upscale(pixels)


def test_a_models_folder_needs_no_more_than_pytorch(bundle: Path, tmp_path: Path) -> None:
    save_network(tmp_path, network(), CONFIG)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert load_enlarger(path).runtime == "torch"
    enlarger = load_enlarger(tmp_path)
    assert (enlarger.scale, enlarger.halo) == (2, 9)
    with pytest.raises(InputError, match=r"holds no model.onnx, which onnxruntime needs"):
        load_enlarger(tmp_path, "onnxruntime")


def test_the_runtime_is_chosen_by_what_is_there(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.upscaling.runtimes.GPU", Path("/nowhere"))
    assert load_enlarger(bundle).runtime in ("openvino", "onnxruntime")
    monkeypatch.setenv("LOUPE_RUNTIME", "torch")
    assert load_enlarger(bundle).runtime == "torch"
    monkeypatch.setenv("LOUPE_RUNTIME", "tensorrt")
    with pytest.raises(InputError, match=r"LOUPE_RUNTIME=tensorrt: there are openvino, onnxruntime, torch"):
        load_enlarger(bundle)


def test_the_light_path_imports_neither_pytorch_nor_pandas(bundle: Path) -> None:
    script = (
        "import sys, numpy, loupe\n"
        "assert 'numpy' in sys.modules and 'loupe.upscaling' not in sys.modules\n"
        f"loupe.load({str(bundle)!r}).upscale(numpy.zeros((4, 4, 3), numpy.uint8))\n"
        "assert not {'torch', 'pandas', 'onnx', 'loupe.training'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_the_fast_variant_is_used_where_there_is_one(copied: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model-int8.onnx: no 8-bit variant was good enough"):
        loupe.load(copied, fast=True)
    (copied / "model-int8.onnx").write_bytes(to_onnx(network(seed=1)).SerializeToString())
    pixels = picture(2, 20, 20)
    made = loupe.load(copied, fast=True).upscale(pixels).astype(int)
    assert np.abs(made - super_resolve(network(seed=1), pixels)).max() <= 1


def test_what_is_no_model_is_named(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no model here"):
        loupe.load(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no model here; give a bundle"):
        loupe.load(tmp_path / "empty")
    (copied / "contract.json").write_text("{}x")
    with pytest.raises(InputError, match=r"contract.json: damaged"):
        loupe.load(copied, runtime="onnxruntime")
    (copied / "contract.json").write_text('{"scale": 2}')
    with pytest.raises(InputError, match=r"contract.json: damaged \(KeyError\('tiles'\)\)"):
        loupe.load(copied, runtime="onnxruntime")


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_a_damaged_bundle_is_refused(copied: Path, runtime: Runtime) -> None:
    model = copied / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model.onnx: no model that can be run"):
        loupe.load(copied, runtime=installed(runtime))
    model.write_bytes(whole)
    (copied / "MANIFEST.json").write_text(json.dumps({"files": {"model.onnx": {"sha256": "0" * 64}}}))
    with pytest.raises(InputError, match=r"model.onnx: not the file that MANIFEST.json names"):
        loupe.load(copied, runtime=installed(runtime))


def test_weights_that_are_no_numbers_fail_clearly(tmp_path: Path) -> None:
    broken = network()
    torch.nn.init.constant_(broken.output.weight, float("nan"))
    save_network(tmp_path, broken, CONFIG)
    with pytest.raises(InputError, match=r"failed on \[1, 4, 4, 3\] \(it gave values that are no numbers"):
        loupe.load(tmp_path).upscale(np.zeros((4, 4, 3), np.uint8))


def test_the_scale_is_the_networks_or_its_square(bundle: Path) -> None:
    pixels = picture(3, 25, 31)
    twice = loupe.load(bundle)
    np.testing.assert_array_equal(loupe.load(bundle, scale=4).upscale(pixels), twice.upscale(twice.upscale(pixels)))
    with pytest.raises(InputError, match="enlarges 2 times, or 4 times by two passes; not 3"):
        loupe.load(bundle, scale=3)
