"""The evaluation for people: one index.html beside the pictures it shows, to open from a disk without a network.

Style, script and plots are inside the page (sources in page/, plots.py); pictures are loaded from beside it, those of
the viewer only when one is opened. Names of pictures and data sets come from strangers: Jinja escapes them wherever
they stand, no file is called by them, and the page's security policy runs no script but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pandas as pd
from PIL import Image

from loupe.evaluation import plots
from loupe.evaluation.heatmap import ScaleBar
from loupe.evaluation.pictures import THUMBNAIL, file_of
from loupe.evaluation.slices import KINDS
from loupe.evaluation.summary import gain as gain_over
from loupe.imaging.files import atomic_file

FEW = 20  # pictures below which percentile intervals come out clearly too narrow: Hesterberg, "What teachers should
# know about the bootstrap", 2015
METRICS = {"psnr_y": 2, "ssim_y": 4, "psnr_rgb": 2}  # decimals to show
PATCH_VIEWS = ("lr", "bicubic", "sr", "hr", "heat")

Segment = tuple[str, str]  # class of a piece of text ("", "figure" or "aside"), and the text


def write_report(
    folder: Path,
    summary: dict[str, Any],
    images: pd.DataFrame,
    best: pd.DataFrame,
    worst: pd.DataFrame,
    curve: pd.DataFrame,
    heat_bar: ScaleBar,
    difference_bar: ScaleBar | None = None,
) -> Path:
    """Write `folder`/index.html, and `folder`/patches/ with what it shows of the best and worst patches.

    Args:
        folder: holds what `write_views` writes of every picture.
        summary: what evaluate.json holds; figures may be infinite or NaN.
        images: what per_image.csv holds, one row a picture, and `folder`, such as "pictures/0001".
        best, worst: patches to show, the first one first: `image`, `folder`, `y`, `x`, `height`, `width` (pixels of
            the ground truth), `psnr_y`, `bicubic_psnr_y`, `gain_db`, `complexity`. Either may be empty.
        curve: PSNR-Y against complexity, as `complexity_curve` gives it. May be empty.
        heat_bar, difference_bar: what the colours of the maps mean.

    Returns:
        The page's path.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    sources = {part.name: part.read_text("utf-8") for part in (files("loupe.evaluation") / "page").iterdir()}
    names = _in_order(summary["sets"])
    label = str(summary["model"].get("label", "the model"))
    others = _others(summary)
    views = _views(folder, images, label, summary.get("methods", {}))
    rows = [row for row in images.to_dict("records") if str(row["set"]) in names]
    rows.sort(key=lambda row: names.index(str(row["set"])))  # stable: pictures of a set stay in their order
    pictures = [_picture(row, label, others) for row in rows]
    by_folder = {picture["folder"]: picture for picture in pictures}
    scale = int(summary.get("protocol", {}).get("scale", 2))
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html").render(
        style=Markup(sources["report.css"]),  # noqa: S704  # ours
        script=Markup(sources["report.js"]),  # noqa: S704  # ours
        style_hash=_hash(sources["report.css"]),
        script_hash=_hash(sources["report.js"]),
        label=label,
        model=summary["model"],
        protocol=summary.get("protocol", {}),
        verdict=_verdict(summary, label, names),
        few=[(name, summary["sets"][name]["n"]) for name in names if summary["sets"][name]["n"] < FEW],
        sets=[_set(name, number, summary["sets"][name], label, others) for number, name in enumerate(names)],
        comparisons=_comparisons(summary, names),
        pictures=pictures,
        plots=_plots(names, summary, pictures, rows, curve),
        missing=sum(not math.isfinite(_number(row.get("gain_db"))) for row in rows),
        patches={
            "best": _patches(folder, "best", best, by_folder, scale),
            "worst": _patches(folder, "worst", worst, by_folder, scale),
        },
        patch_count=int(curve["count"].sum()) if len(curve) else 0,
        views=views,
        legends={
            key: {"title": bar.title, "colors": bar.stops, "ticks": bar.ticks, "marks": _marks(bar.ticks)}
            for key, bar in (("heat", heat_bar), ("difference", difference_bar))
            if bar
        },
        data={"views": views, "pictures": pictures, "scale": scale},
    )
    path = folder / "index.html"
    with atomic_file(path) as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))  # names of files may hold bytes that are no text
    return path


def _in_order(sets: Iterable[str]) -> list[str]:
    """Products first: they are what the shop sells."""
    return sorted(sets, key=lambda name: name != "products")


def _others(summary: dict[str, Any]) -> dict[str, str]:
    """Key and label of every method compared with the model; the champion first, bicubic enlargement last."""
    labels = summary.get("methods", {})
    found = dict.fromkeys(key for scores in summary["sets"].values() for key in scores.get("others", {}))
    keys = sorted(found, key=lambda key: key != "champion")
    return {key: str(labels.get(key, key)) for key in keys} | {"bicubic": str(labels.get("bicubic", "bicubic"))}


def _views(folder: Path, images: pd.DataFrame, label: str, labels: dict[str, str]) -> list[dict[str, str]]:
    """What the viewer can show of every picture: `key`, `label`, and the `file`'s name."""
    views = {"lr": "Input", "bicubic": "Bicubic", "sr": label, "champion": labels.get("champion", "Champion")}
    views |= {"hr": "Original", "heat": "Error map", "difference": "Better or worse"}
    optional = {
        key
        for key in ("champion", "difference")
        if not all((folder / place / file_of(key)).exists() for place in images["folder"])
    }
    return [
        {"key": key, "label": str(text), "file": file_of(key)} for key, text in views.items() if key not in optional
    ]


# ------------------------------------------------------------------------------------------------------- figures


def _number(value: Any) -> float:
    """A figure that may be missing, as null in JSON or an empty cell, as a float."""
    return math.nan if value is None else float(value)


def _text(value: Any, digits: int = 2, signed: bool = False) -> str:
    number = _number(value)
    if math.isnan(number):
        return "–"
    sign = "−" if number < 0 else "+" if signed and number > 0 else ""
    return sign + ("∞" if math.isinf(number) else f"{abs(number):.{digits}f}")


def _range(ends: Sequence[float] | None, digits: int = 2, signed: bool = False) -> str:
    return f"{_text(ends[0], digits, signed)} to {_text(ends[1], digits, signed)}" if ends else ""


def _percent(value: Any) -> str:
    share = _number(value)
    return "–" if math.isnan(share) else "under 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def _gain(scores: dict[str, Any], key: str) -> tuple[float, list[float] | None]:
    """How far the model is ahead of method `key` in one set, in decibels, and the 95 % interval of that."""
    found = scores if key == "bicubic" else scores.get("others", {}).get(key, {})
    return _number(found.get("gain_db")), (found.get("interval_95") or {}).get("gain_db")


# ------------------------------------------------------------------------------------------------------- verdict


def _verdict(summary: dict[str, Any], label: str, names: list[str]) -> list[list[Segment]]:
    """One sentence about bicubic enlargement, and one about the champion if there is one."""
    sets = {name: summary["sets"][name] for name in names}
    sentences = [_sentence(label, "bicubic enlargement", {name: _gain(sets[name], "bicubic") for name in names}, sets)]
    champion = {name: _gain(sets[name], "champion") for name in names if "champion" in sets[name].get("others", {})}
    if champion:
        other = summary.get("methods", {}).get("champion")
        sentences.append(_sentence("It", f"the champion {other}" if other else "the champion", champion, sets))
    return sentences


def _sentence(
    subject: str, other: str, gains: dict[str, tuple[float, list[float] | None]], sets: dict[str, Any]
) -> list[Segment]:
    """Whether `subject` beats `other` on each set; a difference counts only where its interval leaves out zero."""
    pieces: list[Segment] = [("", subject)]
    before = None
    for number, (name, (gain, ends)) in enumerate(gains.items()):
        verb, figure = _finding(gain, ends)
        joint = "" if number == 0 else " and" if number == len(gains) - 1 else ","
        rival = "it" if number else other
        words = {
            "better": f"beats {rival} by",
            "worse": f"falls behind {rival} by",
            "equal": f"cannot be told apart from {rival}",
            "measured": f"measures against {rival}",
            "unknown": f"has no figure against {rival}",
        }[verb]
        repeated = "by" if verb in ("better", "worse") else ""
        pieces.append(("", f"{joint} {repeated if verb == before else words}".rstrip()))
        if verb in ("better", "worse", "measured"):
            pieces.append(("figure", f" {figure} dB"))
        pieces.append(("", f" on {name}"))
        if verb == "measured":
            pieces.append(("aside", " (one picture: no interval)" if sets[name]["n"] == 1 else " (no interval)"))
        elif verb == "equal":
            pieces.append(("aside", f" ({_text(gain, signed=True)} dB; 95 %: {_range(ends, signed=True)})"))
        elif verb != "unknown":
            pieces.append(("aside", f" (95 %: {_range(ends, signed=True)})"))
        before = verb
    return [*pieces, ("", ".")]


def _finding(gain: float, ends: Sequence[float] | None) -> tuple[str, str]:
    """What can be said of a mean gain in decibels with this interval, and the figure to say it with."""
    if math.isnan(gain):
        return "unknown", ""
    if not ends:
        return "measured", _text(gain, signed=True)
    if ends[0] > 0:
        return "better", _text(gain)
    return ("worse", _text(-gain)) if ends[1] < 0 else ("equal", _text(gain, signed=True))


def _comparisons(summary: dict[str, Any], names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """For each set the gain over bicubic and over the champion: texts, and places on a scale common to all sets."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for key, rival in (("bicubic", "over bicubic"), ("champion", "over the champion")):
        gains = {name: _gain(summary["sets"][name], key) for name in names}
        shown = [value for gain, ends in gains.values() for value in (gain, *(ends or ())) if math.isfinite(value)]
        low, high = min([0.0, *shown]), max([0.0, *shown])
        span = (high - low) or 1.0

        def place(value: float, low: float = low, span: float = span) -> float:
            return round(4 + 92 * (value - low) / span, 2)  # per cent of the width; room for the dot at both ends

        for name, (gain, ends) in gains.items():
            if key == "champion" and key not in summary["sets"][name].get("others", {}):
                continue
            finding, _ = _finding(gain, ends)
            found[name].append(
                {
                    "rival": rival,
                    "finding": finding,
                    "gain": _text(gain, signed=True),
                    "range": _range(ends, signed=True),
                    "zero": place(0),
                    "mean": place(gain) if math.isfinite(gain) else None,
                    "ends": [place(end) for end in ends] if ends else None,
                }
            )
    return found


# -------------------------------------------------------------------------------------------------------- tables


def _set(name: str, number: int, scores: dict[str, Any], label: str, others: dict[str, str]) -> dict[str, Any]:
    """What the page says of one data set, as texts."""
    ends = scores.get("interval_95") or {}
    rows = [
        {
            "label": label,
            "scores": [
                (_text(scores.get(key), digits), _range(ends.get(key), digits)) for key, digits in METRICS.items()
            ],
            "ahead": ("", ""),
        }
    ]
    for key, other in others.items():
        found = scores["bicubic"] if key == "bicubic" else scores.get("others", {}).get(key)
        if found is None:
            continue
        gain, interval = _gain(scores, key)
        rows.append(
            {
                "label": other,
                "scores": [(_text(found.get(metric), digits), "") for metric, digits in METRICS.items()],
                "ahead": (_text(gain, signed=True), _range(interval, signed=True)),
            }
        )
    rivals = {key: other for key, other in others.items() if key != "bicubic" and key in scores.get("others", {})}
    kinds = [
        {
            "kind": kind,
            "share": _percent(found.get("share")),
            "width": round(100 * _number(found.get("share")), 2),
            "model": _text(found.get("psnr_y")),
            "others": [_text(scores["others"][key].get("slices", {}).get(kind)) for key in rivals],
            "bicubic": _text(found.get("bicubic_psnr_y")),
            "gain": _text(found.get("gain_db"), signed=True),
        }
        for kind, found in scores.get("slices", {}).items()
    ]
    return {
        "name": name,
        "series": number % plots.SERIES,
        "n": scores["n"],
        "rows": rows,
        "kinds": kinds,
        "kind_others": list(rivals.values()),
        "consistency": _text(scores.get("consistency_db")),
    }


def _picture(row: dict[Any, Any], label: str, others: dict[str, str]) -> dict[str, Any]:
    """What the page says of one picture; a dictionary that JSON can hold."""
    folder = str(row["folder"])
    height, width = int(row["height"]), int(row["width"])
    gain = _number(row.get("gain_db"))
    psnr = _number(row.get("psnr_y"))
    shown_width = min(THUMBNAIL, width)
    scores = [[label, _text(row.get("psnr_y")), _text(row.get("ssim_y"), 4), ""]]
    for key, other in others.items():
        if f"{key}_psnr_y" in row:
            theirs = row[f"{key}_psnr_y"]
            ahead = gain if key == "bicubic" else psnr - _number(theirs)
            ssim = _text(row.get(f"{key}_ssim_y"), 4)
            scores.append([other, _text(theirs), ssim, _text(ahead, signed=True)])
    kinds = []
    for kind in KINDS:
        ours, theirs = _number(row.get(f"{kind}_psnr_y")), _number(row.get(f"bicubic_{kind}_psnr_y"))
        share = _percent(row.get(f"{kind}_share"))
        kinds.append([kind, share, _text(ours), _text(theirs), _text(gain_over(ours, theirs), signed=True)])
    return {
        "id": int(PurePosixPath(folder).name),
        "folder": folder,
        "path": quote(folder),
        "set": str(row["set"]),
        "name": str(row["image"]),
        "height": height,
        "width": width,
        "thumbnail": [shown_width, max(1, round(height * shown_width / width))],
        "psnr": _text(psnr),
        "gain": _text(gain, signed=True),
        "order": [str(gain), str(psnr)],  # as text, for JSON has no infinity
        "scores": scores,
        "kinds": kinds,
        "consistency": _text(row.get("consistency_db")),
    }


# ------------------------------------------------------------------------------------------------ plots, patches


def _plots(
    names: list[str],
    summary: dict[str, Any],
    pictures: list[dict[str, Any]],
    rows: list[dict[Any, Any]],
    curve: pd.DataFrame,
) -> dict[str, Any]:
    """The plots as markup, and what is said beside them."""
    from markupsafe import Markup

    def column(key: str) -> list[list[float]]:
        return [[_number(row.get(key)) for row in rows if str(row["set"]) == name] for name in names]

    urls = [[f"#picture-{picture['id']}" for picture in pictures if picture["set"] == name] for name in names]
    links = {f"#picture-{one['id']}": f"{one['name']}: {one['psnr']} dB, {one['gain']} dB" for one in pictures}
    sets = [summary["sets"][name] for name in names]
    gains = [_gain(scores, "bicubic") for scores in sets]
    found: dict[str, Any] = {"complexity": None, "flattest": "", "most_detailed": ""}
    if rows:
        means, intervals = [gain for gain, _ in gains], [ends for _, ends in gains]
        found["gain"] = Markup(plots.gain_plot(column("gain_db"), means, intervals, links, urls))  # noqa: S704
        found["scatter"] = Markup(plots.scatter_plot(column("bicubic_psnr_y"), column("psnr_y"), links, urls))  # noqa: S704
    if len(curve):
        found["complexity"] = Markup(plots.complexity_plot(curve))  # noqa: S704
        found["flattest"], found["most_detailed"] = (_text(curve["psnr_y_50"].iloc[place]) for place in (0, -1))
    return found


def _patches(
    folder: Path, which: str, table: pd.DataFrame, by_folder: dict[str, dict[str, Any]], scale: int
) -> list[dict[str, Any]]:
    """Cut the patches of `table` out of their pictures into patches/, and tell what the page says of them."""
    (folder / "patches").mkdir(exist_ok=True)
    found: list[dict[str, Any]] = []
    for number, row in enumerate(table.to_dict("records"), start=1):
        picture = by_folder[str(row["folder"])]
        y, x, height, width = (int(row[key]) for key in ("y", "x", "height", "width"))
        found.append(
            {
                "number": number,
                "files": {view: f"patches/{which}-{number:02}-{view}.png" for view in PATCH_VIEWS},
                "picture": picture,
                "box": (x, y, x + width, y + height),
                "psnr": _text(row["psnr_y"]),
                "bicubic": _text(row["bicubic_psnr_y"]),
                "gain": _text(row["gain_db"], signed=True),
                "complexity": f"{row['complexity']:.3g}" if math.isfinite(_number(row["complexity"])) else "–",
                "hash": f"#picture-{picture['id']}@{x + width // 2},{y + height // 2}",
            }
        )
    for place in {patch["picture"]["folder"] for patch in found}:  # each picture is decoded once
        for view in PATCH_VIEWS:
            with Image.open(folder / place / file_of(view)) as image:
                for patch in found:
                    if patch["picture"]["folder"] == place:
                        left, top, right, bottom = (side // (scale if view == "lr" else 1) for side in patch["box"])
                        image.crop((left, top, right, bottom)).save(folder / patch["files"][view])
    return found


def _marks(ticks: Sequence[tuple[float, str]]) -> list[dict[str, Any]]:
    """Marks on a scale bar from x = 10 to 270; labels that would touch those of the ends or each other are left out."""
    found: list[dict[str, Any]] = []
    for number, (place, label) in enumerate(ticks):
        anchor = "start" if number == 0 else "end" if number == len(ticks) - 1 else "middle"
        width = 6.5 * len(label)  # at 11 pixels
        x = 10 + 260 * place
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        found.append({"x": round(x, 2), "anchor": anchor, "label": label, "left": left, "right": left + width})
    taken = -math.inf
    for mark in found:
        inner = mark["anchor"] == "middle"
        mark["fits"] = not inner or (mark["left"] > taken + 4 and mark["right"] < found[-1]["left"] - 4)
        taken = mark["right"] if mark["fits"] else taken
    return found


def _hash(source: str) -> str:
    """What a content security policy names `source` by."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
