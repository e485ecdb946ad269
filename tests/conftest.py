"""Shared by all tests: small pictures, an index made of them, and an S3 server."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from loupe.imaging.files import write_png
from loupe.imaging.resize import Pixels
from loupe.patches.build import Source, build_index
from loupe.patches.index import LowResolution, PatchIndex


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
    ) -> PatchIndex:
        sources = []
        places = ["photos/train"] * train + ["photos/valid"] * valid + ["products/train"] * products
        for number, place in enumerate(places):
            path = tmp_path / "pictures" / f"{number}.png"
            write_png(path, picture(number))
            sources.append(Source(path, path.name, *place.split("/")))
        folder = tmp_path / f"index-{scale}-{patch}-{low_resolution}"
        folder.mkdir()
        build_index(sources, folder, scale=scale, patch=patch, valid_share=0.0, low_resolution=low_resolution)
        return PatchIndex(folder)

    return make


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server on loopback, which the environment names."""
    moto = pytest.importorskip("moto.server", reason="moto[server] of the extra `dev` is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path_factory.mktemp("aws") / "none"))
        yield f"http://{host}:{port}"
    server.stop()
