"""`python -m tests.upscaling.hungry_run IN OUT`: a network that takes all memory it may; prints the most there was."""

import resource
import sys
from pathlib import Path

import numpy as np
from tests.upscaling.enlargers import Repeating

from loupe.imaging.resize import Pixels
from loupe.upscaling import batch
from loupe.upscaling.upscaler import Upscaler


class Hungry(Repeating):
    halo, bytes_per_pixel = 10, 1000

    def __call__(self, batch: Pixels) -> Pixels:
        taken = np.ones(batch.shape[1] * batch.shape[2] * self.bytes_per_pixel, np.uint8)
        assert taken.all()
        return super().__call__(batch)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    jobs = batch.plan([source], target)
    found = batch.run(jobs, Upscaler(Hungry(), memory=2**28), None, "", batch.Stop(), lambda outcome: None)
    assert found["done"] == 1, found
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
