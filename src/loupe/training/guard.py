"""The divergence guard: a step whose loss or gradient is out of all proportion is skipped, too many end the run."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

HISTORY = 100  # losses whose median a new one is held against
ENOUGH = 20  # losses before the guard judges by the median at all: the first ones fall fast
# Times the median, in terms of the loss; a hard batch reaches a few times of it, a network that blew up thousands.
SPIKES = {"l1": 20.0, "charbonnier": 20.0, "mse": 400.0}
MAX_IN_A_ROW = 20


class DivergedError(FloatingPointError):
    """Training blew up and does not recover; the message says what to try."""


@dataclass
class Guard:
    """Judges steps by their loss and gradient norm; a checkpoint holds it as a dictionary.

    loss: the recipe's. losses, norms: those of the last HISTORY good steps. skipped: steps refused so far. in_a_row:
    the latest of them.
    """

    loss: str
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    skipped: int = 0
    in_a_row: int = 0

    def admits(self, loss: float, gradient_norm: float) -> bool:
        """Whether the step may change the weights.

        Raises:
            DivergedError: it is the MAX_IN_A_ROW-th bad one in a row.
        """
        finite = math.isfinite(loss) and math.isfinite(gradient_norm)
        spike = SPIKES[self.loss]
        limit = spike * statistics.median(self.losses) if len(self.losses) >= ENOUGH else math.inf
        if finite and loss <= limit:
            self.losses = [*self.losses, loss][-HISTORY:]
            self.norms = [*self.norms, gradient_norm][-HISTORY:]
            self.in_a_row = 0
            return True
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= MAX_IN_A_ROW:
            what = f"{loss:.3g}, far above its median of {limit / spike:.3g}" if finite else "no number"
            raise DivergedError(
                f"training diverged: the loss is {what}, for {self.in_a_row} steps in a row (they were skipped)"
            )
        return False
