"""Plots of the evaluation's page, as SVG text to stand inside HTML; and how plots look, for others too.

One drawing serves light and dark: it is made in marker colours, which become the page's CSS variables. No name of a
picture or data set is drawn, only put in tooltips, so that nobody's `$` is read as a formula and no letter is missing
in Matplotlib's font; legends are the page's.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pandas as pd

from loupe.evaluation.ranking import PERCENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 400, 300  # SVG units: about the pixels of a phone's width, so that text is never set much smaller
DOT = 7.0  # distance of stacked dots in SVG units
SERIES = 6  # colours for data sets; a seventh begins anew
# Marker colours: none occurs by itself in what Matplotlib draws.
INK, GRID, MODEL, BICUBIC = "#000101", "#000102", "#000103", "#000104"
VARIABLES = {INK: "--muted", GRID: "--line", MODEL: "--model", BICUBIC: "--bicubic"} | {
    f"#00020{series}": f"--series-{series}" for series in range(SERIES)
}
SVG = "http://www.w3.org/2000/svg"
HREF = "{http://www.w3.org/1999/xlink}href"

Floats = npt.NDArray[np.float64]


def series_color(series: int) -> str:
    """The marker colour of the data set with this number."""
    return f"#00020{series % SERIES}"


def gain_plot(
    gains: Sequence[Sequence[float]],
    means: Sequence[float],
    intervals: Sequence[Sequence[float] | None],
    links: dict[str, str],
    urls: Sequence[Sequence[str]],
) -> str:
    """How the gain over bicubic is spread over pictures: a row of stacked dots a data set, one dot a picture.

    Args:
        gains: for each data set the gains of its pictures in decibels; those not finite are left out.
        means: the mean gain of each data set.
        intervals: its 95 % interval, or None; drawn as a bar under the dots.
        links: tooltip of each link.
        urls: link of each dot, like `gains`.
    """
    figure, axes = _figure(height=max(HEIGHT, 60 * len(gains)), left=12)
    finite = [np.isfinite(np.asarray(row, np.float64)) for row in gains]
    values = [np.asarray(row, np.float64)[keep] for row, keep in zip(gains, finite, strict=True)]
    ends = np.concatenate([[0.0], *values, *(bar for bar in intervals if bar)])
    low, high = float(ends.min()), float(ends.max())
    margin = 0.06 * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(-len(gains), 0)
    width, height = (float(side) for side in axes.get_window_extent().size)
    columns = max(1, int(width / DOT))
    edges = np.linspace(low - margin, high + margin, columns + 1)
    row_height = height / len(gains)
    for number, row in enumerate(values):
        place = np.clip(np.digitize(row, edges) - 1, 0, columns - 1)
        level = pd.Series(place).groupby(place).cumcount().to_numpy()
        step = min(DOT, 0.66 * row_height / (level.max() + 1)) if len(level) else DOT
        base = -number - 1 + 0.2
        dots = axes.scatter(
            (edges[place] + edges[place + 1]) / 2,
            base + (level * step + DOT) / row_height,
            s=(DOT - 1) ** 2,
            c=series_color(number),
            linewidths=0,
        )
        dots.set_urls([url for url, keep in zip(urls[number], finite[number], strict=True) if keep])
        bar = intervals[number]
        if bar is not None:
            axes.plot(bar, [base - 0.04] * 2, color=series_color(number), linewidth=3, solid_capstyle="round")
        if np.isfinite(means[number]):
            axes.plot([means[number]], [base - 0.04], "o", color=series_color(number), markersize=8, markeredgewidth=0)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks([])
    axes.set_xlabel("gain over bicubic, dB PSNR-Y")
    return svg(figure, "Gain over bicubic enlargement of every picture", links)


def scatter_plot(
    bicubic: Sequence[Sequence[float]],
    ours: Sequence[Sequence[float]],
    links: dict[str, str],
    urls: Sequence[Sequence[str]],
) -> str:
    """PSNR-Y of the model against that of bicubic enlargement, a dot a picture; above the diagonal the model wins.

    Args:
        bicubic, ours: decibels, a list for each data set; pictures with one that is not finite are left out.
        links: tooltip of each link.
        urls: link of each dot, like `ours`.
    """
    figure, axes = _figure()
    for number, (x, y) in enumerate(zip(bicubic, ours, strict=True)):
        points = np.array([x, y], np.float64)
        keep = np.isfinite(points[0]) & np.isfinite(points[1])
        dots = axes.scatter(
            points[0, keep], points[1, keep], s=40, c=series_color(number), linewidths=0, alpha=0.85, zorder=3
        )
        dots.set_urls([url for url, kept in zip(urls[number], keep, strict=True) if kept])
    both = np.concatenate([np.ravel(axes.get_xlim()), np.ravel(axes.get_ylim())])
    axes.axline((both.min(), both.min()), slope=1, color=INK, linewidth=1, dashes=(4, 3))
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_xlabel("bicubic, dB PSNR-Y")
    axes.set_ylabel("model, dB PSNR-Y")
    return svg(figure, "PSNR-Y of the model against bicubic enlargement, a dot a picture", links)


def complexity_plot(curve: pd.DataFrame) -> str:
    """PSNR-Y of patches against their complexity: the median, and between which figures eight tenths of them lie.

    Args:
        curve: as `complexity_curve` gives it.
    """
    figure, axes = _figure()
    ends = (curve[name].to_numpy(np.float64) for name in ("low", "high"))
    x = np.sqrt(np.prod([*ends], axis=0))  # the middle of a range on this axis
    for key, color in (("bicubic_psnr_y", BICUBIC), ("psnr_y", MODEL)):
        low, middle, high = (_finite(curve[f"{key}_{percent}"]) for percent in PERCENT)
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0)
        axes.plot(x, middle, color=color, linewidth=2, marker="o", markersize=3)
    axes.set_xscale("log")
    axes.grid(color=GRID, linewidth=0.8)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("mean gradient of the patch, grey levels per pixel")
    axes.set_ylabel("dB PSNR-Y")
    return svg(figure, "PSNR-Y of patches against local complexity", {})


def _finite(column: pd.Series[Any]) -> Floats:
    """Infinite decibels become gaps in the line."""
    values = column.to_numpy(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _figure(height: int = HEIGHT, left: int = 46) -> tuple[Figure, Axes]:
    """Axes in marker colours; a figure of its own, for pyplot would keep it in a global list."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    axes = figure.add_axes((left / WIDTH, 44 / height, 1 - (left + 12) / WIDTH, 1 - 56 / height))
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Marker colours, small text, and no frame but the lower line."""
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0, pad=6, labelsize=12)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(12)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(INK)


def svg(figure: Figure, title: str, links: dict[str, str]) -> str:
    """`figure` as an SVG element for HTML whose policy allows no style attributes: they become plain attributes."""
    import matplotlib

    stream = io.StringIO()
    settings = {"svg.fonttype": "none", "svg.hashsalt": title, "axes.unicode_minus": True}  # no ids from the clock
    with matplotlib.rc_context(settings):  # type: ignore[arg-type]
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(stream.getvalue())  # noqa: S314  # Matplotlib wrote it a moment ago
    for part in root.findall(f"{{{SVG}}}metadata") + root.findall(f"{{{SVG}}}defs"):
        if part.tag.endswith("metadata") or part.find(f"{{{SVG}}}style") is not None:
            root.remove(part)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")
        if element.tag == "g":
            element.attrib.pop("id", None)  # the same in every plot of a page
        for declaration in filter(None, element.attrib.pop("style", "").split(";")):
            name, value = (part.strip() for part in declaration.split(":", 1))
            if name != "font-family":  # the page's
                element.set(name, f"var({VARIABLES[value]})" if value in VARIABLES else value)
        if HREF in element.attrib:
            element.set("href", element.attrib.pop(HREF))
        if element.tag == "a":
            element.attrib.pop("target", None)
            element.set("tabindex", "-1")  # the same links follow below, in the list of pictures
            tooltip = ElementTree.Element("title")
            tooltip.text = links[element.attrib["href"]]
            element.insert(0, tooltip)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", title)
    return ElementTree.tostring(root, encoding="unicode")
