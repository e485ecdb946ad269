"""A magnifying glass for product photos: small pictures become sharp ones twice the size.

    import loupe

    upscaler = loupe.load("production")  # or a bundle, a model's folder, an ONNX file, a version
    sharp = upscaler.upscale(image)  # a NumPy array or a picture of Pillow's

Nothing is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loupe.named import load
    from loupe.upscaling.upscaler import Upscaler

__all__ = ["Upscaler", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from loupe import named
    from loupe.upscaling import upscaler

    return named.load if name == "load" else upscaler.Upscaler
