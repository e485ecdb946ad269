"""CUDA graphs: work on a GPU that is recorded once and then started as a whole, for its many small steps take longer to
start one by one than to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

WARM = 3  # calls before the recording: libraries take their memory, and compilers compile


class Recorded:
    """A function on one GPU, started at once. It waits for nothing, and its tensors keep their shapes and addresses.

    Args:
        function: is recorded, not computed, with copies of `arguments`; whatever it changes is changed at each call.
        arguments: tensors on the device, of the shapes that each call will have.
        warm: does the same kind of work beforehand; what it changes does not matter.
    """

    def __init__(
        self, function: Callable[..., Tensor | None], arguments: Sequence[Tensor], warm: Callable[[], object]
    ) -> None:
        self._arguments = [argument.clone() for argument in arguments]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(arguments[0].device):
            now = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                for _ in range(WARM):
                    warm()
            now.wait_stream(aside)
            # another thread may be using the device meanwhile, to make batches
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = function(*self._arguments)

    def __call__(self, *arguments: Tensor) -> Tensor | None:
        """What the function returned; the next call overwrites it."""
        torch._foreach_copy_(self._arguments, list(arguments))
        self._graph.replay()
        return self._result
