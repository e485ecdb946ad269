"""A decision of the gate as a picture: gains picture by picture, and how far each guard is from its limit.

    from loupe.release.drawing import decision_picture
    path.write_text(decision_picture(decision))

A file of its own, light or dark as the reader's page is. No text of strangers is read as a formula.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from loupe.evaluation.plots import BICUBIC, GRID, INK, MODEL, SVG, series_color, style, svg
from loupe.release.gate import Decision, Guard, shown, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Transform

WIDTH = 760  # SVG units
ROW = 24  # height of a guard
TOP, BOTTOM = 76, 52  # above and below the plots
LEFT, MIDDLE, RIGHT = 20, 330, 76  # left of the gains, from there to the middle of the page, right of the guards
NAMES = 150  # for the names of guards
SPREAD = 0.3  # of the dots of a set, up and down, rows
NEAREST, FARTHEST = -1.4, 3.0  # of the axis of headroom
FAILURES_NAMED = 4


def decision_picture(decision: Decision) -> str:
    """The picture as the text of an SVG file."""
    from matplotlib.figure import Figure  # the light install decides nothing

    guards = [guard for guard in decision.guards if guard.name != "gain"]
    height = TOP + BOTTOM + ROW * len(guards)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    tall = 1 - (TOP + BOTTOM) / height
    gains = figure.add_axes((LEFT / WIDTH, BOTTOM / height, (MIDDLE - LEFT) / WIDTH, tall))
    start = MIDDLE + NAMES + 20
    headroom = figure.add_axes((start / WIDTH, BOTTOM / height, (WIDTH - RIGHT - start) / WIDTH, tall))
    for axes in (gains, headroom):
        style(axes)
        axes.set_yticks([])
    _draw_gains(gains, decision)
    _draw_headroom(headroom, guards)
    failed = [guard.name for guard in decision.failed]
    named = failed[:FAILURES_NAMED] + ([f"and {len(failed) - FAILURES_NAMED} more"] if failed[FAILURES_NAMED:] else [])
    outcome = "Promoted by override, although failed" if decision.promoted else "Refused"
    title = f"{outcome}: {', '.join(named)}" if failed else "Promoted"
    sides = f"{decision.challenger.label} instead of {decision.champion.label}"
    for text, size, color, below in ((title, 16, BICUBIC if failed else MODEL, 26), (sides, 12, INK, 46)):
        figure.text(LEFT / WIDTH, 1 - below / height, _plain(text), size=size, color=color, parse_math=False)
    return _as_file(svg(figure, verdict(decision), {}))


def _draw_gains(axes: Axes, decision: Decision) -> None:
    """A row of dots a set, one a picture; above them the mean with its interval, and what it must exceed."""
    sets = list(dict.fromkeys(gain.set for gain in decision.gains))
    needed = next(guard.limit for guard in decision.guards if guard.name == "gain")
    for number, name in enumerate(sets, start=1):
        values = np.array([gain.gain_db for gain in decision.gains if gain.set == name])
        golden = np.arange(len(values)) * 0.618 % 1  # spreads any number of dots evenly
        heights = -number + SPREAD * (2 * golden - 1)
        axes.scatter(values, heights, s=30, c=series_color(number - 1), linewidths=0, alpha=0.8)
        label = f"{_plain(name)}, {len(values)} pictures"
        axes.text(0.01, -number + 0.36, label, color=INK, size=12, parse_math=False, transform=_rows(axes))
    if decision.interval_95:
        axes.plot(decision.interval_95, [0, 0], color=MODEL, linewidth=3, solid_capstyle="round")
    axes.plot([decision.gain_db], [0], "o", color=MODEL, markersize=8, markeredgewidth=0)
    axes.text(0.01, 0.36, "mean, and 95 % interval", color=INK, size=12, transform=_rows(axes))
    for row in range(-len(sets), 1):  # not through the labels
        for place, color, dashes in ((0.0, GRID, (None, None)), (needed, INK, (4, 3))):
            axes.plot([place] * 2, [row - 0.5, row + 0.22], color=color, linewidth=1, dashes=dashes, zorder=0)
    axes.set_ylim(-len(sets) - 0.5, 0.7)
    axes.margins(x=0.08)
    axes.set_xlabel(f"gain, dB PSNR-Y; dashed: {needed:+g}, asked for")


def _draw_headroom(axes: Axes, guards: Sequence[Guard]) -> None:
    """A row a guard: 0 at its limit, 1 for a challenger that equals the champion."""
    axes.axvspan(NEAREST, 0, color=BICUBIC, alpha=0.1, linewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    axes.axvline(1, color=GRID, linewidth=1)
    for row, guard in enumerate(guards):
        room = headroom(guard)
        place = min(max(room, NEAREST + 0.15), FARTHEST - 0.15)
        marker = "o" if place == room else "<" if place > room else ">"
        color = MODEL if guard.passed else BICUBIC
        axes.plot([place], [-row], marker, color=color, markersize=8, markeredgewidth=0)
        for x, text, side in ((-0.04, _plain(guard.name), "right"), (1.04, shown(guard), "left")):
            look: dict[str, Any] = {"color": color if not guard.passed else INK, "size": 12, "va": "center", "ha": side}
            axes.text(x, -row, text, parse_math=False, transform=_rows(axes), **look)
    axes.set_xlim(NEAREST, FARTHEST)
    axes.set_ylim(-len(guards) + 0.5, 0.5)
    axes.set_xticks([0, 1], ["limit", "no change"])
    limit, unchanged = axes.get_xticklabels()  # apart from each other
    limit.set_horizontalalignment("right")
    unchanged.set_horizontalalignment("left")


def headroom(guard: Guard) -> float:
    """How far from its limit: 1 for no change, 0 at the limit, negative beyond; 1 or -1 where only that is known."""
    unchanged = 1.0 if guard.unit == "times" else 0.0
    if guard.measured is None or not guard.unit or unchanged == guard.limit:
        return 1.0 if guard.passed else -1.0
    return (guard.measured - guard.limit) / (unchanged - guard.limit)


def _rows(axes: Axes) -> Transform:
    """Across in parts of the axes, up and down in rows."""
    return axes.get_yaxis_transform()


def _plain(text: str) -> str:
    """Names of strangers in letters that every font has."""
    return text.encode("ascii", "backslashreplace").decode()


def _as_file(element: str) -> str:
    """An SVG element for a page as a file of its own, with the colours of the evaluation's page."""
    page = (files("loupe.evaluation") / "page" / "report.css").read_text()
    colors = re.findall(r"--([\w-]+): light-dark\((#\w+), (#\w+)\);", page)
    light, dark = ("; ".join(f"--{name}: {pair[tone]}" for name, *pair in colors) for tone in (0, 1))
    style = (
        f"svg {{ {light}; background: var(--surface); font-family: system-ui, sans-serif }} "
        f"@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}"
    )
    start, rest = element.split(">", 1)
    opening = start.replace("<svg", f'<svg xmlns="{SVG}"', 1)
    return f"{opening}><style>{style}</style>{rest}\n"
