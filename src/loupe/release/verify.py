"""Check a bundle: is every file whole, and does each model give the pictures that it should on this machine?

    pip install numpy pillow onnxruntime
    python verify.py              # in the bundle's folder; or: python verify.py FOLDER

Prints a line for each check, and ends with 0 if all is well, 1 if something is wrong, 2 if FOLDER is none. Files are
checked against MANIFEST.json first: of a bundle that is not whole nothing is run. The three packages above are all that
it needs; every bundle holds a copy of this file.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

LARGEST = 1 << 20  # bytes of MANIFEST.json and golden.json: they are read into memory
GOLDEN = "golden/golden.json"


def main() -> int:
    """Check the folder that the command line names, or the one this file lies in."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    if len(sys.argv) > 2 or not folder.is_dir():
        print("usage: python verify.py [FOLDER]: the bundle's folder", file=sys.stderr)
        return 2
    entries, wrong = check_files(folder)
    if not wrong:
        print(f"ok      {len(entries)} files are as MANIFEST.json says")
        lines, wrong = check_models(folder, entries)
        for line in lines:
            print(f"ok      {line}")
    for line in wrong:
        print(f"WRONG   {line}")
    print("the bundle is NOT in order: do not use it, get it again" if wrong else "the bundle is in order")
    return 1 if wrong else 0


def check_files(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The manifest's entries by file name, and what is wrong with `folder`: nothing if it holds just these files."""
    try:
        entries = _read_json(folder / "MANIFEST.json")["files"]
        sizes = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        return {}, ["MANIFEST.json is missing: unfinished, or no bundle"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return {}, [f"MANIFEST.json cannot be used ({type(error).__name__}: {error})"]
    unsafe = [name for name in sizes if not _is_safe(name)]
    if unsafe:
        return {}, [f"MANIFEST.json names {name!r}, which no bundle holds or which leads out of it" for name in unsafe]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    wrong = [f"{name!r} is not in MANIFEST.json" for name in sorted(found - set(sizes) - {"MANIFEST.json"})]
    for name, (size, sha256) in sizes.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            wrong.append(f"{name} is missing, or no file")
        elif path.stat().st_size != size or _sha256(path) != sha256:
            wrong.append(f"{name} is damaged: its size or sha256 is another")
    return entries, wrong


def check_models(folder: Path, entries: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Run every ONNX file on every golden picture; what is well and what is wrong, a line each.

    golden.json: {"models": {FILE: {"largest": levels, "mean": levels}}, "cases": [{"input": FILE, "expected":
    {MODEL: FILE}}]}, files by their place in the bundle, tolerances in grey levels of 255.
    """
    well: list[str] = []
    wrong: list[str] = []
    try:
        golden = _read_json(folder / GOLDEN)
        models, cases = golden["models"], golden["cases"]
        files = {name for case in cases for name in (case["input"], *(case["expected"][model] for model in models))}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return well, [f"{GOLDEN} cannot be used ({type(error).__name__}: {error})"]
    wrong += [f"{GOLDEN} names {name!r}, which MANIFEST.json does not" for name in {*files, *models} - set(entries)]
    wrong += [f"{name} has no golden pictures" for name in entries if name.endswith(".onnx") and name not in models]
    if not cases or not models:
        wrong.append(f"{GOLDEN} holds no pictures to check with")
    if wrong:
        return well, wrong
    for name, tolerance in models.items():
        try:
            run = load(folder / name)
            differences = [_difference(folder, run, case["input"], case["expected"][name]) for case in cases]
        except Exception as error:  # whatever the model or a decoder raises, the bundle is of no use
            wrong.append(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
            continue
        largest, where = max((int(off.max()), case["input"]) for off, case in zip(differences, cases, strict=True))
        mean = float(np.concatenate([off.ravel() for off in differences]).mean())
        text = f"{name}: {len(cases)} pictures, {largest} grey levels off at most, {mean:.4f} on average"
        allowed = f"{tolerance['largest']} and {tolerance['mean']} are allowed"
        if largest > tolerance["largest"] or mean > tolerance["mean"]:
            wrong.append(f"{text}; {allowed} (most in {where})")
        else:
            well.append(f"{text}; {allowed}")
    return well, wrong


def load(path: Path) -> Any:
    """The model in `path` as a function of a picture: uint8 [H, W, 3] or gray [H, W] -> the same kind, enlarged."""
    import onnxruntime
    from PIL import Image

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def enlarge(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        gray = pixels.ndim == 2
        rgb = np.repeat(pixels[..., None], 3, axis=2) if gray else pixels
        enlarged = session.run(None, {name: np.ascontiguousarray(rgb)[None]})[0][0]
        return np.asarray(Image.fromarray(enlarged).convert("L")) if gray else enlarged

    return enlarge


def _pixels(path: Path) -> npt.NDArray[np.uint8]:
    """A PNG file as uint8 [H, W, 3], or [H, W] if it is gray; transparency is laid on white."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        if image.mode == "RGBA":
            canvas = Image.new("RGB", image.size, "white")
            canvas.paste(image, mask=image)
            return np.asarray(canvas)
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _difference(folder: Path, run: Any, given: str, wanted: str) -> npt.NDArray[np.int16]:
    """How far each sample of what `run` makes of a picture is from what is wanted, grey levels."""
    found, expected = run(_pixels(folder / given)), _pixels(folder / wanted)
    if found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{given}: made {found.dtype} {list(found.shape)}, not {list(expected.shape)}")
    off: npt.NDArray[np.int16] = np.abs(found.astype(np.int16) - expected)
    return off


def _read_json(path: Path) -> Any:
    if path.is_symlink() or path.stat().st_size > LARGEST:
        raise ValueError("a link, or too large")
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["format"] != 1:
        raise ValueError(f"its format is {content['format']!r}, this file reads 1")
    return content


def _is_safe(name: str) -> bool:
    """Whether a name stays in the folder on any system, and is one that a bundle may hold."""
    parts = name.split("/")
    plain = not re.search(r"[\x00-\x1f\x7f\\:\ud800-\udfff]", name) and not {"", ".", ".."} & set(parts)
    return plain and name != "MANIFEST.json"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
