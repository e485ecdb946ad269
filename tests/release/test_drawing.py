"""The picture of a decision: a file of its own that says what was decided."""

import dataclasses
from xml.etree import ElementTree

import pytest
from tests.release.test_gate import BETTER, CHAMPION, LIMITS, SOUND, WORSE_IN_TEXT, judged

from loupe.evaluation.plots import SVG
from loupe.release.drawing import decision_picture, headroom
from loupe.release.gate import Contender, Decision, Guard, Override, decide


def texts(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)  # noqa: S314  # made here
    assert root.tag == f"{{{SVG}}}svg"
    return ["".join(element.itertext()) for element in root.iter(f"{{{SVG}}}text")]


@pytest.mark.parametrize(
    ("decision", "title"),
    [
        (judged(BETTER), "Promoted"),
        (judged(WORSE_IN_TEXT), "Refused: photos: text, products: text"),
        (decide(BETTER, CHAMPION, LIMITS), "Refused: ONNX, golden files"),
        (
            decide(WORSE_IN_TEXT, CHAMPION, LIMITS, SOUND, Override("because", "Ada")),
            "Promoted by override, although failed: photos: text, products: text",
        ),
    ],
)
def test_it_says_what_was_decided_and_names_every_guard(decision: Decision, title: str) -> None:
    picture = decision_picture(decision)
    found = texts(picture)
    assert title in found
    assert {guard.name for guard in decision.guards} - set(found) == {"gain"}
    assert "http" not in picture.replace(SVG, "").replace("http://www.w3.org/1999/xlink", ""), "nothing is loaded"
    assert decision_picture(decision) == picture


def test_names_of_strangers_are_no_formulas_and_no_markup() -> None:
    images = tuple(dataclasses.replace(image, set="$x_<b>\u4e2d") for image in BETTER.images)
    before = tuple(dataclasses.replace(image, set="$x_<b>\u4e2d") for image in CHAMPION.images)
    decision = judged(Contender("$\\frac{1}", "b", images, 10.0), Contender("<script>", "a", before, 10.0))
    found = texts(decision_picture(decision))
    assert "$x_<b>\\u4e2d: text" in found
    assert "$\\frac{1} instead of <script>" in found


def test_one_picture_has_no_interval_and_is_drawn_all_the_same() -> None:
    one, other = (dataclasses.replace(side, images=side.images[:1]) for side in (BETTER, CHAMPION))
    assert "Refused: images, gain" in texts(decision_picture(judged(one, other)))


@pytest.mark.parametrize(
    ("measured", "limit", "least", "unit", "expected"),
    [
        (0.0, -0.1, True, "dB", 1.0),
        (-0.1, -0.1, True, "dB", 0.0),
        (-0.2, -0.1, True, "dB", -1.0),
        (1.0, 1.25, False, "times", 1.0),
        (1.5, 1.25, False, "times", -1.0),
        (None, 1.25, False, "times", -1.0),
        (6, 4, True, "", 1.0),
        (-0.1, 0.0, True, "dB", -1.0),
    ],
)
def test_headroom(measured: float | None, limit: float, least: bool, unit: str, expected: float) -> None:
    passed = measured is not None and (measured >= limit if least else measured <= limit)
    assert headroom(Guard("x", measured, limit, least, unit, passed, "")) == pytest.approx(expected)
