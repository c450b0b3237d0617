"""The page, in Debian's Chromium: it is drawn on, and its parts are taken hold of."""

import base64
import io
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb as rgb
from PIL import Image

from inference.explore import COLOUR_BLIND
from inference.explore.view import painted
from pyro_rnp import RNP, save
from pyro_rnp.plotting import COLOURS
from tests.conftest import tiny

ROOT = Path(__file__).parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COLOUR = "runs/colour"
"""A run folder of a small model of images in colour."""
RECORD = {"data": "digits", "size": 8, "channels": 3}
SEVEN = ([(0.26, 0.22), (0.74, 0.22), (0.48, 0.82)],)
CONTROLS = {
    *(
        "application",
        "button",
        "checkbox",
        "ColorWell",
        "combobox",
        "dialog",
        "link",
        "listbox",
        "menu",
        "option",
    ),
    *("radio", "searchbox", "slider", "spinbutton", "switch", "tab", "textbox"),
}
"""Roles that must have a name."""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The command, on a free port; its address and its process."""
    command = [sys.executable, str(ROOT / "scripts" / "explore.py"), "--port=0", "--open=false"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    env.pop("PYTEST_CURRENT_TEST", None)  # NiceGUI behaves otherwise in tests
    where = tmp_path_factory.mktemp("served")
    save(RNP(tiny(channels=3)), where / COLOUR, {"training": RECORD})
    with subprocess.Popen(
        command, env=env, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", said)
            assert found, said + process.stderr.read()
            until = time.monotonic() + 60
            while time.monotonic() < until:
                try:
                    urllib.request.urlopen(found[0], timeout=20).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    time.sleep(0.1)
            yield found[0], process, where
        finally:
            process.terminate()
            _, complaints = process.communicate(timeout=30)
    assert "Traceback" not in complaints, complaints
    assert [path.name for path in where.iterdir()] == ["runs"], "the page leaves files behind"


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(server, chromium):
    """Opens pages, each a visitor's of its own, and looks at what they complain of and ask for."""
    contexts, wrong, asked = [], [], set()

    def opened(**options):
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(90_000)
        page.on("console", lambda said: said.type == "error" and wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        page.goto(server[0])
        page.get_by_text("Nothing is drawn yet.").first.wait_for()
        page.wait_for_timeout(300)  # until the pointer's listeners are there
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong
    outside = [url for url in asked if not url.startswith((server[0], "data:", "blob:"))]
    assert not outside, "the page needs no network"


@pytest.fixture
def visitor(visit):
    return visit()


def stage(page, name):
    return page.get_by_role("application", name=name)


def go(page, where, x, y, **how):
    box = where.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], **how)


def nameless(page):
    """The controls that a screen reader cannot name, as the browser's accessibility tree has them.

    Icons are letters of a font, which screen readers do not see. A list that has just opened gets
    its name a moment later, so what is nameless counts if it still is after two seconds.
    """
    session = page.context.new_cdp_session(page)
    for _ in range(40):
        tree = session.send("Accessibility.getFullAXTree")["nodes"]
        shown = [node for node in tree if not node["ignored"]]
        roles = [node["role"]["value"] for node in shown]
        assert {"heading", "button"} <= {*roles}
        found = [
            (role, node.get("properties"))
            for role, node in zip(roles, shown, strict=True)
            if role in CONTROLS and not node.get("name", {}).get("value", "").strip()
        ]
        if not found:
            break
        page.wait_for_timeout(50)
    return found


def draw(page, strokes=SEVEN, name="Image"):
    where = stage(page, name)
    where.scroll_into_view_if_needed()
    for (x, y), *rest in strokes:
        go(page, where, x, y)
        page.mouse.down()
        for x, y in rest:
            go(page, where, x, y, steps=3)
        page.mouse.up()


def tile(page, name):
    return page.get_by_role("button", name=name, exact=True)


def status(page):
    return page.get_by_role("status").first.inner_text()


def until(page, holds, seconds=90):
    """Wait until something holds, and return it."""
    for _ in range(seconds * 20):
        if found := holds():
            return found
        page.wait_for_timeout(50)
    pytest.fail(f"{status(page)} after {seconds} seconds")


def parsed(page, strokes=SEVEN):
    draw(page, strokes)
    return until(page, lambda: "squared error" in status(page) and status(page))


def pixels(page, name="Parse"):
    """The picture below the frames, (28, 28, 3) in [0, 1]."""
    source = stage(page, name).locator("img").first.get_attribute("src")
    found = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    return np.asarray(found, dtype=float) / 255


def strokes_of(page):
    """The colours of the frames, by part."""
    frames = page.locator("polygon.rnp-frame[data-handle]")
    found = frames.evaluate_all("(all) => all.map((f) => [f.dataset.handle, f.style.stroke])")
    return {handle.split()[0]: in_bytes(colour) for handle, colour in found}


def in_bytes(text):
    """A colour as the browser writes it, as in rgb(31, 119, 180)."""
    return tuple(int(number) for number in re.findall(r"\d+", text))


def bytes_of(colours):
    return {str(i): tuple(round(255 * c) for c in rgb(colours[i])) for i in range(4)}


def middle(picture):
    """The centre of mass of ink, in pixels."""
    ink = 1 - picture.mean(-1)
    places = np.arange(len(ink))
    return np.array([(ink.sum(0) * places).sum(), (ink.sum(1) * places).sum()]) / ink.sum()


def drag(page, handle, dx, dy):
    """Drag a handle by pixels of the image."""
    grip = page.locator(f'.rnp-grip[data-handle="{handle}"]')
    box, unit = grip.bounding_box(), stage(page, "Parse").bounding_box()["width"] / 28
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx * unit, y + dy * unit, steps=8)
    page.mouse.up()


def edited(page, number=1):
    return until(page, lambda: f"{number} edit" in status(page))


def test_a_seven_is_four_coloured_parts_that_can_be_moved_and_taken_away(visitor, tmp_path):
    page = visitor
    before = parsed(page)
    assert "4 parts" in before
    assert strokes_of(page) == bytes_of(COLOURS)
    colourful = pixels(page).max(-1) - pixels(page).min(-1) > 0.3
    assert colourful.sum() > 20

    slider = page.get_by_role("slider", name="Steps of the program that are shown")
    slider.locator("[tabindex]").focus()
    for left in (3, 2, 1):
        page.keyboard.press("ArrowLeft")
        page.get_by_text(f"Steps: {left} of 4").wait_for()
    until(page, lambda: len(strokes_of(page)) == 1)
    start = middle(pixels(page))
    drag(page, "0 move", 4, 3)
    edited(page)
    assert np.allclose(middle(pixels(page)) - start, [4, 3], atol=0.5)

    with page.expect_download() as taken:
        page.get_by_role("button", name="JSON").click()
    taken.value.save_as(tmp_path / "parse.json")
    after = status(page)
    page.keyboard.press("Control+z")
    until(page, lambda: status(page) == before)
    assert np.allclose(middle(pixels(page)), start, atol=0.1)
    page.get_by_role("button", name="Clear").click()
    until(page, lambda: status(page) != before)
    page.locator("input[type=file]").set_input_files(tmp_path / "parse.json")
    until(page, lambda: status(page).split(";")[:2] == after.split(";")[:2])
    assert np.allclose(middle(pixels(page)) - start, [4, 3], atol=0.5)


@pytest.mark.parametrize(
    ("handle", "by", "changed"),
    [
        ("rotate", (3, 0), {"Rotation"}),
        ("scale", (1, 1), {"Width", "Height"}),
        ("scale_x", (-1, 0), {"Width"}),
        ("scale_y", (0, -1), {"Height"}),
        ("shear", (1, 0), {"Shear"}),
    ],
)
def test_each_handle_changes_its_numbers(visitor, handle, by, changed):
    page = visitor
    parsed(page)
    labels = ("Width", "Height", "Rotation", "Shear", "Right", "Down")
    fields = [page.get_by_role("spinbutton", name=re.compile(f"^{label}: ")) for label in labels]

    def values():
        return [float(field.input_value()) for field in fields]

    before = values()
    drag(page, f"0 {handle}", *by)
    edited(page)
    after = until(page, lambda: (values() != before) and values())
    moved = {label for label, a, b in zip(labels, before, after, strict=True) if abs(a - b) > 0.002}
    assert moved
    assert moved <= changed


def test_numbers_and_keys_move_a_part_too(visitor):
    page = visitor
    parsed(page)
    stage(page, "Parse").focus()
    right = page.get_by_label(re.compile("^Right: "))
    start = float(right.input_value())
    page.keyboard.press("ArrowRight")
    edited(page)
    until(page, lambda: abs(float(right.input_value()) - start - 0.02) < 0.002)
    before = status(page)
    right.fill("0.3")
    until(page, lambda: status(page) != before)
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Sub-parts").click()
    until(page, lambda: len(strokes_of(page)) == 16)
    page.get_by_role("button", name="Sub-part 0/2").click()
    page.locator('.rnp-grip[data-handle="0/2 rotate"]').wait_for()
    page.get_by_role("button", name="Remove").click()
    edited(page, 2)
    page.get_by_role("switch", name="Colour-blind palette").click()
    page.get_by_role("button", name="Parts", exact=True).click()
    until(page, lambda: strokes_of(page) == bytes_of(COLOUR_BLIND))


def test_what_is_hidden_is_completed_and_a_closed_page_leaves_nothing_running(visit, server):
    page = visit()
    parsed(page)
    page.get_by_role("button", name="Hide", exact=True).click()
    half = [[(0.66, 0.08), (0.66, 0.92), (0.86, 0.92), (0.86, 0.08), (0.96, 0.08), (0.96, 0.92)]]
    draw(page, half)
    until(page, lambda: (np.abs(pixels(page, "Image") - [0.69, 0.77, 0.87]) < 0.01).all(-1).any())
    until(page, lambda: tile(page, "sample 3").count(), 60)
    assert page.get_by_text("mean", exact=True).count() == 1
    assert page.get_by_text("spread", exact=True).count() == 1
    assert re.search("rusted: ", page.get_by_role("status").nth(1).inner_text())
    children = Path(f"/proc/{server[1].pid}/task/{server[1].pid}/children")
    before = children.read_text().split() if children.exists() else []
    page.close()
    until_gone = time.monotonic() + 20
    while children.exists() and set(children.read_text().split()) & set(before):
        assert time.monotonic() < until_gone
        time.sleep(0.1)


def test_another_mask_takes_the_answers_to_the_one_before_away(visitor):
    page = visitor
    parsed(page)
    page.get_by_role("button", name="Hide", exact=True).click()
    draw(page, [[(0.7, 0.1), (0.7, 0.9)]])
    tile(page, "sample 3").wait_for()
    page.evaluate(
        """() => new MutationObserver(() => {
          const shown = [...document.querySelectorAll(".rnp-tile")].map((tile) => tile.innerText);
          window.cleared ||= !shown.some((text) => text.startsWith("spread"));
        }).observe(document.body, {childList: true, subtree: true})"""
    )
    draw(page, [[(0.9, 0.1), (0.9, 0.9)]])
    until(page, lambda: page.evaluate("window.cleared"))
    tile(page, "sample 3").wait_for()


@pytest.mark.parametrize("end", ["pointercancel", "lostpointercapture"])
def test_a_pointer_that_is_taken_away_ends_its_stroke(visitor, end):
    page, ended = visitor, "(all, [kind, id]) => all[0].dispatchEvent(new PointerEvent(kind, id))"
    where = stage(page, "Image")
    go(page, where, 0.3, 0.5)
    page.mouse.down()
    go(page, where, 0.7, 0.5, steps=3)
    page.locator(".rnp-stage").evaluate_all(ended, [end, {"pointerId": 1}])
    until(page, lambda: "squared error" in status(page))
    before = pixels(page, "Image")
    go(page, where, 0.7, 0.9, steps=3)
    page.mouse.up()
    drag(page, "0 move", 2, 1)
    edited(page)
    assert np.array_equal(pixels(page, "Image"), before), "what comes after is no stroke"


def test_a_stroke_of_many_points_is_drawn(visitor):
    page, where = visitor, stage(visitor, "Image")
    go(page, where, 0.5, 0.5)
    page.mouse.down()
    where.evaluate(
        """(stage) => {
          const box = stage.getBoundingClientRect();
          for (let i = 0; i < 40; i++) {
            const coalescedEvents = [...Array(1000).keys()].map((j) => {
              const turn = (1000 * i + j) / 500, r = 0.3 * box.width;
              const clientX = box.left + box.width / 2 + r * Math.cos(turn);
              const clientY = box.top + box.height / 2 + r * Math.sin(turn);
              return new PointerEvent("pointermove", { pointerId: 1, clientX, clientY });
            });
            stage.dispatchEvent(new PointerEvent("pointermove", { pointerId: 1, coalescedEvents }));
          }
        }"""
    )
    page.mouse.up()
    until(page, lambda: "squared error" in status(page))
    drawn = 1 - pixels(page, "Image").mean(-1)
    assert drawn[14, 5:7].max() == drawn[14, 21:24].max() == drawn[5:7, 14].max() == 1


def test_a_trail_stays_while_answers_to_the_stroke_before_arrive(visitor):
    page, where = visitor, stage(visitor, "Image")
    go(page, where, 0.3, 0.6)
    page.mouse.down()
    go(page, where, 0.5, 0.6, steps=3)
    trail = where.locator("polyline")
    assert trail.count() == 1
    where.locator("svg g").last.evaluate("(shown) => (shown.innerHTML = '<!--an answer-->')")
    assert trail.count() == 0
    go(page, where, 0.7, 0.6, steps=3)
    assert trail.count() == 1
    page.mouse.up()
    until(page, lambda: "squared error" in status(page))
    assert trail.count() == 0


def test_a_key_that_is_released_elsewhere_keeps_what_it_has_done(visitor):
    page = visitor
    parsed(page)
    stage(page, "Parse").focus()
    right = page.get_by_label(re.compile("^Right: "))
    start = float(right.input_value())
    page.keyboard.down("ArrowRight")
    until(page, lambda: abs(float(right.input_value()) - start - 0.02) < 0.002)
    page.keyboard.press("Tab")
    page.keyboard.up("ArrowRight")
    edited(page)
    assert abs(float(right.input_value()) - start - 0.02) < 0.002


def test_samples_walks_and_other_parts(visitor):
    page = visitor
    parsed(page)
    page.get_by_role("button", name="Draw samples").click()
    tile(page, "sample 7").wait_for()
    page.get_by_role("button", name="Show test images").click()
    tile(page, "image 2").click()
    page.get_by_role("button", name="Walk to it").click()
    tile(page, "step 7").wait_for()
    page.get_by_role("button", name="Exchange the part").click()
    edited(page)
    page.get_by_role("button", name="Ask for the others").click()
    page.get_by_text("No part is kept").wait_for()
    page.get_by_role("switch", name="Keep this part").click()
    page.get_by_role("button", name="Ask for the others").click()
    page.get_by_text("spread", exact=True).wait_for()
    tile(page, "sample 5").last.click()
    until(page, lambda: "edit" not in status(page))


def choose_model(page, name):
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name=name, exact=True).click()


def test_another_model_parses_the_same_drawing_and_is_undone(visitor):
    page = visitor
    before = parsed(page)
    drawn = pixels(page, "Image")
    drag(page, "0 move", 3, 0)
    edited(page)
    moved = status(page)
    choose_model(page, "fashion")
    page.get_by_text("Undo brings them back").wait_for()
    until(page, lambda: "edit" not in status(page) and status(page) not in (before, moved))
    assert np.array_equal(pixels(page, "Image"), drawn)
    page.get_by_role("button", name="Undo").click()
    until(page, lambda: status(page) == moved)
    assert page.get_by_role("combobox", name="Model").input_value() == "mnist"
    page.get_by_role("button", name="Redo").click()
    until(page, lambda: "edit" not in status(page))
    assert page.get_by_role("combobox", name="Model").input_value() == "fashion"


def answered(page):
    """Ask for the other parts, find the nearest parts and walk: rows that belong to this state."""
    page.get_by_role("button", name="Ask for the others").click()
    page.get_by_text("spread", exact=True).wait_for()
    stop = page.get_by_role("button", name="Stop", include_hidden=True)
    stop.dispatch_event("click")  # what arrives later would move the page
    stop.wait_for(state="hidden")
    page.get_by_role("button", name="Walk to it").click()
    tile(page, "step 7").wait_for()
    page.get_by_role("button", name="Nearest parts").click()
    page.get_by_text(re.compile("^part .* of image")).first.wait_for(timeout=90_000)


def test_answers_go_with_the_state_that_they_belong_to(visitor):
    page = visitor
    parsed(page)
    page.get_by_role("button", name="Show test images").click()
    tile(page, "image 2").click()
    page.get_by_role("switch", name="Keep this part").click()
    row = page.locator(".rnp-tile:not(:has-text('image 0'))")
    others = page.get_by_text(re.compile("^(mean|spread|step 7|part .* of image .*)$"))
    chip = page.get_by_role("button", name="Part 1", exact=True)
    unkept = page.get_by_role("switch", name="Keep this part", checked=False)
    changes = [
        lambda: drag(page, "0 move", 2, 1),
        lambda: page.get_by_role("button", name="Undo").click(),
        lambda: page.get_by_role("button", name="Exchange the part").click(),
        lambda: page.get_by_role("button", name="Parse again").click(),
        lambda: (chip.click(), unkept.click()),
        lambda: page.get_by_role("button", name="Remove").click(),
    ]
    for change in changes:
        answered(page)
        change()
        until(page, lambda: others.count() == 0)
        page.wait_for_timeout(300)
        assert others.count() == 0
    assert row.count() > 0, "the images to choose from stay"


def test_each_picture_can_be_taken_away(visitor, tmp_path):
    page = visitor
    parsed(page)
    page.get_by_role("button", name="Draw samples").click()
    page.get_by_role("button", name="Ask", exact=True).click()
    for name in ("sample 7", "mean", "spread"):
        with page.expect_download() as taken:
            page.get_by_role("link", name=f"PNG of {name}", exact=True).first.click()
        assert taken.value.suggested_filename == f"{name}.png"
        taken.value.save_as(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (28, 28)
    assert nameless(page) == []


def test_the_lines_of_python_have_the_question_that_was_asked(visitor, tmp_path, unchecked):
    page = visitor
    parsed(page)

    def lines():
        with page.expect_download() as taken:
            page.get_by_role("button", name="Python").click()
        taken.value.save_as(tmp_path / "parse.py")
        return (tmp_path / "parse.py").read_text()

    assert "query(" not in lines()
    page.get_by_role("switch", name="Keep this part").click()
    page.get_by_role("button", name="Ask for the others").click()
    until(page, lambda: "Monte Carlo" in page.get_by_role("status").nth(1).inner_text()
          and "Still" not in page.get_by_role("status").nth(1).inner_text()
          and "At work" not in page.get_by_role("status").nth(1).inner_text(), 90)  # fmt: skip
    mean = picture_of(page.get_by_text("mean", exact=True).locator(".."))
    page.get_by_role("button", name="Draw samples").click()
    page.get_by_role("button", name="Show test images").click()
    tile(page, "image 2").click()
    page.get_by_role("button", name="Walk to it").click()
    page.get_by_role("button", name="Nearest parts").click()
    found = page.get_by_text(re.compile("^part .* of image"))
    found.first.wait_for(timeout=90_000)
    names = {}
    exec(lines(), names)
    expected = 255 * (1 - names["posterior"].mean("canvas")[0, 0].clamp(0, 1).numpy())
    assert np.abs(mean[..., 0] - expected).max() <= 1.5
    for name, tree in (("sample 7", names["prior"]), ("step 7", names["walk"])):
        with torch.no_grad():
            expected = 255 * painted(tree.map(lambda values: values[7:]))
        assert np.abs(picture_of(tile(page, name).last) - expected.numpy()).max() <= 1.5
    near = [f"part {near.site[2:]} of image {near.image}" for near in names["near"]]
    assert found.all_inner_texts() == near


def picture_of(where):
    """The pixels of a tile, 0 to 255."""
    source = where.locator("img").get_attribute("src")
    picture = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    return np.asarray(picture, dtype=float)


def test_nearest_parts_are_those_of_a_run_as_it_is_now(visitor, server):
    page, run = visitor, server[2] / COLOUR
    choose_model(page, COLOUR)
    draw(page, [[(0.2, 0.5), (0.8, 0.5)]])
    until(page, lambda: "2 parts" in status(page))
    before = pixels(page)  # the sentence on the parse is rounded, and may stay the same
    nearest = page.get_by_role("button", name="Nearest parts")
    nearest.click()
    found = page.get_by_text(re.compile("^part .* of image")).first
    found.wait_for(timeout=90_000)
    torch.manual_seed(5)
    save(RNP(tiny(channels=3)), run, {"training": RECORD})
    nearest.click()
    page.get_by_text("trained anew").wait_for()
    until(page, lambda: np.abs(pixels(page) - before).max() > 0.01)
    found.wait_for(timeout=90_000)


def test_two_visitors_do_not_see_each_others_drawings(visit):
    one, two = visit(), visit()
    parsed(one)
    assert status(two) == "Nothing is drawn yet."
    assert pixels(two, "Image").min() == 1


def test_a_file_that_is_no_image_gets_one_sentence(visitor):
    page = visitor
    broken = {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_text("not an image that can be read").first.wait_for()
    broken |= {"name": "a.json", "mimeType": "application/json"}
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_text("not the JSON of a parse").first.wait_for()
    assert status(page) == "Nothing is drawn yet."


DROP = """([where, name, type, text]) => {
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, {type}));
  const onto = document.querySelector(where);
  const sent = (kind) => onto.dispatchEvent(
    new DragEvent(kind, {bubbles: true, cancelable: true, dataTransfer: data}));
  return [sent("dragover"), sent("drop")];
}"""
"""Drops a file; false for each event that the page keeps from the browser, which would go there."""


@pytest.mark.parametrize("where", ["h1", ".rnp-stage", "body"])
def test_a_file_that_is_dropped_anywhere_is_opened(visitor, where):
    page = visitor
    picture, stored = Image.new("L", (28, 28)), io.BytesIO()
    picture.paste(255, (10, 6, 16, 22))
    picture.save(stored, "PNG")
    content = base64.b64encode(stored.getvalue()).decode()
    assert page.evaluate(DROP, [where, "a.png", "image/png", content]) == [False, False]
    until(page, lambda: "squared error" in status(page))
    assert pixels(page, "Image")[14, 12].max() == 0
    assert page.evaluate(DROP, [where, "a.txt", "text/plain", content]) == [False, False]
    page.get_by_text("Only image files and JSON").wait_for()
    assert "squared error" in status(page)


def test_a_phone_draws_with_a_finger_and_each_control_has_a_name(visit):
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    box, finger = stage(page, "Image").bounding_box(), page.context.new_cdp_session(page)

    def touch(kind, *places):
        at = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["width"]} for x, y in places
        ]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (0.3, 0.25))
    for step in range(10):
        touch("touchMove", (0.3 + 0.04 * step, 0.25))
    for step in range(10):
        touch("touchMove", (0.7 - 0.02 * step, 0.25 + 0.055 * step))
    touch("touchEnd")
    until(page, lambda: "squared error" in status(page))
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    numbers = page.locator(".rnp-number")
    first, *_, last = numbers.all_inner_texts()
    assert re.match(r"Width\s+0\.\d\d to 0\.\d\d\s+part size over parent size", first)
    assert re.match(r"Down\s+-\d\.\d\d to \d\.\d\d\s+canvas half-widths, below the centre", last)
    assert not any(numbers.evaluate_all("(all) => all.map((n) => n.scrollWidth > n.clientWidth)"))
    assert nameless(page) == []


def test_every_control_has_a_name(visitor):
    page = visitor
    parsed(page)
    page.get_by_role("button", name="Show test images").click()
    tile(page, "image 2").click()
    assert nameless(page) == []
    page.get_by_role("combobox", name="Its part").click()
    page.get_by_role("option", name="part 3", exact=True).wait_for()
    assert nameless(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Keys").click()
    page.get_by_role("dialog", name="Keys").wait_for()
    assert nameless(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("combobox", name="Model").click()
    page.get_by_role("option", name="fashion", exact=True).wait_for()
    assert nameless(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("switch", name="Keep this part").click()
    page.get_by_role("button", name="Ask for the others").click()
    tile(page, "sample 3").wait_for()
    assert nameless(page) == []


def test_a_model_of_images_in_colour_has_a_pen_of_any_colour(visitor):
    page = visitor
    choose_model(page, COLOUR)
    pen = page.get_by_label("Colour", exact=True)
    pen.wait_for()
    assert nameless(page) == []
    pen.fill("#ff8000")
    until(page, lambda: stage(page, "Image").get_attribute("data-pen").endswith("#ff8000"))
    draw(page, [[(0.2, 0.5), (0.8, 0.5)]])
    until(page, lambda: "2 parts" in status(page))
    drawn = pixels(page, "Image").max((0, 1))
    assert np.allclose(drawn / drawn.max(), [1, 0.5, 0], atol=0.02)
    page.get_by_role("button", name="Erase", exact=True).click()
    draw(page, [[(0.2, 0.5), (0.8, 0.5)]])
    until(page, lambda: pixels(page, "Image").max() < drawn.max())
    choose_model(page, "mnist")
    until(page, lambda: "4 parts" in status(page))


def test_a_hundred_strokes_and_drags(visitor, capsys):
    """Nothing complains; and how long answers take is printed."""
    page = visitor
    choose = random.Random(0)
    parsed(page)
    for i in range(50):
        line = [[(choose.random(), choose.random()) for _ in range(2)]]
        draw(page, line)
        if i % 10 == 9:
            page.get_by_role("button", name="Clear").click()
            page.wait_for_timeout(100)
        box = stage(page, "Parse").bounding_box()
        x, y = (box[a] + choose.random() * box[b] for a, b in (("x", "width"), ("y", "height")))
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + choose.uniform(-60, 60), y + choose.uniform(-60, 60), steps=3)
        page.mouse.up()
    until(page, lambda: status(page) == "Nothing is drawn yet.")  # the last one was cleared
    page.wait_for_timeout(1000)
    parsed(page)
    page.get_by_role("button", name="Part 0").click()
    with capsys.disabled():
        print(f"\npage: pen-up to parse {_answers(page, 'up'):.0f} ms,", end=" ")
        print(f"drag to canvas {_answers(page, 'drag'):.0f} ms (medians)")


def _answers(page, kind):
    """The median time in ms from an event of a pointer to another picture of the parse."""
    page.evaluate(
        """(name) => {
          const [image, parse] = document.querySelectorAll('.rnp-stage');
          const watched = name === 'pointerup' ? image : parse;
          watched.addEventListener(name, () => window.from ??= performance.now(), true);
          new MutationObserver(() => window.to ??= performance.now()).observe(
            parse.querySelector('img'), {attributes: true, attributeFilter: ['src']});
        }""",
        "pointerup" if kind == "up" else "pointermove",
    )
    grip = page.locator('.rnp-grip[data-handle="0 move"]').bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    if kind == "drag":
        page.mouse.move(x, y)
        page.mouse.down()
    times = []
    for i in range(7):
        page.evaluate("window.from = window.to = undefined")
        if kind == "drag":
            page.mouse.move(x + 3 * (i + 1), y + 2 * (i + 1))
        else:
            draw(page, [[(0.3 + 0.05 * i, 0.3), (0.4, 0.6)]])
        times.append(
            until(
                page, lambda: page.evaluate("window.to > window.from ? window.to - window.from : 0")
            )
        )
        page.wait_for_timeout(100)
    page.mouse.up()
    return median(times)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_polling_of_another_origin_is_refused(server, method):
    url = f"{server[0]}_nicegui_ws/socket.io/?EIO=4&transport=polling"
    body = b"40" if method == "POST" else None
    evil = urllib.request.Request(url, body, {"Origin": "http://evil.example"}, method=method)
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(evil, timeout=20)
    assert "access-control-allow-origin" not in {name.lower() for name in refused.value.headers}
    refused.value.close()
    if method == "GET":
        with urllib.request.urlopen(url, timeout=20) as own:
            assert own.status == 200


def test_another_origin_and_another_name_are_refused(server):
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        request = urllib.request.Request(server[0], headers=headers)
        with pytest.raises(urllib.error.HTTPError, match="403") as refused:
            urllib.request.urlopen(request, timeout=20)
        refused.value.close()


def test_another_address_of_this_machine_is_not_listened_on(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no other address")
        other = probe.getsockname()[0]
    if other.startswith("127."):
        pytest.skip("this machine has no other address")
    port = int(server[0].rsplit(":", 1)[1].strip("/"))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((other, port), timeout=5).close()
