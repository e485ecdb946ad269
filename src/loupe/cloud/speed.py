"""How fast machines compute: what an estimate of hours is made of. Assumed, not measured."""

from __future__ import annotations

from loupe.errors import InputError

# TFLOP/s that training is taken to sustain on one GPU: a third of what its data sheet names for the numbers that are
# used there (bfloat16 with float32 sums), less where memory is the limit. The T4 has no bfloat16: it trains in float32.
SUSTAINED = {
    "g4dn": 2.7,  # T4
    "g5": 25.0,  # A10G
    "g6": 25.0,  # L4: twice the A10G's operations at half its memory bandwidth
    "g6e": 110.0,  # L40S
    "p4d": 100.0,  # A100
    "p5": 300.0,  # H100
}
GPUS = {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8, "metal": 8}  # by size; one in all others
ALL_GPUS = ("p4d", "p5")  # families whose every machine has eight


def has_gpu(kind: str) -> bool:
    """Whether an instance type is known to have a GPU."""
    return kind.partition(".")[0] in SUSTAINED


def sustained(kind: str) -> float:
    """TFLOP/s of an instance type, all its GPUs together.

    Raises:
        InputError: nothing is known of it.
    """
    family, _, size = kind.partition(".")
    if family not in SUSTAINED:
        raise InputError(
            f"{kind}: loupe does not know how fast it is; say how long it takes by --hours, or choose other types"
        )
    return SUSTAINED[family] * (8 if family in ALL_GPUS else GPUS.get(size, 1))
