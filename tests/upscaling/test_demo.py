"""The demonstration page in a real Chromium, opened from the disk: what is under the magnifying glass."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page
from tests.browser import chromium
from tests.conftest import picture
from tests.upscaling.enlargers import Repeating

from loupe.errors import InputError
from loupe.imaging.files import write_png
from loupe.imaging.resize import Pixels
from loupe.upscaling.demo import write_demo
from loupe.upscaling.upscaler import Upscaler

HOSTILE = "<img src=x onerror=alert(1)>{before}.png"
LOCAL = ("file", "data")
RED, GREEN = (200, 30, 30), (30, 160, 60)


class Red(Repeating):
    """What the network makes is red, so that it is known when seen."""

    def __call__(self, batch: Pixels) -> Pixels:
        return np.full_like(super().__call__(batch), RED)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def opened(browser: Browser, folder: Path, **options: Any) -> Page:
    write_png(folder / HOSTILE, np.full((120, 160, 3), GREEN, np.uint8))
    assert write_demo(folder / "page.html", folder / HOSTILE, Upscaler(Red())) == ()
    page = browser.new_context(color_scheme="light", **options).new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: wrong.extend([request.url] * (request.url.split(":")[0] not in LOCAL)))
    page.goto((folder / "page.html").as_uri())
    page.wait_for_function("document.querySelector('#after').complete")
    assert wrong == []
    return page


def sides_of_the_glass(page: Page) -> list[tuple[int, ...]]:
    """The colour a quarter of the way from the left, and one from the right."""
    box = page.locator("#lens").bounding_box()
    assert box
    with Image.open(io.BytesIO(page.screenshot(clip=box))) as shot:
        image = shot.convert("RGB")
        return [image.getpixel((int(image.width * x), image.height // 2)) for x in (0.25, 0.75)]  # type: ignore[misc]


def test_by_pointer_and_keyboard(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, viewport={"width": 900, "height": 700})
    assert page.locator("h1").inner_text() == HOSTILE
    assert page.locator("header p").inner_text() == "160 × 120 pixels, enlarged to 320 × 240"
    frame = page.locator("#frame").bounding_box()
    assert frame
    page.mouse.move(frame["x"] + 160, frame["y"] + 120)
    assert sides_of_the_glass(page) == [GREEN, RED]
    page.keyboard.press("Space")
    assert sides_of_the_glass(page) == [GREEN, GREEN]
    page.keyboard.press("Space")
    assert sides_of_the_glass(page) == [RED, RED]
    page.keyboard.press("+")
    assert page.locator("#zoom").inner_text() == "×4"
    before = page.locator("#lens").bounding_box()
    page.keyboard.press("ArrowRight")
    after = page.locator("#lens").bounding_box()
    assert before and after
    assert (round(after["x"] - before["x"]), round(after["y"] - before["y"])) == (6, 0)


def test_by_finger_the_glass_is_above_it(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    frame = page.locator("#frame").bounding_box()
    assert frame
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    page.touchscreen.tap(x, y)
    lens = page.locator("#lens").bounding_box()
    assert lens
    assert lens["y"] + lens["height"] < y
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.get_by_text("After", exact=True).tap()
    assert sides_of_the_glass(page) == [RED, RED]


def test_dark_where_the_reader_wants_it(browser: Browser, tmp_path: Path) -> None:
    page = opened(browser, tmp_path)
    grounds = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        grounds.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert grounds == ["rgb(248, 248, 246)", "rgb(18, 20, 23)"]


def test_a_picture_too_large_for_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.upscaling.demo.MOST", 1000)
    write_png(tmp_path / "a.png", picture(1))
    with pytest.raises(InputError, match=r"a.png: 88 x 72 pixels are too many for a page"):
        write_demo(tmp_path / "page.html", tmp_path / "a.png", Upscaler(Repeating()))
