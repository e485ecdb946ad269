"""What computes: OpenVINO, ONNX Runtime or PyTorch, behind one call.

A bundle is a folder with `model.onnx`, which takes and gives uint8 pixels, and `contract.json`, which says how far it
sees. Any runtime gives the same float32 picture within one grey level.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from loupe.errors import InputError
from loupe.imaging.resize import Pixels
from loupe.upscaling.tiles import NO_MEMORY

Runtime = Literal["openvino", "onnxruntime", "torch"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
MODEL, FAST, CONTRACT, MANIFEST = "model.onnx", "model-int8.onnx", "contract.json", "MANIFEST.json"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PROBE = 8  # side of the picture that tells the scale where nothing else does
UNKNOWN_HALO = 2**30  # sees everything: never cut
UNKNOWN_BYTES = 16384  # for each pixel of input, of a network that nothing is known of
GPU = Path("/dev/nvidia0")  # looked for before PyTorch is, whose import takes longer than a small picture
Run = Callable[[Pixels], Pixels]


class LoadedModel:
    """A network in a runtime: an `Enlarger`.

    Attributes:
        scale, halo, bytes_per_pixel: see `Enlarger`.
        identity: sha256 of the file with its weights.
        runtime: what computes it.
    """

    def __init__(
        self, run: Run, path: Path, runtime: Runtime, scale: int, halo: int, bytes_per_pixel: int, identity: str
    ) -> None:
        self._run = run
        self._path = path
        self._lock = threading.Lock()  # runtimes use all cores for one picture, and not all can take two at once
        self.runtime = runtime
        self.scale = scale
        self.halo = halo
        self.bytes_per_pixel = bytes_per_pixel
        self.identity = identity

    def __call__(self, batch: Pixels) -> Pixels:
        """uint8 [N, H, W, 3] -> uint8 [N, H * scale, W * scale, 3].

        Raises:
            MemoryError: there is not enough for so many pixels. InputError: the model cannot be run on them.
        """
        try:
            with self._lock:
                return self._run(batch)
        except MemoryError:
            raise
        except Exception as error:  # the runtimes' own have no common base
            if NO_MEMORY.search(str(error)):
                raise MemoryError(first_line(error)) from None
            raise InputError(f"{self._path}: failed on {list(batch.shape)} ({first_line(error)})") from error


def load_enlarger(path: Path, runtime: Runtime | None = None, fast: bool = False) -> LoadedModel:
    """Load a model into the best runtime that is there, or into the one named.

    Args:
        path: a bundle's folder, a folder with `model.safetensors` and `config.json`, or an ONNX file that takes and
            gives uint8 [N, H, W, 3]. Without `contract.json` beside it such a file works on whole pictures only.
        runtime: see RUNTIMES; else the environment variable LOUPE_RUNTIME; else chosen.
        fast: the bundle's 8-bit variant.

    Raises:
        InputError: there is no such model, it is damaged, or nothing is installed that can run it.
    """
    runtime = runtime or _from_environment()
    folder = path if path.is_dir() else path.parent
    file = path if path.suffix == ".onnx" else folder / (FAST if fast else MODEL)
    weights = path.suffix != ".onnx" and not fast and (folder / WEIGHTS).exists()
    if not path.exists() or not (weights or file.exists() or fast):
        raise InputError(f"{path}: no model here; give a bundle, a folder with {WEIGHTS}, or an ONNX file")
    if fast and not file.exists():
        raise InputError(f"{folder}: holds no {FAST}: no 8-bit variant was good enough; leave out --fast")
    if weights and (runtime == "torch" or (runtime is None and (_has_gpu() or not file.exists()))):
        return _load_torch(folder)
    if not file.exists():
        raise InputError(f"{folder}: holds no {MODEL}, which {runtime} needs; make a bundle, or leave it to PyTorch")
    if runtime == "torch":
        raise InputError(f"{file}: PyTorch runs a folder with {WEIGHTS}, no ONNX file; leave out the runtime")
    return _load_onnx(file, runtime or _installed(file))


def threads() -> int:
    """Cores to compute with: LOUPE_THREADS, else all that this process may use.

    Raises:
        InputError: LOUPE_THREADS is no whole number from 1.
    """
    given = os.environ.get("LOUPE_THREADS")
    if given and not (given.isdecimal() and int(given) > 0):
        raise InputError(f"LOUPE_THREADS={given}: give a whole number from 1, or leave it out")
    return int(given) if given else len(os.sched_getaffinity(0))


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some runtimes add."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _from_environment() -> Runtime | None:
    name: Any = os.environ.get("LOUPE_RUNTIME")
    if name and name not in RUNTIMES:
        raise InputError(f"LOUPE_RUNTIME={name}: there are {', '.join(RUNTIMES)}")
    return name or None


def _has_gpu() -> bool:
    wanted = os.environ.get("LOUPE_DEVICE", "cuda" if GPU.exists() else "")
    return wanted.startswith("cuda") and find_spec("torch") is not None


def _installed(file: Path) -> Runtime:
    """The fastest of those that run ONNX files on CPUs."""
    if find_spec("openvino"):
        return "openvino"
    if find_spec("onnxruntime"):
        return "onnxruntime"
    raise InputError(f"{file}: nothing here can run it; `pip install loupe[serve]` brings OpenVINO")


def _load_onnx(file: Path, runtime: Runtime) -> LoadedModel:
    if find_spec(runtime) is None:
        raise InputError(f"{runtime} is not installed; `pip install {runtime}`, or leave out the runtime")
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    identity = hashlib.sha256(data).hexdigest()
    _check_manifest(file, identity)
    try:
        run = _openvino(data) if runtime == "openvino" else _onnxruntime(data)
    except Exception as error:  # the runtimes' own have no common base
        raise InputError(f"{file}: no model that can be run ({first_line(error)}); get it again") from error
    config, contract = _json(file.with_name(CONFIG)), _json(file.with_name(CONTRACT))
    try:
        reach = int(contract["tiles"]["halo"]) if contract else UNKNOWN_HALO
        scale = int(contract["scale"]) if contract else 0
        pixel_bytes = bytes_per_pixel(config) if config else UNKNOWN_BYTES
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file.with_name(CONTRACT)}: damaged ({error!r}); get the bundle again") from None
    model = LoadedModel(run, file, runtime, scale, reach, pixel_bytes, identity)
    model.scale = scale or model(np.zeros((1, PROBE, PROBE, 3), np.uint8)).shape[1] // PROBE
    return model


def _openvino(data: bytes) -> Run:
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "f32",  # else bf16 where the CPU has it: other pixels, and not even faster
        "PERFORMANCE_HINT": "LATENCY",  # all cores on one window
        "INFERENCE_NUM_THREADS": threads(),
    }
    request = core.compile_model(core.read_model(data), "CPU", options).create_infer_request()
    return lambda batch: np.array(request.infer({0: batch}, share_inputs=True)[0])


def _onnxruntime(data: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3  # errors come as exceptions
    options.enable_cpu_mem_arena = False  # it would keep the largest window's memory for ever
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    (pixels,) = session.get_inputs()
    return lambda batch: np.asarray(session.run(None, {pixels.name: batch})[0])


def _load_torch(folder: Path) -> LoadedModel:
    if find_spec("torch") is None or find_spec("safetensors") is None:
        raise InputError(f"{folder}: needs PyTorch: `pip install loupe[pipeline]`; or give a bundle, which does not")
    import torch

    from loupe.models.export import halo
    from loupe.models.inference import choose_device, to_pixels, to_tensor
    from loupe.models.weights import describe, load_network

    device = choose_device()
    network = load_network(folder).to(device)
    if "LOUPE_THREADS" in os.environ:
        torch.set_num_threads(threads())

    def run(batch: Pixels) -> Pixels:
        with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):  # 10 bits of mantissa are too few
            output = network(to_tensor(batch, device))
            if not torch.isfinite(output).all():
                raise ValueError("it gave values that are no numbers; its weights are damaged")
            return to_pixels(output)

    facts = describe(folder)
    reach, most = halo(network), bytes_per_pixel(facts["config"])
    return LoadedModel(run, folder, "torch", network.scale, reach, most, str(facts["sha256"]))


def bytes_per_pixel(config: dict[str, Any]) -> int:
    """Memory that an RDN takes for each pixel of input, measured on all three runtimes and rounded up."""
    D, C, G, G0 = (int(config[key]) for key in ("D", "C", "G", "G0"))
    floats = 2 * D * G0 + C * G + 9 * G0  # all blocks' outputs, the same joined, one block, and twice as fine features
    return 5 * floats  # four bytes each, and a quarter more for what runtimes rearrange


def _check_manifest(file: Path, identity: str) -> None:
    """Whether a bundle's file is the one that its manifest names."""
    manifest = _json(file.with_name(MANIFEST))
    if not manifest:
        return
    try:
        whole = manifest["files"][file.name]["sha256"] == identity
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise InputError(f"{file}: not the file that {MANIFEST} names; it was changed or damaged: get the bundle again")


def _json(file: Path) -> dict[str, Any]:
    """The content of a small JSON file; nothing where there is none."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{file}: damaged; get the model again")
    return content
