"""Flow `evaluate_and_report`: how good a model is, and a report to look at. Nothing outside of .cache is touched."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import child, show
from flows.publish import publish
from flows.settings import FOLDER
from loupe.errors import InputError
from loupe.named import STORE, model_at

WORK = FOLDER / "evaluations"
INDEX = "index"
CHAMPION = "production"


@flow(name="evaluate-and-report", flow_run_name="evaluate {model} on {pictures}")
def evaluate_and_report(model: str = CHAMPION, pictures: str = INDEX) -> State[Any]:
    """Score a model, and publish a report with every picture, every error, and the best and worst patches.

    Low resolution is made from the pictures as everywhere in the field. Beside the model stand bicubic and Lanczos
    enlargement and, where the model is not itself the one in production, that one.

    Args:
        model: An alias such as production, a version such as 1.4.0, or a model's folder.
        pictures: Folder of high-resolution pictures; or `index`, those that the project itself holds out.
    """
    log, run = get_run_logger(), str(flow_run.id)
    folder = WORK / run
    shutil.rmtree(folder, ignore_errors=True)  # of this run, if Prefect starts it again
    folder.mkdir(parents=True)
    try:
        command = [sys.executable, "-m", "loupe.cli", "evaluate", f"--hr={_ground_truth(pictures, folder, log.info)}"]
        champion = [f"--champion={CHAMPION}"] if _has_rival(model) else []
        figures = folder / "evaluate.json"
        failed = False
        try:
            child.run([*command, f"--model={model}", *champion, f"--out={folder}"], cwd=Path.cwd(), say=log.info)
        except child.ChildError as error:
            failed = error.code == 1 and figures.exists()  # some pictures; the others are scored
            if not failed:
                raise
        summary = json.loads(figures.read_text())
        show.scores(summary)
        show.links(show.evaluation_links(publish(folder / "report", run, "evaluation")))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    scored = ", ".join(f"{name} {show.db(one['psnr_y'])} dB" for name, one in summary["sets"].items())
    told = f"PSNR-Y of {summary['model']['label']}: {scored}"
    if failed:
        return Completed(name="SomeFailed", message=f"{told}; some pictures could not be scored, the log says why")
    return Completed(message=told)


def _ground_truth(pictures: str, folder: Path, say: Callable[[str], object]) -> str:
    """What `loupe evaluate --hr` is given; an index that lies only in DVC's cache is brought into `folder`.

    Raises:
        InputError: there is no index yet.
    """
    if pictures != INDEX or (Path(INDEX) / "index.json").is_file():
        return pictures
    say(f"no {INDEX}/ here: the one that dvc.lock names is taken from DVC's cache")
    brought = folder / INDEX
    command = [sys.executable, "-m", "dvc", "get", "--quiet", "--out", str(brought), ".", INDEX]
    try:
        child.run(command, cwd=Path.cwd(), say=say)
    except child.ChildError as error:
        hint = f"{INDEX}: neither here nor in DVC's cache; run `dvc repro patch-index` first"
        raise InputError(f"{hint}\n{error}") from None
    return str(brought)


def _has_rival(model: str) -> bool:
    """Whether there is a model in production, and it is another one."""
    from loupe.release.store import open_store
    from loupe.release.versions import read_alias

    store = os.environ.get("LOUPE_STORE") or STORE
    if "://" not in store and not Path(store).is_dir():
        return False
    if not read_alias(open_store(store), CHAMPION):
        return False
    return _content(model_at(model)) != _content(model_at(CHAMPION))


def _content(model: Path) -> str:
    """sha256 of a model's weights, or of its ONNX file."""
    path = model / "model.safetensors" if model.is_dir() else model
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a model's folder, a version or an alias") from None
