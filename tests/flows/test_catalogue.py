"""A catalogue enlarged by a flow: what was made, what failed, and that it goes on where it stopped."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.conftest import S3, picture
from tests.flows.runs import Flow as Process
from tests.upscaling.networks import CONFIG, network

from loupe.imaging.files import write_png
from loupe.models.weights import save_network

Start = Callable[[str, Path], Process]
Artifacts = Callable[[str], dict[str, dict[str, Any]]]
UPSCALE = "flows.catalogue:upscale_catalogue"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a model in it."""
    save_network(tmp_path / "models", network(), CONFIG)
    return tmp_path


def test_a_folder_with_a_bad_file(
    start_flow: Start, artifacts: Artifacts, ask: Callable[..., Any], project: Path
) -> None:
    for number in range(3):
        write_png(project / "in" / f"{number}.png", picture(number, 30, 40))
    (project / "in" / "<b>bad|.png").write_bytes(b"nothing")
    upscale = start_flow(UPSCALE, project)
    given = {"inputs": "in", "output": "out", "model": "models"}
    first = upscale(**given)
    assert (first.type, first.name) == ("COMPLETED", "SomeFailed")
    assert first.message.startswith("3 made, 0 there already, 1 failed")
    assert ask("GET", f"/flow_runs/{first.run}")["name"] == "upscale in with models"
    found = artifacts(first.run)
    assert found.keys() == {"upscaling", "upscaled"}
    assert found["upscaling"]["data"] == 100.0
    table = found["upscaled"]["data"]
    assert found["upscaled"]["description"] == "Pictures: 3 made, 1 failed."
    assert r"`in/<b>bad\x7c.png`" in table
    assert "refused: not an image that can be decoded" in table
    with Image.open(project / "out" / "0.png") as image:
        assert image.size == (80, 60)

    (project / "in" / "<b>bad|.png").unlink()
    write_png(project / "in" / "new.png", picture(9, 30, 40))
    again = upscale(**given)
    assert (again.type, again.name) == ("COMPLETED", "Completed")
    assert again.message == "1 made, 3 there already, 0 failed"

    (project / "only" / "bad").mkdir(parents=True)
    (project / "only" / "bad" / "a.png").write_bytes(b"nothing")
    none = upscale(**given | {"inputs": "only", "output": "other"})
    assert none.type == "FAILED"
    assert none.message.startswith("none could be enlarged")
    wrong = upscale(**given | {"model": "gone"})
    assert wrong.type == "FAILED"
    assert "gone: no such file or folder" in wrong.message
    assert "--help" not in upscale(**given | {"inputs": "--help"}).message
    assert "--help: " in upscale.log(), "what people fill in is never an option"


def test_s3_to_s3(start_flow: Start, artifacts: Artifacts, s3: S3, project: Path) -> None:
    for number in range(2):
        data = io.BytesIO()
        Image.fromarray(picture(number, 30, 40)).save(data, "PNG")
        s3.client.put_object(Bucket=s3.bucket, Key=f"in/{number}.png", Body=data.getvalue())
    place = f"s3://{s3.bucket}"
    ended = start_flow(UPSCALE, project)(inputs=f"{place}/in", output=f"{place}/out", model="models")
    assert (ended.type, ended.message) == ("COMPLETED", "2 made, 0 there already, 0 failed")
    keys = {one["Key"] for one in s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="out/")["Contents"]}
    assert {"out/0.png", "out/1.png"} <= keys
    assert "upscaled" in artifacts(ended.run)
