"""The evaluation's page in a real Chromium, opened from the disk: what is under the slider and the magnifying glass."""

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request, expect
from tests.browser import chromium
from tests.evaluation.report_folder import BLUE, COLORS, HEIGHT, MARK, WIDTH, make_inputs
from tests.evaluation.test_report import HOSTILE

from loupe.evaluation.pictures import file_of

CENTER = MARK[0] + MARK[2] / 2, MARK[1] + MARK[2] / 2  # of the blue square, in pixels of the picture
Point = tuple[float, float]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A desktop's window. Errors, dialogs and requests to anything but the disk fail the test."""
    yield from watched(browser, viewport={"width": 1440, "height": 900})


@pytest.fixture
def phone(browser: Browser) -> Iterator[BrowserContext]:
    """The same with a finger."""
    yield from watched(browser, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)


def watched(browser: Browser, **options: object) -> Iterator[BrowserContext]:
    context = browser.new_context(reduced_motion="reduce", color_scheme="light", **options)  # type: ignore[arg-type]
    wrong: list[str] = []

    def dialog(one: Dialog) -> None:
        wrong.append(f"dialog: {one.message}")
        one.dismiss()

    def request(one: Request) -> None:
        if not one.url.startswith(("file:", "data:")):
            wrong.append(one.url)

    context.on("console", lambda message: wrong.append(message.text))
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("dialog", dialog)
    context.on("request", request)
    yield context
    context.close()
    assert wrong == []


@pytest.fixture
def url(tmp_path: Path) -> str:
    return make_inputs(tmp_path, champion=True).write().as_uri()


def open_picture(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.goto(url)
    page.locator('.grid a[data-id="1"]').click()
    settled(page)
    return page


def settled(page: Page) -> None:
    """Wait until the opened picture is decoded and painted."""
    expect(page.locator("#viewer")).to_be_visible()
    page.evaluate("() => Promise.all([...document.querySelectorAll('#frame img')].map(image => image.decode()))")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def screen(page: Page) -> npt.NDArray[np.int64]:
    """What is on the screen, [H, W, 3] in [0, 255]."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(np.int64)


def expect_views(page: Page, expected: list[str], *points: Point) -> None:
    """The screen has at each point (x, y) the colour of the view expected there, "mark" being the blue square, or comes
    to have it soon: what the glass shows may have to be decoded first.
    """
    settled(page)
    colors = COLORS | {"mark": BLUE}
    deadline = time.monotonic() + 5
    while True:
        picture = screen(page)
        pixels = [picture[round(y), round(x)] for x, y in points]
        found = [
            next((view for view, color in colors.items() if abs(pixel - color).max() <= 2), str(pixel))
            for pixel in pixels
        ]
        if found == expected or time.monotonic() > deadline:
            break
    assert found == expected


def box(page: Page, selector: str) -> tuple[float, float, float, float]:
    found = page.locator(selector).bounding_box()
    assert found is not None
    return found["x"], found["y"], found["width"], found["height"]


def on_screen(page: Page, x: float, y: float) -> Point:
    """Where pixel (x, y) of the opened picture is on the screen."""
    left, top, width, height = box(page, "#frame")
    return left + x * width / WIDTH, top + y * height / HEIGHT


def test_the_slider_parts_two_pictures(context: BrowserContext, url: str) -> None:
    page = open_picture(context, url)
    places = [on_screen(page, WIDTH * part, HEIGHT * 0.8) for part in (0.2, 0.45, 0.55, 0.9)]
    expect_views(page, ["bicubic", "bicubic", "sr", "sr"], *places)

    x, y, width, height = box(page, "#handle")
    page.mouse.move(x + width / 2, y + height / 2)
    page.mouse.down()
    page.mouse.move(*on_screen(page, WIDTH * 0.75, HEIGHT / 2), steps=4)
    page.mouse.up()
    page.mouse.move(1, 1)
    expect_views(page, ["bicubic", "bicubic", "bicubic", "sr"], *places)

    page.locator("#left").select_option("hr")
    page.locator("#right").select_option("difference")
    expect_views(page, ["hr", "hr", "hr", "difference"], *places)
    expect(page.locator("#left-tag")).to_have_text("Original")

    page.locator("#handle").focus()
    page.keyboard.press("Home")
    expect_views(page, ["difference"] * 4, *places)
    for _ in range(3):
        page.keyboard.press("Shift+ArrowRight")
    expect_views(page, ["hr", "difference", "difference", "difference"], *places)
    assert page.locator("#handle").get_attribute("aria-valuenow") == "30"


def test_the_glass_shows_its_view_at_its_zoom_under_the_pointer(context: BrowserContext, url: str) -> None:
    page = open_picture(context, url)
    page.locator("#right").select_option("hr")
    x, y = on_screen(page, *CENTER)
    page.mouse.move(x, y)
    expect(page.locator("#zoom")).to_have_text("×6")
    # The square has four pixels: at zoom 6 it reaches 12 to each side of the pointer, at 8 it reaches 16.
    around = [(x + 10, y), (x - 10, y), (x, y + 10), (x, y - 10)]
    beyond = [(x + 14, y), (x - 14, y), (x, y + 14), (x, y - 14)]
    far = [(x + 100, y), (x + 160, y)]  # still in the glass, and outside of it
    expect_views(page, ["mark"] * 4 + ["sr"] * 4 + ["sr", "hr"], *around, *beyond, *far)

    page.keyboard.press("+")
    expect(page.locator("#zoom")).to_have_text("×8")
    expect_views(page, ["mark"] * 8, *around, *beyond)
    page.mouse.wheel(0, 100)
    page.mouse.wheel(0, 100)
    expect(page.locator("#zoom")).to_have_text("×4")
    expect_views(page, ["sr"] * 4, *around)

    for key, view in (
        ("1", "lr"),
        ("2", "bicubic"),
        ("4", "champion"),
        ("5", "hr"),
        ("6", "heat"),
        ("7", "difference"),
    ):
        page.keyboard.press(key)
        expect_views(page, [view, view], (x, y), (x + 60, y + 60))
        expect(page.locator("#lens span")).to_contain_text("×4")

    page.mouse.move(1, 1)
    expect(page.locator("#lens")).to_be_hidden()
    page.get_by_role("radio", name="Off").check()
    page.mouse.move(x, y)
    expect(page.locator("#lens")).to_be_hidden()


def test_all_views_side_by_side_show_the_same_spot(context: BrowserContext, url: str) -> None:
    page = open_picture(context, url)
    page.get_by_role("radio", name="All side by side").check()
    settled(page)
    page.mouse.move(*on_screen(page, *CENTER))
    expect(page.locator("#spot")).to_be_visible()
    glasses = [glass.bounding_box() for glass in page.locator("#strip .glass").all()]
    centers = [(found["x"] + found["width"] / 2, found["y"] + found["height"] / 2) for found in glasses if found]
    expect_views(page, ["lr", "bicubic", "mark", "champion", "hr", "heat", "difference"], *centers)
    edges = [(x + 20, y) for x, y in centers]  # past the square, at zoom 6
    expect_views(page, ["lr", "bicubic", "sr", "champion", "hr", "heat", "difference"], *edges)


def test_the_keyboard_reaches_the_picture_and_moves_the_glass(context: BrowserContext, url: str) -> None:
    page = open_picture(context, url)
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "frame":
            break
    expect(page.locator("#frame")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#place")).to_have_text("at 164, 120")
    expect(page.locator("#lens")).to_be_visible()
    page.keyboard.press("Shift+ArrowUp")
    expect(page.locator("#place")).to_have_text("at 164, 88")
    expect(page.locator("#said")).to_have_text("RDN D4, 6 times, at 164, 88")
    for _ in range(20):
        page.keyboard.press("Shift+ArrowLeft")
    expect(page.locator("#place")).to_have_text("at 0, 88")
    left, _, width, _ = box(page, "#lens")
    assert left + width / 2 == pytest.approx(on_screen(page, 0, 0)[0], abs=1)


def test_addresses_keys_and_the_back_button(context: BrowserContext, url: str) -> None:
    page = open_picture(context, url)
    viewer, name = page.locator("#viewer"), page.locator("#viewer-name")
    expect(name).to_have_text("cat.png")
    expect(page.locator("#previous")).to_be_enabled()
    expect(page.locator("#next")).to_be_disabled()  # products come first, so the photograph is the last
    page.keyboard.press("ArrowLeft")
    expect(name).to_have_text("hat.png")
    expect(page.locator("#viewer-scores tbody tr").first).to_have_text("RDN D433.000.9500")
    page.go_back()
    expect(viewer).to_be_hidden()
    assert page.url == url
    page.go_forward()
    expect(name).to_have_text("hat.png")
    page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    assert page.url == url
    expect(page.locator('.grid a[data-id="3"]')).to_be_focused()


def test_a_patch_opens_its_picture_under_the_glass(context: BrowserContext, url: str) -> None:
    page = context.new_page()
    page.goto(url)
    page.locator(".crops").first.click()
    expect(page.locator("#viewer-name")).to_have_text("cat.png")
    expect(page.locator("#place")).to_have_text("at 204, 104")
    x, y = on_screen(page, 204, 104)
    expect_views(page, ["mark", "sr"], (x - 8, y - 8), (x + 8, y + 8))


def test_an_address_opens_its_picture_at_once(context: BrowserContext, url: str) -> None:
    page = context.new_page()
    page.goto(f"{url}#picture-2@10,20")
    expect(page.locator("#viewer-name")).to_have_text("mug.png")
    page.locator("#close").click()
    expect(page.locator("#viewer")).to_be_hidden()
    assert page.url == f"{url}#pictures"
    page.goto(f"{url}#picture-99")
    expect(page.locator("#viewer")).to_be_hidden()


def test_only_the_opened_picture_is_loaded(context: BrowserContext, url: str) -> None:
    loaded: list[tuple[str, ...]] = []  # folder and file
    context.on("request", lambda request: loaded.append(tuple(request.url.split("/")[-2:])))
    page = context.new_page()
    page.goto(url)
    page.locator("#method").scroll_into_view_if_needed()
    page.evaluate("() => Promise.all([...document.querySelectorAll('.grid img')].map(image => image.decode()))")
    numbers = ("0001", "0002", "0003")
    assert {one for one in loaded if one[0] in numbers} == {(number, "thumb.webp") for number in numbers}
    loaded.clear()
    page.locator('.grid a[data-id="2"]').click()
    settled(page)
    assert set(loaded) == {("0002", file_of(view)) for view in COLORS}


def test_pictures_are_ordered_within_their_set(context: BrowserContext, url: str) -> None:
    page = context.new_page()
    page.goto(url)

    def order() -> list[str]:
        return page.locator(".grid .name").all_text_contents()

    assert order() == ["mug.png", "hat.png", "cat.png"]
    for choice, expected in (
        ("gain", ["hat.png", "mug.png"]),
        ("worst", ["mug.png", "hat.png"]),
        ("name", ["hat.png", "mug.png"]),
    ):
        page.locator("#order").select_option(choice)
        assert order() == [*expected, "cat.png"]
    page.locator('.grid a[data-id="3"]').click()
    page.locator("#next").click()
    expect(page.locator("#viewer-name")).to_have_text("mug.png")


def test_hostile_names_run_nothing(context: BrowserContext, tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path, [(name, name) for name in HOSTILE], champion=True)
    inputs.summary["model"]["label"] = HOSTILE[0]
    page = context.new_page()
    page.goto(inputs.write().as_uri())
    assert page.locator(".grid .name").all_text_contents() == HOSTILE
    page.locator(".grid a").first.click()
    for name in HOSTILE:
        settled(page)
        assert page.locator("#viewer-name").text_content() == name
        page.mouse.move(*on_screen(page, 30, 40))
        page.keyboard.press("ArrowRight")
    page.get_by_role("radio", name="All side by side").check()
    assert page.locator("script").count() == 2
    assert page.locator("img[src=x], [onerror]").count() == 0


def test_the_policy_stops_foreign_scripts_and_addresses(browser: Browser, url: str) -> None:
    """What the escaping would have to let through first."""
    page = browser.new_page()
    page.goto(url)
    blocked = page.evaluate("""async () => {
        const found = [];
        document.addEventListener("securitypolicyviolation", event => found.push(event.effectiveDirective));
        const script = document.createElement("script");
        script.textContent = "window.foreign = true";
        document.body.append(script);
        document.body.insertAdjacentHTML("beforeend", "<p style='color: red' onclick='1'>x</p>");
        document.body.lastElementChild.click();  // newer browsers look at handlers only when they are called
        new Image().src = "http://127.0.0.1:9/x.png";
        await fetch("http://127.0.0.1:9/").catch(() => 0);
        await new Promise(done => setTimeout(done, 50));
        return [window.foreign, [...new Set(found)].sort()];
    }""")
    page.close()
    assert blocked == [None, ["connect-src", "img-src", "script-src-attr", "script-src-elem", "style-src-attr"]]


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, url: str) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(url)
    background = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(background)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(background)
    assert dark != light
    page.locator("#theme").click()
    page.locator("#theme").click()
    assert page.evaluate(background) == dark
    page.reload()
    expect(page.locator("#theme")).to_have_text("Theme: dark")
    assert page.evaluate(background) == dark
    page.close()


def test_a_phone_shows_the_glass_above_the_finger(phone: BrowserContext, url: str) -> None:
    page = phone.new_page()
    page.goto(url)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator('.grid a[data-id="1"]').tap()
    settled(page)
    x, y = on_screen(page, *CENTER)
    page.touchscreen.tap(x, y)
    left, top, width, height = box(page, "#lens")
    assert top + height < y - 10
    middle = left + width / 2, top + height / 2
    expect_views(page, ["mark", "sr"], middle, (middle[0] + 20, middle[1]))

    def drag(start: Point, *way: Point) -> None:
        touch = page.context.new_cdp_session(page)
        for kind, points in (("touchStart", [start]), *(("touchMove", [point]) for point in way), ("touchEnd", [])):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]})
            page.wait_for_timeout(60)  # a finger that rests before it lifts flings nothing: a fling eats the next tap

    drag((x, y), (x, y + 30), (x - 60, y + 60), (x - 60, y + 60))
    moved_left, moved_top, _, _ = box(page, "#lens")
    assert (moved_left, moved_top) == pytest.approx((left - 60, top + 60), abs=1)
    grip_x, grip_y, grip_width, grip_height = box(page, "#handle")
    grip = grip_x + grip_width / 2, grip_y + grip_height / 2
    goal = on_screen(page, WIDTH * 0.75, HEIGHT / 2)
    drag(grip, (grip[0] + 30, grip[1]), goal, goal)
    assert page.locator("#handle").get_attribute("aria-valuenow") == "75"
    expect(page.locator("#lens")).to_be_hidden()
    page.locator("#close").tap()
    expect(page.locator("#viewer")).to_be_hidden()
