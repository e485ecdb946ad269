"""How a cluster is divided; tests/system/test_catalogue.py runs one."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.servers import free_port
from tests.upscaling.enlargers import Repeating

from loupe.errors import InputError
from loupe.upscaling.batch import Job, Stop
from loupe.upscaling.cluster import Share, share_out, upscale_on_ray
from loupe.upscaling.upscaler import Upscaler


@pytest.mark.parametrize(
    ("machines", "workers", "share"),
    [
        ([{"CPU": 8.0}], 0, Share(1, 8, 0)),
        ([{"CPU": 2.0}], 2, Share(2, 1, 0)),
        ([{"CPU": 1.0}], 2, Share(2, 1, 0)),
        ([{"CPU": 16.0}, {"CPU": 8.0}, {"memory": 1e9}], 0, Share(2, 8, 0)),  # the smallest one sets the measure
        ([{"CPU": 16.0}, {"CPU": 16.0}], 3, Share(3, 8, 0)),
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}], 0, Share(4, 4, 1)),  # those without one only look on
        ([{"CPU": 16.0, "GPU": 4.0}], 2, Share(2, 4, 1)),
    ],
)
def test_shares(machines: list[dict[str, float]], workers: int, share: Share) -> None:
    assert share_out(machines, workers) == share


def test_nobody_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    said = f"{address}: no Ray cluster" if find_spec("ray") else r"pip install 'loupe\[ray\]'"
    jobs, upscaler, model = [Job(Path("a.png"), Path("b.png"))], Upscaler(Repeating()), Path("bundle")
    with pytest.raises(InputError, match=said):
        next(
            upscale_on_ray(
                jobs, upscaler, None, "", model=model, fast=False, memory=1, stop=Stop(), address=address, workers=0
            )
        )
