"""Pictures at S3: the same promises as on disks, without a list that machines would have to share."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import S3, picture
from tests.release.flaky import Flaky, flaky
from tests.upscaling.enlargers import Repeating
from tests.upscaling.networks import CONFIG, network

import loupe
from loupe.errors import InputError
from loupe.imaging.files import write_png
from loupe.imaging.resize import Pixels
from loupe.models.export import to_onnx
from loupe.s3 import TRIES
from loupe.upscaling import batch, places
from loupe.upscaling.places import S3Error, S3Path, place
from loupe.upscaling.upscaler import Upscaler

MISSING = "s3://no-such-bucket/out"


@pytest.fixture(autouse=True)
def fresh_client() -> Iterator[None]:
    """No client of a server that another test started."""
    places._s3.cache_clear()
    yield
    places._s3.cache_clear()


def png(pixels: Pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def fill(s3: S3, count: int) -> str:
    for number in range(count):
        s3.client.put_object(Bucket=s3.bucket, Key=f"in/{number % 2}/{number}.png", Body=png(picture(number, 30, 40)))
    return f"s3://{s3.bucket}/in"


def keys(s3: S3, prefix: str = "") -> list[str]:
    answer = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix)
    return [found["Key"] for found in answer.get("Contents", [])]


def body(s3: S3, key: str) -> bytes:
    data: bytes = s3.client.get_object(Bucket=s3.bucket, Key=key)["Body"].read()
    return data


def pixels_of(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def writes(s3: S3, key: str) -> int:
    """How often an object was written, where the bucket keeps all versions."""
    found = s3.client.list_object_versions(Bucket=s3.bucket, Prefix=key).get("Versions", [])
    return sum(one["Key"] == key for one in found)


def run(source: str, out: str, kind: str = "", identity: str = "one", dry: bool = False) -> dict[str, Any]:
    jobs = batch.plan([place(source)], place(out), kind)
    upscaler = Upscaler(Repeating(), identity=identity)
    return batch.run(jobs, upscaler, place(out), kind, batch.Stop(), lambda outcome: None, dry)


def test_a_prefix_becomes_another_and_a_second_run_writes_no_copy(s3: S3) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    source, out = fill(s3, 5), f"s3://{s3.bucket}/out"
    for key in ("in/.hidden/a.png", "in/notes.txt", "in/folder.png/", "in-other/a.png"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=b"")
    before = keys(s3)
    found = run(source, out)
    assert (found["done"], found["skipped"], found["failed"]) == (5, 0, 0)
    copies = [f"out/{number % 2}/{number}.png" for number in range(5)]
    assert sorted(keys(s3)) == sorted([*before, *copies, "out/failures.jsonl"])
    for number, key in enumerate(copies):
        expected = picture(number, 30, 40).repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(pixels_of(body(s3, key)), expected)
        assert s3.client.head_object(Bucket=s3.bucket, Key=key)["ContentType"] == "image/png"
    found = run(source, out)
    assert (found["done"], found["skipped"]) == (0, 5)
    assert {writes(s3, key) for key in copies} == {1}


def test_what_changed_is_made_again(s3: S3) -> None:
    source, out = fill(s3, 5), f"s3://{s3.bucket}/out"
    run(source, out)
    s3.client.put_object(Bucket=s3.bucket, Key="in/0/0.png", Body=png(picture(9, 30, 40)))  # another input
    s3.client.delete_object(Bucket=s3.bucket, Key="out/1/1.png")  # a lost output
    s3.client.put_object(Bucket=s3.bucket, Key="out/0/2.png", Body=b"by another program")
    assert run(source, out, dry=True)["left"] == 3
    assert run(source, out)["done"] == 3
    assert run(source, out, identity="two")["done"] == 5  # another model
    assert run(source, out, kind="webp")["done"] == 5  # another format
    assert run(source, out, identity="two")["skipped"] == 5, "copies of other names are left alone"


def test_between_disk_and_s3(s3: S3, tmp_path: Path) -> None:
    write_png(tmp_path / "in" / "deep" / "ž & ?#.png", picture(1, 30, 40))
    out = f"s3://{s3.bucket}/out"
    assert run(str(tmp_path / "in"), out)["done"] == 1
    assert run(str(tmp_path / "in"), out)["skipped"] == 1
    assert "out/deep/ž & ?#.png" in keys(s3)
    back = tmp_path / "back"
    assert run(out, str(back))["done"] == 1
    assert run(out, str(back))["skipped"] == 1
    with Image.open(back / "deep" / "ž & ?#.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture(1, 30, 40).repeat(4, axis=0).repeat(4, axis=1))
    write_png(tmp_path / "in" / "deep" / "ž & ?#.png", picture(2, 30, 40))
    assert run(str(tmp_path / "in"), out)["done"] == 1
    assert run(out, str(back))["done"] == 1, "the object has another etag"


def test_bad_objects_are_named_and_stop_nothing(s3: S3, tmp_path: Path) -> None:
    source = fill(s3, 2)
    hostile = ("../../up.png", "/etc/x.png", "a//b.png", "./c.png", "d\\..\\e.png", "red\x1b[31m.png")
    for name in hostile:
        s3.client.put_object(Bucket=s3.bucket, Key=f"in/{name}", Body=png(picture(3, 8, 8)))
    s3.client.put_object(Bucket=s3.bucket, Key="in/damaged.png", Body=b"nothing")
    s3.client.put_object(Bucket=s3.bucket, Key="in/empty.png", Body=b"")
    before = set(keys(s3))
    for out in (f"s3://{s3.bucket}/out", str(tmp_path / "deep" / "out")):
        found = run(source, out)
        assert (found["done"], found["failed"]) == (2, 8)
        reasons = {failure["source"].removeprefix(f"{source}/"): failure["reason"] for failure in found["failures"]}
        assert {name for name, reason in reasons.items() if "could not be the name of a file" in reason} == {*hostile}
        assert reasons["damaged.png"].startswith("refused: not an image that can be decoded")
        assert reasons["empty.png"].startswith("refused: the file is empty")
    assert set(keys(s3)) - before == {"out/0/0.png", "out/1/1.png", "out/failures.jsonl"}
    assert [path.name for path in tmp_path.iterdir()] == ["deep"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert [json.loads(line) for line in body(s3, "out/failures.jsonl").splitlines()] == found["failures"]
    for key in before - {"in/0/0.png", "in/1/1.png"}:
        s3.client.delete_object(Bucket=s3.bucket, Key=key)
    assert run(source, f"s3://{s3.bucket}/out")["skipped"] == 2
    assert body(s3, "out/failures.jsonl") == b"", "those of a former run are forgotten"


def test_inputs_stay_what_they_are(s3: S3) -> None:
    source = fill(s3, 2)
    with pytest.raises(InputError, match=r"in: is the folder of the pictures themselves"):
        batch.plan([place(source)], place(f"{source}/"))
    with pytest.raises(InputError, match=r"0.png: would replace itself"):
        batch.plan([place(f"{source}/0/0.png")], place(f"{source}/0"))
    assert run(source, f"{source}/out")["done"] == 2
    assert run(source, f"{source}/out")["skipped"] == 2, "what lies in OUT is no input"
    with pytest.raises(InputError, match="no images here"):
        batch.plan([place(f"s3://{s3.bucket}/none")], place(f"s3://{s3.bucket}/out"))


def test_places_that_are_not_there(s3: S3) -> None:
    source = fill(s3, 1)
    with pytest.raises(S3Error, match=r"s3://no-such-bucket/out: .*NoSuchBucket.*; check the address"):
        batch.plan([place(MISSING)], place(source))

    class Untouched(Repeating):
        def __call__(self, batch: Pixels) -> Pixels:
            raise AssertionError("nothing must be enlarged that cannot be written")

    with pytest.raises(S3Error, match=r"failures.jsonl: .*NoSuchBucket"):
        jobs = batch.plan([place(source)], place(MISSING))
        batch.run(jobs, Upscaler(Untouched()), place(MISSING), "", batch.Stop(), lambda outcome: None)
    for name in ("s3://", "s3:///key", "https://example.org/a.png"):
        with pytest.raises(InputError, match="give s3://BUCKET/PREFIX"):
            place(name)
    (job,) = batch.plan([place(f"{source}/gone.png")], place("out"))
    (outcome,) = batch.upscale_all([job], Upscaler(Repeating()))
    assert outcome.reason.startswith("refused: cannot be read (An error occurred (NoSuchKey)")


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """Stands between us and S3; no waiting between tries."""
    with flaky(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setattr(places, "PAUSE", 0.01)
        yield proxy


def test_lost_connections_and_busy_servers(s3: S3, proxy: Flaky) -> None:
    source, out = fill(s3, 2), f"s3://{s3.bucket}/out"
    proxy.script = {
        ("GET", "in/0/0.png"): [("cut", 100), 503, ("cut", 7)],
        ("PUT", "out/0/0.png"): [503, ("deaf", 0)],
        ("HEAD", "out/0/0.png"): [503],
        ("GET", "in/1/1.png"): [("cut", 100)] * TRIES,
    }
    found = run(source, out)
    assert (found["done"], found["failed"]) == (1, 1)
    assert "cannot be read" in found["failures"][0]["reason"]
    assert pixels_of(body(s3, "out/0/0.png")).shape == (60, 80, 3)
    assert "out/1/1.png" not in keys(s3)
    assert run(source, out)["done"] == 1


def test_an_object_that_is_replaced_meanwhile(s3: S3) -> None:
    """Its copy would carry the note of another content."""
    source = fill(s3, 2)
    jobs = batch.plan([place(source)], place(f"s3://{s3.bucket}/out"))
    s3.client.put_object(Bucket=s3.bucket, Key="in/0/0.png", Body=png(picture(9, 30, 40)))
    first, second = batch.upscale_all(jobs, Upscaler(Repeating()))
    assert (first.state, first.reason) == ("failed", "refused: it was replaced after the run began; run again")
    assert second.state == "done"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.onnx").write_bytes(to_onnx(network()).SerializeToString())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "contract.json").write_text(json.dumps({"scale": 2, "tiles": {"halo": 9}}))
    return folder


def test_the_command(s3: S3, model: Path) -> None:
    def upscale(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "loupe.cli", "upscale", *arguments, "--model", str(model)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    source, out = fill(s3, 1), f"s3://{s3.bucket}/out"
    s3.client.put_object(Bucket=s3.bucket, Key="in/bad.png", Body=b"nothing")
    done = upscale(source, "-o", f"{out}/")
    assert done.returncode == 1, done.stderr
    assert f"{source}/bad.png: refused: not an image" in done.stderr
    assert done.stdout == f"{out}: 1 pictures written, 0 there already, 1 failed, see {out}/failures.jsonl\n"
    expected = loupe.load(model).upscale(picture(0, 30, 40))
    np.testing.assert_array_equal(pixels_of(body(s3, "out/0/0.png")), expected)

    done = upscale(f"{source}/0/0.png", "-o", f"{out}/big.webp")
    assert done.returncode == 0, done.stderr
    assert s3.client.head_object(Bucket=s3.bucket, Key="out/big.webp")["ContentType"] == "image/webp"

    done = upscale(source, "-o", MISSING)
    assert done.returncode == 2
    assert "NoSuchBucket" in done.stderr
    assert "Traceback" not in done.stderr


def test_names() -> None:
    assert str(place("s3://bucket/a/b/")) == "s3://bucket/a/b"
    assert str(place("s3://bucket/")) == "s3://bucket"
    assert place("s3://bucket") / "a.png" == S3Path("bucket", "a.png")
    assert not S3Path("bucket", "in-other/a.png").is_relative_to(S3Path("bucket", "in"))
    assert place("a/b.png") == Path("a/b.png")
