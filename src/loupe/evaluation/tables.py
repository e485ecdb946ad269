"""The figures of evaluate.json as text tables."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate


def summary_table(summary: dict[str, Any]) -> str:
    """The scores of every set: the model, and below it what it was compared with and by how much it is better."""
    rows = []
    for name, scores in summary["sets"].items():
        rows.append((f"{name} ({scores['n']})", summary["model"]["label"], *_figures(scores), "", ""))
        for key, label in summary["methods"].items():
            other = scores["others"][key]
            ends = other["interval_95"]["gain_db"]
            gains = f"{other['gain_db']:+.2f}", f"{ends[0]:+.2f} to {ends[1]:+.2f}" if ends else "-"
            rows.append(("", label, *_figures(other), *gains))
    headers = ("set (images)", "", "PSNR-Y dB", "SSIM-Y", "PSNR-RGB dB", "model is better by dB", "95 % of that")
    return str(tabulate(rows, headers=headers, disable_numparse=True, colalign=("left", "left", *["right"] * 5)))


def slices_table(summary: dict[str, Any]) -> str:
    """PSNR-Y by kind of pixel of every set, of the model and of what it was compared with."""
    keys = summary["methods"]
    rows = [
        (name, kind, f"{found['share']:.0%}", *(f"{psnr:.2f}" for psnr in (found["psnr_y"], *theirs)))
        for name, scores in summary["sets"].items()
        for kind, found in scores["slices"].items()
        if found["share"]
        for theirs in [[scores["others"][key]["slices"][kind] for key in keys]]
    ]
    headers = ("set", "pixels", "share", f"PSNR-Y dB\n{summary['model']['label']}", *keys.values())
    aligned = ("left", "left", *["right"] * (2 + len(keys)))
    return str(tabulate(rows, headers=headers, disable_numparse=True, colalign=aligned))


def _figures(scores: dict[str, Any]) -> tuple[str, str, str]:
    return f"{scores['psnr_y']:.2f}", f"{scores['ssim_y']:.4f}", f"{scores['psnr_rgb']:.2f}"
