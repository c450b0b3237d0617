"""The page: one draws, sees the parse, and takes hold of its parts.

`inference.explore.session` holds what a visitor has done; here are the controls that call it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from fastapi import FastAPI
from matplotlib.colors import is_color_like, to_hex, to_rgb
from nicegui import app, events, ui
from torch import Tensor

from inference.explore.controls import (
    KEY,
    POINTER,
    button,
    card,
    points,
    row,
    stage,
    tile,
    tile_row,
)
from inference.explore.frames import COLOUR_BLIND, FIELD_LABELS, Part, dragged, parts
from inference.explore.images import BYTES, brushed, centre, open_image, rasterise
from inference.explore.questions import Answer
from inference.explore.session import Session
from inference.explore.shelf import OWN, Shelf
from inference.explore.view import frames, ink, painted, spread, uri
from inference.explore.worker import Worker
from pyro_rnp import ParseTree
from pyro_rnp.affine import FIELDS, UNITS, codomain
from pyro_rnp.plotting import COLOURS, MISSING

T = TypeVar("T")
HERE = Path(__file__).parent
TITLE = "Recursive neural programs"
TOOLS = {"draw": "Draw", "erase": "Erase", "hide": "Hide"}
BRUSH = 6.0
"""Width of what erases and hides, in pixels of 28."""
LARGER = ((0, 1.05, 0.0), (1, 1.05, 0.0))
SMALLER = ((0, 1 / 1.05, 0.0), (1, 1 / 1.05, 0.0))
MOVES: dict[str, tuple[tuple[int, float, float], ...]] = {
    "ArrowLeft": ((4, 1.0, -0.02),),
    "ArrowRight": ((4, 1.0, 0.02),),
    "ArrowUp": ((5, 1.0, -0.02),),
    "ArrowDown": ((5, 1.0, 0.02),),
    "[": ((2, 1.0, -0.05),),
    "]": ((2, 1.0, 0.05),),
    "+": LARGER,
    "=": LARGER,
    "-": SMALLER,
}
"""Keys with what they do to the numbers of an action: which, times what, plus what."""
TILES = 8
"""Images in a row."""
ENGINES = {
    "guide": "the guide",
    "importance": "importance sampling",
    "smc": "sequential Monte Carlo",
}
LIST_NAME = """() => requestAnimationFrame(() =>
  document.querySelector("[role=listbox]")?.setAttribute("aria-label", "Models"))"""
"""Names the list of models for screen readers, which Quasar leaves without a name."""
KEYS = (
    ("Ctrl+Z, Ctrl+Y", "undo, redo"),
    ("Tab", "from one control to the next; the parse is one of them"),
    ("on the parse: arrows", "move the part"),
    ("+ and −", "make it larger or smaller"),
    ("[ and ]", "turn it"),
    ("0 to 9", "choose a part"),
    ("Delete", "remove the part"),
)
"""Keys with what they do."""


NOT_OPENED = f"Only image files and JSON of at most {BYTES >> 20} MiB are opened."


def application(shelf: Shelf) -> FastAPI:
    """Make the ASGI application that serves the page.

    A process has one, since NiceGUI has; pages of further models join it by `add_page`.

    Args:
        shelf: models and images of the page at `/`.
    """
    add_page("/", shelf)
    # NiceGUI's own application is served, not the one that it would be mounted in: at the start of
    # that one it looks at every object of the process, and torch has some that warn of it.
    ui.run_with(
        FastAPI(),
        title=TITLE,
        language="en-US",
        favicon="✎",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=60.0,
    )
    return app


def add_page(path: str, shelf: Shelf) -> None:
    """Serve a page.

    Args:
        path: where, as `/`.
        shelf: its models and images.
    """

    @ui.page(path)
    def page() -> None:
        Page(shelf)


class Page:
    """One visitor's page.

    Args:
        shelf: models and images to choose from.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.lock, self.numbers = shelf, asyncio.Lock(), count()
        self.client = ui.context.client
        self.palette: Sequence[str] = COLOURS
        self.parts: dict[str, Part] = {}
        self.chosen: str | None = None
        self.grabbed: Part | None = None
        self.gestures: list[dict[str, Any]] = []
        self.turning = self.filling = False
        self.other: Tensor | None = None
        self.shown_images: list[Tensor] = []
        self.fields: list[tuple[ui.slider, ui.number]] = []
        self.part_buttons: dict[str, ui.button] = {}
        self.next_image = self.turn = self.questions = 0
        self.asked: bool | None = None
        self.session = Session(shelf.model(shelf.first), name=self._known(shelf.first))
        self._begin()
        ui.colors(primary="#1f5fa8")
        ui.add_css((HERE / "page.css").read_text())
        ui.add_head_html(f"<script>{(HERE / 'pointer.js').read_text()}</script>")
        self._bar()
        with ui.element("div").classes("rnp-main"):
            self._image_card()
            self._parse_card()
            self._part_card()
            self._hidden_card()
            self._others_card()
            self._samples_card()
            self._take_card()
        ui.keyboard(self._key, repeating=True, ignore=["input", "select", "textarea"])
        self.client.on_disconnect(lambda: self.worker.close())
        self.client.on_delete(lambda: self.worker.close(final=True))
        self._fit()
        self.show()

    def _known(self, name: str) -> str | None:
        """A model's name as Python lines take it."""
        return None if name == OWN else name

    def _begin(self) -> None:
        """Take the session's model."""
        self.name, self.rnp = self.session.name or OWN, self.session.rnp
        self.worker = Worker(self.rnp)
        self.config, self.line = self.rnp.config, self.shelf.line(self.name)
        self.depth = min(1, self.config.depth)
        self.chosen = "0" if self.depth else None
        self.other, self.grabbed, self.parts = None, None, {}
        self.gestures.clear()

    def _changed(self) -> None:
        """Fit the page to the session's model if that has changed."""
        if self.session.rnp is not self.rnp:
            self.worker.close()
            self._begin()
            self.model_choice.set_value(self.name)
            self._fit()

    # Work --------------------------------------------------------------------------------------

    async def do(self, work: Callable[[], T], beside: bool = False) -> T | None:
        """Do what takes long in a thread, one thing after another; None where it fails.

        Args:
            work: takes no arguments; of an error the visitor gets a note.
            beside: whether other things go on meanwhile, of what is slow and changes nothing.
        """

        def quietly() -> T:
            with torch.no_grad():
                return work()

        async with nullcontext() if beside else self.lock:
            try:
                return await asyncio.to_thread(quietly)
            except (ValueError, OSError) as error:
                self.note(" ".join(str(error).split()), "warning")
            except Exception as error:  # else the page would stand still without a word
                traceback.print_exc()
                self.note(f"This did not work ({type(error).__name__}).", "warning")
            return None

    def note(self, text: str, kind: Literal["info", "warning"] = "info") -> None:
        """Show a note for some seconds, which screen readers read.

        Args:
            text: the note.
            kind: how it looks.
        """
        with self.client:
            ui.notify(text, type=kind, position="bottom", close_button="Close", timeout=6000)

    # The bar -----------------------------------------------------------------------------------

    def _bar(self) -> None:
        with ui.element("header").classes("rnp-bar"):
            ui.html(TITLE, tag="h1", sanitize=False)
            self.model_choice = ui.select(
                self.shelf.names(), value=self.name, label="Model", on_change=self._choose_model
            ).props("dense outlined options-dense")
            self.model_choice.on("popup-show", js_handler=LIST_NAME)
            ui.switch("Colour-blind palette", on_change=self._choose_palette)
            with ui.dialog().props('aria-label="Keys"') as keys, ui.card():
                ui.html("Keys", tag="h2", sanitize=False)
                for key, does in KEYS:
                    ui.label(f"{key}: {does}")
                ui.button("Close", on_click=keys.close).props("flat no-caps")
            button("Keys", keys.open, "keyboard", flat=True)

    async def _choose_model(self, event: events.ValueChangeEventArguments) -> None:
        if event.value == self.name or event.value not in self.shelf.names():
            return
        shelf, name, session = self.shelf, event.value, self.session
        loaded = await self.do(lambda: (shelf.model(name), shelf.line(name)), beside=True)
        lost = bool(session.edits or session.kept)

        def work() -> bool:
            assert loaded is not None
            session.change(loaded[0], self._known(name))
            return True

        if loaded is None or await self.do(work) is None:
            self.model_choice.set_value(self.name)
            return
        self._changed()
        self.show()
        if lost:
            self.note("Edits and kept parts belong to the other model; Undo brings them back.")

    def _choose_palette(self, event: events.ValueChangeEventArguments) -> None:
        self.palette = COLOUR_BLIND if event.value else COLOURS
        self._name_parts()
        self.show()

    # The image ---------------------------------------------------------------------------------

    def _image_card(self) -> None:
        with card("Image", "Draw with mouse, pen or finger, or drop an image file."):
            self.image_stage = stage("Image. Draw here with a pointer.")
            self.image_stage.on("pointerdown", self._stroke, js_handler=POINTER)
            self.upload = (
                ui.upload(
                    auto_upload=True,
                    max_file_size=BYTES,
                    on_upload=self._open,
                    on_rejected=lambda: self.note(NOT_OPENED, "warning"),
                )
                .props('accept=".json,image/*"')
                .classes("rnp-upload")
            )
            with row():
                self.tool = ui.toggle(TOOLS, value="draw", on_change=self._choose_tool)
                self.tool.props('no-caps unelevated aria-label="Tool of the pointer" role=group')
            with row():
                ui.label("Width").props("aria-hidden=true")
                self.width = ui.slider(min=1, max=10, step=0.2, value=self.line)
                self.width.props('aria-label="Width of the tool"').classes("rnp-grow")
                self.width.on_value_change(self._choose_pen)
                self.ink = ui.input("Colour", value="#ffffff", on_change=self._choose_pen)
                self.ink.props("type=color dense outlined").classes("rnp-colour")
            with row():
                button("Clear", self._clear, "delete_outline")
                centred = button("Centre", self._centre, "filter_center_focus")
                centred.tooltip("Scale and move the drawing as the makers of MNIST did")
                button("Next test image", self._next, "skip_next")
                opener = button("Open a file", None, "folder_open")
                opener.on("click", js_handler="() => rnpFile().click()")
                self.show_all = button("Show what is hidden", self._show_all, "visibility")
        self._choose_pen()

    def _choose_tool(self) -> None:
        self.width.set_value(self.line if self.tool.value == "draw" else BRUSH)
        self._choose_pen()

    def _choose_pen(self) -> None:
        light = self.config.channels == 3
        colours = {"draw": "#000", "erase": "#fff", "hide": to_hex(MISSING)}
        if light:  # images in colour have a dark ground
            colours |= {"draw": to_hex(self._ink()), "erase": "#000"}
        colour = colours[self.tool.value]
        width = self.width.value * self.config.image_size / 28
        self.image_stage.props(f'data-pen="{width:g} {colour}"')

    def _ink(self) -> tuple[float, float, float]:
        """The colour of the pen, as the model has it."""
        if self.config.channels == 1 or not is_color_like(self.ink.value):
            return 1.0, 1.0, 1.0
        return to_rgb(self.ink.value)

    async def _stroke(self, event: events.GenericEventArguments) -> None:
        found = points(event.args)
        if event.args.get("type") != "up" or not found:
            self._show_image()
            return
        tool, width = self.tool.value, self.width.value
        session, config = self.session, self.config
        colour = torch.tensor(self._ink()).view(3, 1, 1)

        def work() -> bool:
            if tool == "hide":
                session.hide(brushed([found], config, width))
                return True
            line = rasterise([found], config, width, centred=False)
            image = torch.zeros_like(line) if session.image is None else session.image
            if tool == "erase":
                image = image * (1 - line)
            elif config.channels == 1:
                image = torch.maximum(image, line)
            else:
                image = image * (1 - line) + line * colour
            session.draw(image)
            return bool(session.tree)

        if await self.do(work) is None:
            self._show_image()
        elif tool == "hide":
            self.forget()
            self._show_image()
            await self.ask()
        else:
            self.forget()
            self.show()

    async def _take_image(self, image: Tensor) -> None:
        def work() -> ParseTree:
            self.session.draw(image)
            return self.session.tree

        if await self.do(work) is not None:
            self.forget()
            self.show()

    async def _clear(self) -> None:
        size, channels = self.config.image_size, self.config.channels
        await self._take_image(torch.zeros(channels, size, size))

    async def _centre(self) -> None:
        image = self.session.image
        if image is not None:
            await self._take_image(centre(image))

    async def _next(self) -> None:
        images = await self.do(lambda: self.shelf.images(self.name))
        if images is not None:
            self.next_image += 1
            await self._take_image(images[(self.next_image - 1) % len(images)].clone())

    async def _open(self, event: events.UploadEventArguments) -> None:
        self.upload.reset()
        data = await event.file.read()
        if event.file.name.lower().endswith(".json"):
            if await self.do(lambda: self.session.from_json(data)) is not None:
                self.forget()
                self.show()
            return
        image = await self.do(lambda: open_image(data, self.config))
        if image is not None:
            await self._take_image(image)

    async def _show_all(self) -> None:
        await self.do(lambda: self.session.hide(None))
        self.forget()
        self._show_image()

    def _show_image(self) -> None:
        size = self.config.image_size
        image = self.session.image
        image = torch.zeros(self.config.channels, size, size) if image is None else image
        self.image_stage.set_source(uri(ink(image, self.session.mask)))
        guide = ""
        if not image.any():
            low, wide = size * 4 / 28, size * 20 / 28
            guide = f'<rect class="rnp-guide" x="{low}" y="{low}" width="{wide}" height="{wide}"/>'
        self.image_stage.set_content(f"{guide}<!--{next(self.numbers)}-->")
        self.show_all.set_visibility(not bool(self.session.mask.all()))

    # The parse ---------------------------------------------------------------------------------

    def _parse_card(self) -> None:
        with card("Parse", "Drag a frame, or one of its handles."):
            self.parse_stage = stage("Parse. Keys move the chosen part.")
            self.parse_stage.on("pointerdown", self._hold, js_handler=POINTER)
            self.parse_stage.on("keydown", self._stage_key, js_handler=KEY)
            self.parse_stage.on("keyup", self._stage_key, js_handler=KEY)
            with row():
                self.depth_choice = ui.toggle({1: "Parts"}, value=1, on_change=self._choose_depth)
                self.depth_choice.props('no-caps unelevated aria-label="Depth" role=group')
                self.framed = ui.switch("Frames", value=True, on_change=self.show)
            with row():
                self.step_label = ui.label().props("aria-hidden=true").classes("rnp-steps")
                self.step = ui.slider(min=0, max=4, step=1, value=4, on_change=self.show)
                self.step.props('markers snap aria-label="Steps of the program that are shown"')
                self.step.classes("rnp-grow")
            with row():
                self.undo_button = button("Undo", self.undo, "undo")
                self.redo_button = button("Redo", self.redo, "redo")
                self.again = button("Parse again", self._parse_again, "refresh")
            self.status = ui.label().classes("rnp-hint").props("role=status aria-live=polite")

    def _fit(self) -> None:
        """Fit depth, steps and numbers to the model."""
        depths = {1: "Parts", 2: "Sub-parts"}
        shown = {d: depths.get(d, f"Depth {d}") for d in range(1, self.config.depth + 1)}
        self.depth_choice.set_options(shown or {0: "Image"}, value=self.depth)
        self.session.react = bool(self.react.value)
        self.ink.set_visibility(self.config.channels == 3)
        self._fit_steps()
        self._name_parts()
        self._fit_numbers()
        self._choose_tool()
        self._show_others([])
        self.sample_row.clear()
        self.near_row.clear()
        self.forget()

    def _fit_steps(self) -> None:
        steps = 1
        for d in range(self.depth):
            steps *= self.config.steps[d]
        steps = steps if self.depth else 0
        self.step.props(f"max={steps}")
        self.step.set_value(steps)

    def _choose_depth(self) -> None:
        if self.depth_choice.value != self.depth:
            self.depth = self.depth_choice.value
            if self.chosen is not None:
                above = self.chosen.split("/")[: self.depth]
                self.chosen = "/".join(above + ["0"] * (self.depth - len(above)))
            self._fit_steps()
            self._name_parts()
            self.show()

    @torch.no_grad()
    def show(self, tree: Any = None) -> None:
        """Show the image, the parse and the numbers as they are.

        Args:
            tree: another parse than the session's, as while a frame is dragged.
        """
        if not isinstance(tree, ParseTree):  # a control's event is none
            self._show_image()
            tree = None
        session, size = self.session, self.config.image_size
        if tree is None and session.image is not None:
            tree = session.tree
        total = int(self.step.props["max"])
        steps = min(int(self.step.value), total)
        self.step_label.set_text(f"Steps: {steps} of {total}")
        if tree is None:
            self.parts = {}
            self.parse_stage.set_source(uri(torch.ones(size, size, 3)))
            self.parse_stage.set_content("")
            self.status.set_text("Nothing is drawn yet.")
        else:
            self.parts = {part.path: part for part in parts(tree, self.config, self.palette)}
            self.parse_stage.set_source(uri(painted(tree, self.depth, steps, self.palette)))
            self.parse_stage.set_content(self._frames(steps) if self.framed.value else "")
            self._describe(tree)
        self._show_numbers()

    def _frames(self, steps: int) -> str:
        here = [part for part in self.parts.values() if part.depth == self.depth][:steps]
        above = {part.path.rpartition("/")[0] for part in here}
        outer = [part for part in self.parts.values() if part.path in above]
        return frames(here, self.config.image_size, self.chosen, outer)

    def _describe(self, tree: ParseTree) -> None:
        image = self.session.image
        assert image is not None
        error = ((tree.canvas[0].cpu() - image).square() * self.session.mask).sum().item()
        edits = len(self.session.edits)
        done = f"; {edits} edit{'s' * (edits != 1)}" if edits else ""
        self.status.set_text(
            f"{len(tree)} parts; squared error {error:.1f} over {image.numel()} pixels{done}."
        )

    async def undo(self) -> None:
        """Take the last step back."""
        await self._travel(self.session.undo, "There is nothing to undo.")

    async def redo(self) -> None:
        """Take the last step that was undone again."""
        await self._travel(self.session.redo, "There is nothing to redo.")

    async def _travel(self, go: Callable[[], bool], nothing: str) -> None:
        went = await self.do(lambda: go() and (self.session.image is None or self.session.tree))
        if went is False:
            self.note(nothing)
        self._changed()
        self.forget()
        self.show()

    async def _parse_again(self) -> None:
        await self.do(self.session.parse)
        self.forget()
        self.show()

    # Parts -------------------------------------------------------------------------------------

    def _part_card(self) -> None:
        with card("Part", ""):
            self.part_row = row()
            self.number_box = ui.element("div").classes("rnp-numbers")
            self.react = ui.switch("Let later parts react", on_change=self._choose_react)
            with row():
                self.keep_switch = ui.switch("Keep this part", on_change=self._keep)
                button("Ask for the others", self._ask_others, "help_outline")
            with row():
                button("Remove", self._remove, "backspace")
                button("Nearest parts", self._nearest, "search")
            self.near_row = tile_row()

    def _name_parts(self) -> None:
        """Buttons for the parts, and for the chosen one's sub-parts where these are shown."""
        self.part_row.clear()
        self.part_buttons = {}
        if self.chosen is None:
            return
        path = self.chosen.split("/")
        with self.part_row:
            for depth in range(1, self.depth + 1):
                above = path[: depth - 1]
                for i in range(self.config.steps[depth - 1]):
                    name = "/".join([*above, str(i)])
                    chip = ui.button(name, on_click=partial(self.choose, name))
                    words = f"{'sub-' * (depth - 1)}part {name}".capitalize()
                    hue = to_hex(self.palette[int(name.split("/")[0]) % len(self.palette)])
                    chip.props(f'flat dense no-caps aria-label="{words}"').classes("rnp-chip")
                    chip.style(f"--rnp-hue: {hue}")
                    self.part_buttons[name] = chip
                ui.element("div").classes("rnp-break")
        self._press_parts()

    def _press_parts(self) -> None:
        for name, chip in self.part_buttons.items():
            pressed = self.chosen is not None and f"{self.chosen}/".startswith(f"{name}/")
            chip.props(f"aria-pressed={str(pressed).lower()}")
            part = self.parts.get(name)
            if part is not None:
                chip.style(f"--rnp-hue: {part.colour}")

    def choose(self, path: str) -> None:
        """Choose a part, which gets the handles.

        Args:
            path: as `1/3`.
        """
        if len(path.split("/")) < self.depth:
            path = "/".join(path.split("/") + ["0"] * (self.depth - len(path.split("/"))))
        before, self.chosen = self.chosen, path
        if path != before:
            self.near_row.clear()
        if before is None or before.rpartition("/")[0] != path.rpartition("/")[0]:
            self._name_parts()
        self.show()

    def _fit_numbers(self) -> None:
        box: Any = codomain(self.config)
        self.fields = []
        self.number_box.clear()
        if not self.depth:
            return
        with self.number_box:
            for i, field in enumerate(FIELDS):
                low, high = box.lower_bound[i].item(), box.upper_bound[i].item()
                label = FIELD_LABELS[field]
                bounds = f"{UNITS[field]}, from {low:.2f} to {high:.2f}"
                with ui.element("div").classes("rnp-number"):
                    with ui.element("div"):
                        ui.label(label)
                        ui.label(UNITS[field]).classes("rnp-unit")
                    slider = ui.slider(min=low, max=high, step=0.005, value=low)
                    slider.props(f'aria-label="{label}, {bounds}"')
                    number = ui.number(value=low, min=low, max=high, step=0.01, format="%.3f")
                    number.props(f'dense outlined debounce=300 aria-label="{label}: {bounds}"')
                    number.tooltip(f"{label}: {bounds}")
                slider.on_value_change(partial(self._slide, i))
                slider.on("change", self._let_go)
                number.on_value_change(partial(self._type, i))
                self.fields.append((slider, number))

    def _show_numbers(self) -> None:
        part = self.parts.get(self.chosen or "")
        self.filling = True
        for i, (slider, number) in enumerate(self.fields):
            for control in (slider, number):
                control.set_enabled(part is not None)
                if part is not None:
                    control.set_value(round(part.numbers[i].value, 3))
        self.keep_switch.set_value(part is not None and part.program in self.session.kept)
        self.keep_switch.set_enabled(part is not None)
        self.filling = False
        self._press_parts()

    def _slide(self, i: int, event: events.ValueChangeEventArguments) -> Any:
        return None if self.filling else self._set_number(i, event.value, "drag")

    def _type(self, i: int, event: events.ValueChangeEventArguments) -> Any:
        return None if self.filling else self._set_number(i, event.value, "up")

    async def _let_go(self) -> None:
        part = self.parts.get(self.chosen or "")
        if part is not None:
            await self._queue({"type": "up", "site": part.site, "values": None})

    async def _set_number(self, i: int, value: float | None, kind: str) -> None:
        part = self.parts.get(self.chosen or "")
        if part is None or value is None or abs(value - part.action[i]) < 1e-3:
            return
        values = list(part.action)
        values[i] = value
        await self._queue({"type": kind, "site": part.site, "values": bounded(part, values)})

    # Gestures ----------------------------------------------------------------------------------

    async def _hold(self, event: events.GenericEventArguments) -> None:
        path, _, handle = str(event.args.get("handle")).partition(" ")
        if path not in self.parts or not points(event.args):
            return
        (x0, y0), *_, (x1, y1) = [*points(event.args)] * 2
        kind = event.args.get("type")
        await self._queue({"type": kind, "path": path, "handle": handle, "by": (x1 - x0, y1 - y0)})

    async def _queue(self, gesture: dict[str, Any]) -> None:
        """Follow a gesture: what came later takes the place of what still waits."""
        if self.gestures and self.gestures[-1]["type"] == "drag":
            before = self.gestures.pop()
            if gesture.get("values", ()) is None and gesture["site"] == before.get("site"):
                gesture = {**gesture, "values": before["values"]}
        self.gestures.append(gesture)
        if self.turning:
            return
        self.turning = True
        try:
            while self.gestures:
                await self._follow(self.gestures.pop(0))
        finally:
            self.turning = False

    async def _follow(self, gesture: dict[str, Any]) -> None:
        kind, session = gesture["type"], self.session
        if "path" in gesture:
            if self.grabbed is None or self.grabbed.path != gesture["path"]:
                self.grabbed = self.parts.get(gesture["path"])
                if self.grabbed is None:
                    return
                if self.chosen != gesture["path"]:
                    self.choose(gesture["path"])
            site, (dx, dy) = self.grabbed.site, gesture["by"]
            still = abs(dx) + abs(dy) < 1e-3
            values: Sequence[float] = dragged(self.grabbed, gesture["handle"], dx, dy)
            if kind != "drag":
                self.grabbed = None
        else:
            site, values = gesture["site"], gesture["values"]
            part = self.parts.get(site.removeprefix("a/"))
            if part is None:  # of another image by now
                return
            if values is None:  # what was shown last is kept
                values = part.action
            kept = session.tree.sites()[site][0].tolist()
            still = kind == "up" and not moved(values, kept)
        if kind == "drag":
            self.show(await self.do(lambda: session.preview(site, values)))
        elif kind == "cancel" or still:
            self.show()
        else:
            await self.do(lambda: session.set(site, values))
            self.forget()
            self.show()

    async def _key(self, event: events.KeyEventArguments) -> None:
        if not event.action.keydown:
            return
        control = event.modifiers.ctrl or event.modifiers.meta
        if control and event.key.name in ("z", "Z", "y"):
            again = event.key.name != "z" or event.modifiers.shift
            await (self.redo() if again else self.undo())

    async def _stage_key(self, event: events.GenericEventArguments) -> None:
        """Follow a key that is pressed on the parse; its release keeps what it has done."""
        key, part = str(event.args), self.parts.get(self.chosen or "")
        if key == "keyup":
            await self._let_go()
        elif key == "Delete":
            await self._remove()
        elif key.isdigit():
            above = (self.chosen or "").rpartition("/")[0]
            name = f"{above}/{key}".lstrip("/")
            if name in self.parts:
                self.choose(name)
        elif part is not None and key in MOVES:
            values = list(part.action)
            for i, factor, more in MOVES[key]:
                values[i] = values[i] * factor + more
            await self._queue({"type": "drag", "site": part.site, "values": bounded(part, values)})

    def _choose_react(self) -> None:
        self.session.react = bool(self.react.value)

    def _keep(self, event: events.ValueChangeEventArguments) -> Any:
        return None if self.filling else self._keep_part(bool(event.value))

    async def _keep_part(self, keep: bool) -> None:
        part = self.parts.get(self.chosen or "")
        if part is None:
            return

        def work() -> None:
            change = self.session.keep if keep else self.session.release
            for site in (part.site, part.program):
                change(site)

        await self.do(work)
        self.forget()
        self.show()

    async def _remove(self) -> None:
        chosen = self.chosen
        if chosen is not None and chosen in self.parts:
            await self.do(lambda: self.session.remove(chosen))
            self.forget()
            self.show()
        else:
            self.note("Nothing is drawn yet.")

    async def _renew(self) -> None:
        """Go on with the weights that a run has now, where it was trained anew."""
        shelf, name, session = self.shelf, self.name, self.session
        rnp = await self.do(lambda: (shelf.model(name), shelf.line(name))[0], beside=True)
        if rnp is None or rnp is self.rnp or name != self.name:
            return

        def work() -> None:
            session.change(rnp, self._known(name))

        await self.do(work)
        self._changed()
        self.show()
        self.note("The run was trained anew; its new weights have parsed the image.")

    async def _nearest(self) -> None:
        await self._renew()
        part = self.parts.get(self.chosen or "")
        if part is None:
            self.note("Nothing is drawn yet.")
            return
        name, session, asked = self.name, self.session, (self.turn, self.chosen)
        images = await self.do(lambda: self.shelf.images(name), beside=True)
        if images is None:
            return
        found = await self.do(lambda: session.nearest(part.program, images, TILES), beside=True)
        if asked != (self.turn, self.chosen):  # something else is shown by now
            return
        self.near_row.clear()
        with self.near_row:
            for near in found or []:
                words = f"part {near.site[2:]} of image {near.image}"
                tile(ink(near.canvas), words, partial(self._take_image, images[near.image]))

    # What is hidden ----------------------------------------------------------------------------

    def _hidden_card(self) -> None:
        with card("What is hidden", "Hide a region of the image with the brush.", wide=True):
            with row():
                button("Ask", self.ask, "help_outline")
                self.stop_button = button("Stop", self._stop, "stop")
                self.busy = ui.spinner(size="1.4rem")
                self.trust = ui.label().classes("rnp-trust").props("role=status aria-live=polite")
            self.why = ui.label().classes("rnp-hint")
            self.answer_row = tile_row()

    def forget(self) -> None:
        """End the question, and take away all answers that belong to the state before."""
        self.turn += 1
        self.near_row.clear()
        self.walk_row.clear()
        self._forget_answers()

    def _forget_answers(self) -> None:
        self.questions += 1
        self.worker.cancel()
        self.asked = None
        self.answer_row.clear()
        self._trust("")
        self._busy(False)

    def _trust(self, text: str, why: str = "", mark: str = "") -> None:
        self.trust.set_text(text)
        self.trust.classes(add=mark, remove="rnp-good rnp-bad")
        self.why.set_text(why)

    def _busy(self, busy: bool) -> None:
        self.stop_button.set_visibility(busy)
        self.busy.set_visibility(busy)

    async def _stop(self) -> None:
        self.worker.cancel()
        self._busy(False)
        self._trust("Stopped.")

    async def _ask_others(self) -> None:
        await self.ask(others=True)

    async def ask(self, others: Any = False) -> None:
        """Ask for the posterior of what is hidden, and show its answers as they arrive.

        Args:
            others: True hides all pixels, and asks for what the parts that are kept tell.
        """
        others = others is True  # a control's event is not
        self._forget_answers()
        mine = self.questions
        question = await self.do(lambda: self.session.question(others))
        if question is None:
            return
        if mine != self.questions:  # another one, or a change, came meanwhile
            return
        self.asked = others
        self._busy(True)
        self._trust(f"At work: {ENGINES[question.methods[0]]} …")
        worker = self.worker
        try:
            async for answer in worker.answers(question):
                if mine == self.questions:
                    self._answer(answer, question.methods)
        except (ValueError, OSError) as error:
            if mine == self.questions:
                self._trust("No answer.", str(error), "rnp-bad")
        if mine == self.questions and not worker.busy:
            self._busy(False)

    def _answer(self, answer: Answer, methods: Sequence[str]) -> None:
        engine = ENGINES.get(answer.method, answer.method)
        last = ENGINES.get(methods[-1], methods[-1])
        more = "" if answer.method == methods[-1] else f" Still at work: {last} …"
        says, mark = ("Trusted", "rnp-good") if answer.trusted else ("Not to be trusted", "rnp-bad")
        self._trust(f"{says}: {engine}.{more}", " ".join(answer.notes), mark)
        self.answer_row.clear()
        with self.answer_row:
            tile(ink(answer.mean), "mean")
            tile(spread(answer.std), "spread")
            for i, sample in enumerate(answer.samples[:TILES]):
                take = partial(self._take_image, sample.clamp(0, 1))
                tile(ink(sample), f"sample {i}", take)

    # Other images ------------------------------------------------------------------------------

    def _others_card(self) -> None:
        with card("Another image", "Choose one, whose parts may replace yours."):
            button("Show test images", self._more_others, "grid_view")
            self.others_row = tile_row()
            with row():
                button("Exchange the part", self._exchange, "swap_horiz")
                button("Walk to it", self._walk, "trending_flat")
            self.walk_row = tile_row()

    async def _more_others(self) -> None:
        images = await self.do(lambda: self.shelf.images(self.name))
        if images is not None:
            start = self.next_image
            self.next_image += TILES
            self._show_others([images[(start + i) % len(images)] for i in range(TILES)])

    def _show_others(self, images: Iterable[Tensor]) -> None:
        self.others_row.clear()
        self.walk_row.clear()
        self.shown_images, self.other_tiles = list(images), []
        with self.others_row:
            for i, image in enumerate(self.shown_images):
                self.other_tiles.append(tile(ink(image), f"image {i}", partial(self._pick, i)))

    def _pick(self, i: int) -> None:
        self.other = self.shown_images[i]
        self.walk_row.clear()
        for j, one in enumerate(self.other_tiles):
            one.props(f"aria-pressed={str(i == j).lower()}")

    async def _exchange(self) -> None:
        chosen, other = self.chosen, self.other
        if other is None or chosen is None or chosen not in self.parts:
            self.note("Draw an image, and choose another one.")
            return
        await self.do(lambda: self.session.exchange(chosen, other))
        self.forget()
        self.show()

    async def _walk(self) -> None:
        other = self.other
        if other is None or self.session.image is None:
            self.note("Draw an image, and choose another one.")
            return
        turn, walk = self.turn, await self.do(lambda: self.session.walk(other, TILES))
        if turn == self.turn and other is self.other:
            self._trees(self.walk_row, walk, "step")

    def _trees(self, where: ui.element, tree: ParseTree | None, name: str) -> None:
        where.clear()
        with where:
            for i in range(0 if tree is None else len(tree.program)):
                assert tree is not None
                one = tree.map(partial(_one, i))
                image = one.canvas[0].clamp(0, 1)
                shown = painted(one, self.depth, None, self.palette)
                tile(shown, f"{name} {i}", partial(self._take_image, image))

    def _samples_card(self) -> None:
        with card("Samples of the prior", "Images that the model imagines."):
            button("Draw samples", self._sample, "casino")
            self.sample_row = tile_row()

    async def _sample(self) -> None:
        self._trees(self.sample_row, await self.do(lambda: self.session.sample(TILES)), "sample")

    # What can be taken away --------------------------------------------------------------------

    def _take_card(self) -> None:
        with (
            card(
                "Take it away",
                "Pictures; JSON, which Open a file reads again; Python lines that give the same.",
            ),
            row(),
        ):
            button("PNG", partial(self._picture, "png"), "image")
            button("SVG", partial(self._picture, "svg"), "image")
            button("JSON", self._json, "data_object")
            button("Python", self._code, "code")

    async def _picture(self, kind: str) -> None:
        depth, steps = self.depth or None, int(self.step.value)
        found = await self.do(lambda: self.session.picture(kind, self.palette, depth, steps))
        if found is not None:
            ui.download.content(found, f"parse.{kind}")

    async def _json(self) -> None:
        found = await self.do(self.session.to_json)
        if found is not None:
            ui.download.content(found, "parse.json")

    async def _code(self) -> None:
        session, others = self.session, bool(self.asked)
        asks = self.asked is not None or not session.mask.all()
        found = await self.do(lambda: session.code("smc" if asks else None, others))
        if found is not None:
            ui.download.content(found, "parse.py")


def bounded(part: Part, values: Sequence[float]) -> list[float]:
    """Numbers of an action within the model's bounds.

    Args:
        part: the part, which has the bounds.
        values: six numbers.
    """
    limits = [(number.low, number.high) for number in part.numbers]
    return [min(max(v, low), high) for v, (low, high) in zip(values, limits, strict=True)]


def moved(values: Sequence[float], kept: Sequence[float]) -> bool:
    """Whether the numbers of an action differ by more than rounding.

    Args:
        values: six numbers.
        kept: six others.
    """
    return max(abs(a - b) for a, b in zip(values, kept, strict=True)) > 1e-4


def _one(i: int, values: Tensor) -> Tensor:
    return values[i : i + 1]
