"""Flow `upscale_catalogue`: `loupe upscale` with a bar, and a table of what failed. Run again, it goes on."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger
from prefect.states import Completed, Failed

from flows import child, show
from loupe.errors import InputError

SECONDS = "2"  # between two lines about progress


@flow(name="upscale-catalogue", flow_run_name="upscale {inputs} with {model}")
def upscale_catalogue(inputs: str, output: str, model: str = "production", fast: bool = False) -> State[Any]:
    """Enlarge all pictures of a folder or an S3 prefix.

    What was made by an earlier run is not made again, so a run that was stopped goes on when it is started once more.
    Pictures that cannot be enlarged are listed with the reason, and the others are made; the run then ends as
    "SomeFailed".

    Args:
        inputs: Folder, or s3://BUCKET/PREFIX, taken with all below.
        output: Folder, or s3://BUCKET/PREFIX, for the same names, twice the size.
        model: An alias such as production, a version such as 1.4.0, or a model's folder.
        fast: Take the 8-bit variant: faster, with slightly other pixels; not every model has one.
    """
    log = get_run_logger()
    command = [sys.executable, "-m", "loupe.cli", "upscale", f"--out={output}", f"--model={model}", "--json"]
    with show.Progress("upscaling", "upscale") as bar:

        def say(line: str) -> None:
            bar.feed(line)
            log.info(line)

        printed = child.run(
            [*command, *(["--fast"] if fast else []), "--", inputs],
            cwd=Path.cwd(),
            env=os.environ | {"LOUPE_PROGRESS_SECONDS": SECONDS},
            say=say,
            ok=(0, 1),
            echo=False,
        )
    try:
        found = json.loads(printed)
    except ValueError:
        raise InputError("`loupe upscale` ended before its work did; the last lines of the log say why") from None
    show.upscaled(found, output)
    counts = f"{found['done']} made, {found['skipped']} there already, {found['failed']} failed"
    if found["stopped"]:
        return Failed(message=f"{counts}, {found['left']} left: {found['stopped']}")
    if found["failed"] and not found["done"] and not found["skipped"]:
        return Failed(message=f"none could be enlarged: {counts}; the artifact `upscaled` says why")
    if found["failed"]:
        return Completed(name="SomeFailed", message=f"{counts}; the artifact `upscaled` says which and why")
    return Completed(message=counts)
