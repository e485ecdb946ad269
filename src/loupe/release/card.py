"""MODEL_CARD.md: the bundle for people, with the metadata that Hugging Face reads. The text is card.md."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

# PSNR-Y in dB and SSIM-Y for scale 2, as published. Bicubic, SRCNN and RDN: Zhang et al., "Residual Dense Network for
# Image Super-Resolution", CVPR 2018. FSRCNN and EDSR-baseline: Hui et al., "Lightweight Image Super-Resolution with
# Information Multi-distillation Network", ACM Multimedia 2019.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "bicubic": {"Set5": (33.66, 0.9299), "Set14": (30.24, 0.8688)},
    "SRCNN": {"Set5": (36.66, 0.9542), "Set14": (32.45, 0.9067)},
    "FSRCNN": {"Set5": (37.00, 0.9558), "Set14": (32.63, 0.9088)},
    "EDSR-baseline": {"Set5": (37.99, 0.9604), "Set14": (33.57, 0.9175)},
    "RDN (the paper's)": {"Set5": (38.24, 0.9614), "Set14": (34.01, 0.9212)},
}


def model_card(
    label: str,
    metrics: Mapping[str, Any],
    contract: Mapping[str, Any],
    licences: str,
    jpeg_share: float,
    examples: Sequence[Mapping[str, Any]],
) -> str:
    """The card's text.

    Args:
        label: of the network, such as "RDN D4 C3 G32".
        metrics, contract: as in the bundle's files.
        licences: of the pictures, Markdown.
        jpeg_share: of the product patches in training that were compressed, in [0, 1].
        examples: kind (`gain`, `worst`), file, set, image, psnr_y and bicubic_psnr_y of each.
    """
    environment = Environment(
        autoescape=False,  # noqa: S701  # Markdown is no HTML; `plain` makes names of pictures harmless
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"plain": _plain, "figure": _figure}
    template = environment.from_string(files("loupe.release").joinpath("card.md").read_text(encoding="utf-8"))
    return template.render(
        label=label,
        metrics=metrics,
        contract=contract,
        licences=licences,
        jpeg_share=jpeg_share,
        examples=examples,
        published=PUBLISHED,
    )


def _figure(value: float | None, decimals: int = 2, unknown: str = "–") -> str:
    """A number; infinity and NaN, which JSON holds as null, as `unknown`."""
    return unknown if value is None or not math.isfinite(value) else f"{value:.{decimals}f}"


def _plain(text: str) -> str:
    """A stranger's file name as text of a Markdown table: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
