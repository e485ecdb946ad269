"""A run to be killed: `python -m tests.upscaling.slow_run IN OUT`, with a network that takes its time."""

import sys
import time
from pathlib import Path

from tests.upscaling.enlargers import Repeating

from loupe.imaging.resize import Pixels
from loupe.upscaling import batch
from loupe.upscaling.upscaler import Upscaler

SECONDS = 0.05  # for each picture


class Slow(Repeating):
    def __call__(self, batch: Pixels) -> Pixels:
        time.sleep(SECONDS)
        return super().__call__(batch)


def main() -> None:
    source, out = map(Path, sys.argv[1:])
    stop = batch.Stop()

    def say(line: str) -> None:
        print(line, flush=True)

    with batch.finishing_on_interrupt(stop, say):
        jobs = batch.plan([source], out)
        say("begun")
        found = batch.run(jobs, Upscaler(Slow(), identity="slow"), out, "", stop, lambda outcome: say(outcome.state))
    say(f"{stop.reason} {found['failures']}")
    sys.exit(batch.exit_code(found, stop))


if __name__ == "__main__":
    main()
