"""The evaluation's page as text: what it says, and that no name gets out of its place. Chromium opens it elsewhere."""

import dataclasses
import json
import math
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.evaluation.report_folder import BLUE, COLORS, HEAT, Inputs, make_inputs, scores

VOID = {"meta", "link", "img", "input", "stop", "br"}
HOSTILE = [
    "<img src=x onerror=alert(1)>.png",
    "\"><script>alert('1')</script>.png",
    "</script><script>alert(1)</script>",
    "javascript:alert(1)//'\"&lt;`{{ 7 * 7 }}${7*7}",
    "two\nlines\u2028and\u2029more $\\frac{",
    "../../etc/passwd",
    "caf\u00e9 \u6771\u4eac.png",
]


class Page(HTMLParser):
    """Elements with their attributes, and the text within elements of each tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("td", "th", "dd", "small", "span"):
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, "elements close in order"

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def text(self, tag: str, number: int = 0) -> str:
        return " ".join(self.texts[tag][number].split())

    @property
    def visible(self) -> str:
        return " ".join(self.texts["main"][0].split())

    @property
    def data(self) -> dict[str, Any]:
        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        found: dict[str, Any] = json.loads(self.texts["script"][0], parse_constant=refuse)
        return found


def rendered(inputs: Inputs) -> Page:
    return Page(inputs.write())


def test_the_verdict_puts_products_first_and_warns_of_few_pictures(tmp_path: Path) -> None:
    page = rendered(make_inputs(tmp_path))
    assert page.text("h1") == (
        "RDN D4 beats bicubic enlargement by 2.25 dB on products (95 %: +1.50 to +3.00) "
        "and by 2.25 dB on photos (95 %: +1.50 to +3.00)."
    )
    assert "products has 2 pictures, photos has 1 picture. An interval from so few" in page.visible
    assert [picture["name"] for picture in page.data["pictures"]] == ["mug.png", "hat.png", "cat.png"]


@pytest.mark.parametrize(
    ("gain", "ends", "said"),
    [
        (1.0, [0.5, 1.5], "RDN D4 beats bicubic enlargement by 1.00 dB on a (95 %: +0.50 to +1.50)."),
        (-1.0, [-1.5, -0.5], "RDN D4 falls behind bicubic enlargement by 1.00 dB on a (95 %: −1.50 to −0.50)."),
        (
            0.1,
            [-0.2, 0.4],
            "RDN D4 cannot be told apart from bicubic enlargement on a (+0.10 dB; 95 %: −0.20 to +0.40).",
        ),
        (0.0, [0.0, 0.0], "RDN D4 cannot be told apart from bicubic enlargement on a (0.00 dB; 95 %: 0.00 to 0.00)."),
        (2.0, None, "RDN D4 measures against bicubic enlargement +2.00 dB on a (one picture: no interval)."),
        (math.inf, None, "RDN D4 measures against bicubic enlargement +∞ dB on a (one picture: no interval)."),
        (math.nan, None, "RDN D4 has no figure against bicubic enlargement on a."),
    ],
)
def test_a_difference_counts_only_where_the_interval_leaves_out_zero(
    tmp_path: Path, gain: float, ends: list[float] | None, said: str
) -> None:
    inputs = make_inputs(tmp_path, [("a", "one.png")])
    inputs.summary["sets"]["a"] = scores(1, gain, ends, None)
    assert rendered(inputs).text("h1") == said


def test_the_champion_is_judged_for_each_set(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, [("photos", "a"), ("products", "b"), ("sketches", "c")], champion=True)
    for name, lead in (
        ("products", (0.3, [0.1, 0.5])),
        ("photos", (-0.2, [-0.3, -0.1])),
        ("sketches", (0.0, [-1.0, 1.0])),
    ):
        inputs.summary["sets"][name] = scores(30, 2.0, [1.0, 3.0], lead)
    page = rendered(inputs)
    assert page.text("h1").endswith(
        "It beats the champion RDN July by 0.30 dB on products (95 %: +0.10 to +0.50), "
        "falls behind it by 0.20 dB on photos (95 %: −0.30 to −0.10) "
        "and cannot be told apart from it on sketches (0.00 dB; 95 %: −1.00 to +1.00)."
    )
    assert "An interval from so few" not in page.visible
    assert "50.00" in page.text("table", 3), "the champion's figure by kind of pixel"
    assert [view["key"] for view in page.data["views"]] == [
        *("lr", "bicubic", "sr", "champion", "hr", "heat", "difference")
    ]
    assert ["RDN July", "30.50", "0.9400", "+1.50"] in page.data["pictures"][0]["scores"]
    assert "scale-difference" in page.source


def test_without_a_champion_nothing_speaks_of_one(tmp_path: Path) -> None:
    page = rendered(make_inputs(tmp_path))
    assert "hampion" not in page.visible
    assert "scale-difference" not in page.source
    assert [view["key"] for view in page.data["views"]] == ["lr", "bicubic", "sr", "hr", "heat"]


def test_scores_stand_with_their_intervals(tmp_path: Path) -> None:
    page = rendered(make_inputs(tmp_path))
    table = page.text("table")
    assert table.startswith("products 2 pictures; consistency with the input 55.12 dB")
    assert "RDN D4 33.50 32.00 to 35.00 0.9500 0.9300 to 0.9700 32.25" in table
    assert "bicubic +2.25 +1.50 to +3.00 31.25 0.9000 30.50" in table
    assert "flat 75 % 50.50 49.25 +1.25 text 0 % – – –" in page.text("table", 2)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, [(name, name) for name in HOSTILE], champion=True)
    inputs.summary["model"]["label"] = inputs.summary["methods"]["champion"] = HOSTILE[1]
    page = rendered(inputs)
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            url = attributes.get(name) or ""
            assert url.startswith(("pictures/", "patches/", "#", "data:image/svg+xml,")) or name not in attributes, url
    assert [picture["name"] for picture in page.data["pictures"]] == HOSTILE
    assert not any(sign in page.texts["script"][0] for sign in "<>&\u2028\u2029")
    shown = page.visible
    for name in HOSTILE:
        assert " ".join(name.split()) in shown
    names = {path.name for path in tmp_path.rglob("*")}
    assert all(name.isascii() and name.replace("-", "").replace(".", "").isalnum() for name in names)


def test_a_label_that_is_no_utf_8_is_told_in_ascii(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    inputs.summary["model"]["label"] = "caf\udce9"  # how Python reads a folder named in Latin-1
    assert rendered(inputs).text("h1").startswith("caf\\udce9 beats")


def test_figures_that_are_not_finite_are_shown_as_such(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    inputs.images.loc[0, ["psnr_y", "gain_db"]] = math.inf
    inputs.images.loc[1, ["ssim_y", "gain_db", "flat_psnr_y"]] = math.nan
    inputs.summary["sets"]["photos"] |= {"psnr_y": math.inf, "gain_db": math.inf, "ssim_y": None}
    inputs.summary["sets"]["photos"]["interval_95"] = {
        "psnr_y": None,
        "ssim_y": None,
        "psnr_rgb": None,
        "gain_db": None,
    }
    inputs.curve.loc[0, ["psnr_y_50", "psnr_y_90"]] = math.inf
    inputs.best.loc[0, "complexity"] = math.nan
    page = rendered(inputs)
    words = page.visible.replace("(", " ").split()
    assert "∞" in words
    assert not {"nan", "inf", "+inf", "None", "null"} & set(words)
    assert "Not drawn: 2 pictures without a finite gain." in page.visible
    mug, _, cat = page.data["pictures"]
    assert (mug["gain"], cat["gain"], cat["psnr"]) == ("–", "+∞", "∞")
    assert "from ∞ dB in the plainest" in page.visible


def test_every_drawn_dot_leads_to_its_picture(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    inputs.images.loc[2, "bicubic_psnr_y"] = math.nan
    page = rendered(inputs)
    links = [
        attributes["href"] for tag, attributes in page.elements if tag == "a" and attributes.get("tabindex") == "-1"
    ]
    assert sorted(map(str, links)) == [f"#picture-{number}" for number in (1, 1, 2, 2, 3)]
    assert page.source.count("<title>cat.png: 31.00 dB, +1.00 dB</title>") == 2


def test_one_picture_and_no_patches(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, [("products", "mug.png")])
    inputs.best, inputs.worst, inputs.curve = inputs.best.head(0), inputs.worst.head(0), inputs.curve.head(0)
    page = rendered(inputs)
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert {"summary", "pictures", "viewer"} <= ids
    assert not {"patches", "order"} & ids
    assert "#patches" not in page.source.replace("#patches li", "")
    assert "Detail is what is hard" not in page.visible
    assert page.visible.count("mug.png") == 3, "twice as a tooltip of a dot, once in the list"


def test_no_picture_at_all(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    inputs.summary["sets"], inputs.images = {}, inputs.images.head(0)
    inputs.best, inputs.worst, inputs.curve = pd.DataFrame(), pd.DataFrame(), pd.DataFrame()
    page = rendered(inputs)
    assert "No picture was scored." in page.visible
    assert page.data["pictures"] == []


def test_patches_are_cut_out_of_their_pictures(tmp_path: Path) -> None:
    page = rendered(make_inputs(tmp_path))

    def pixels(name: str) -> Any:
        return np.asarray(Image.open(tmp_path / "patches" / name))

    expected = np.full((16, 24, 3), COLORS["sr"], np.uint8)
    expected[4:8, 8:12] = BLUE  # the mark at 200, 100; the patch at 192, 96
    np.testing.assert_array_equal(pixels("best-02-sr.png"), expected)
    np.testing.assert_array_equal(pixels("worst-01-bicubic.png"), np.full((16, 24, 3), COLORS["bicubic"], np.uint8))
    np.testing.assert_array_equal(pixels("best-01-lr.png"), np.full((8, 12, 3), COLORS["lr"], np.uint8))
    assert len(list((tmp_path / "patches").iterdir())) == 3 * 5
    links = [attributes.get("href") for tag, attributes in page.elements if attributes.get("class") == "crops"]
    assert links == ["#picture-1@204,104", "#picture-2@204,104", "#picture-3@204,104"]
    assert "Out of 12;" in page.visible


def test_labels_of_a_scale_do_not_touch(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path)
    page = rendered(inputs)
    assert "64 and more" in page.source
    ticks = ((0.0, "0"), (0.02, "crowded"), (0.5, "half"), (0.95, "crowded"), (1.0, "64 and more"))
    inputs.difference_bar = dataclasses.replace(HEAT, ticks=ticks)
    page = rendered(inputs)
    scale = page.source.split('id="scale-difference"')[1].split("</svg>")[0]
    assert [label in scale for label in ("0", "crowded", "half", "64 and more")] == [True, False, True, True]
    assert scale.count("<line") == 5


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, champion=True)
    first = inputs.write().read_bytes()
    assert inputs.write().read_bytes() == first


def test_the_sources_of_the_page_are_part_of_the_package() -> None:
    folder = files("loupe.evaluation") / "page"
    assert {part.name for part in folder.iterdir()} >= {"report.html", "report.css", "report.js"}
