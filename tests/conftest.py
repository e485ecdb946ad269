"""Shared by all tests: small pictures, an index made of them, and an S3 server."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from loupe.imaging.files import write_png
from loupe.imaging.resize import Pixels
from loupe.patches.build import Source, build_index
from loupe.patches.index import LowResolution, PatchIndex

# In the background of a shell Ctrl-C is ignored, and would be by all that the tests start and send it to
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.servers", "tests.flows.runs"]


def picture(seed: int, height: int = 72, width: int = 88) -> Pixels:
    """Smooth random colour waves with a few hard edges: something a network can learn from in seconds."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = sum(
        rng.uniform(20, 50)
        * np.sin(rng.uniform(0.05, 0.9) * x + rng.uniform(0.05, 0.9) * y + rng.uniform(0, 6))[..., None]
        * rng.uniform(0.5, 1, 3)
        for _ in range(4)
    )
    pixels: Pixels = np.clip(128 + waves, 0, 255).astype(np.uint8)
    top, left = rng.integers(0, 30, 2)
    pixels[top : top + 25, left : left + 31] = rng.integers(0, 256, 3)
    return pixels


def fabric(seed: int, height: int = 160, width: int = 176) -> Pixels:
    """A `picture` with fine structure on a third, as a fabric has it: the gate takes it for an original."""
    pixels = picture(seed, height, width)
    pixels[:, : width // 3] = np.random.default_rng(seed).integers(60, 200, (height, width // 3, 1))
    return pixels


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., PatchIndex]:
    """Builds an index of so many photographs for `train` and `valid`, and products for `train`."""

    def make(
        train: int = 3,
        valid: int = 1,
        scale: int = 2,
        patch: int = 16,
        products: int = 0,
        low_resolution: LowResolution = "computed",
        reductions: tuple[int, ...] = (),
    ) -> PatchIndex:
        sources = []
        places = ["photos/train"] * train + ["photos/valid"] * valid + ["products/train"] * products
        for number, place in enumerate(places):
            path = tmp_path / "pictures" / f"{number}.png"
            write_png(path, picture(number))
            sources.append(Source(path, path.name, *place.split("/")))
        folder = tmp_path / f"index-{scale}-{patch}-{low_resolution}"
        folder.mkdir()
        build_index(
            sources,
            folder,
            scale=scale,
            patch=patch,
            valid_share=0.0,
            low_resolution=low_resolution,
            reductions=reductions,
        )
        return PatchIndex(folder)

    return make


@dataclass(frozen=True)
class S3:
    """An S3 server on loopback: its address, an empty bucket of the test's own, and a boto3 client."""

    endpoint: str
    bucket: str
    client: Any


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of moto's S3 server, started once a session."""
    moto = pytest.importorskip("moto.server", reason="moto[server] of the extra `dev` is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """An S3 server with an empty bucket, which the environment names to all clients."""
    boto3 = pytest.importorskip("boto3")
    settings = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "no-aws-config"),
        "NO_PROXY": "127.0.0.1",  # a proxy of the environment must not see loopback
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    bucket = f"bucket-{uuid4()}"
    client.create_bucket(Bucket=bucket)
    return S3(s3_endpoint, bucket, client)
