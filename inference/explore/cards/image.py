"""The image: a visitor draws, erases, hides, and opens files."""

from __future__ import annotations

from itertools import count
from weakref import proxy

import torch
from matplotlib.colors import is_color_like, to_hex, to_rgb
from nicegui import events, ui

from inference.explore.controls import POINTER, button, card, points, row, stage
from inference.explore.images import BYTES, brushed, centre, open_image, rasterise
from inference.explore.session import OtherModel
from inference.explore.view import ink, uri
from inference.explore.visit import Card, Visit
from pyro_rnp import ParseTree
from pyro_rnp.plotting import MISSING

TOOLS = {"draw": "Draw", "erase": "Erase", "hide": "Hide"}
BRUSH = 6.0
"""Width of what erases and hides, in pixels of 28."""
NOT_OPENED = f"Only image files and JSON of at most {BYTES >> 20} MiB are opened."


class ImageCard(Card):
    """The image that is parsed.

    Args:
        visit: what the cards share.
    """

    def __init__(self, visit: Visit) -> None:
        super().__init__(visit)
        self.numbers = count()
        here = proxy(self)  # FastAPI remembers the route of an upload after the page is gone
        with card("Image", "Draw with mouse, pen or finger, or drop an image file."):
            self.stage = stage("Image. Draw here with a pointer.")
            self.stage.on("pointerdown", self._stroke, js_handler=POINTER)
            self.upload = (
                ui.upload(
                    auto_upload=True,
                    max_file_size=BYTES,
                    on_upload=lambda event: here._open(event),
                    on_rejected=lambda: here.visit.note(NOT_OPENED, "warning"),
                )
                .props('accept=".json,image/*"')
                .classes("rnp-upload")
            )
            with row():
                self.tool = ui.toggle(TOOLS, value="draw", on_change=self.fit)
                self.tool.props('no-caps unelevated aria-label="Tool of the pointer" role=group')
            with row():
                ui.label("Width").props("aria-hidden=true")
                self.width = ui.slider(min=1, max=10, step=0.2, value=visit.line)
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
            self.tests = ui.label().classes("rnp-hint")

    def fit(self) -> None:
        """Take the width of the tool's line, and the colours that the model knows."""
        self.ink.set_visibility(self.visit.config.channels == 3)
        data = self.visit.shelf.data_name(self.visit.name)
        more = ", which come along; --data and --data-root take others" if data == "digits" else ""
        self.tests.set_text("" if data is None else f"Test images: {data}{more}.")
        self.width.set_value(self.visit.line if self.tool.value == "draw" else BRUSH)
        self._choose_pen()

    def show(self, tree: ParseTree | None) -> None:
        """Show the image, which stays while a frame is dragged."""
        visit, session = self.visit, self.visit.session
        if tree is not None and tree is not session.tree:
            return
        size, image = visit.config.image_size, session.image
        image = torch.zeros(visit.config.channels, size, size) if image is None else image
        self.stage.set_source(uri(ink(image, session.mask)))
        guide = ""
        if not image.any():
            low, wide = size * 4 / 28, size * 20 / 28
            guide = f'<rect class="rnp-guide" x="{low}" y="{low}" width="{wide}" height="{wide}"/>'
        self.stage.set_content(f"{guide}<!--{next(self.numbers)}-->")  # the trail goes
        self.show_all.set_visibility(not bool(session.mask.all()))

    def _choose_pen(self) -> None:
        config = self.visit.config
        colours = {"draw": "#000", "erase": "#fff", "hide": to_hex(MISSING)}
        if config.channels == 3:  # images in colour have a dark ground
            colours |= {"draw": to_hex(self._colour()), "erase": "#000"}
        width = self.width.value * config.image_size / 28
        self.stage.props(f'data-pen="{width:g} {colours[self.tool.value]}"')

    def _colour(self) -> tuple[float, float, float]:
        """The colour of the pen, as the model has it."""
        if self.visit.config.channels == 1 or not is_color_like(self.ink.value):
            return 1.0, 1.0, 1.0
        return to_rgb(self.ink.value)

    async def _stroke(self, event: events.GenericEventArguments) -> None:
        visit, session, config = self.visit, self.visit.session, self.visit.config
        found, tool, width = points(event.args), self.tool.value, self.width.value
        colour = torch.tensor(self._colour()).view(3, 1, 1)
        if not found:
            return

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
            session.draw(image, further=session.image is not None)
            return bool(session.tree)

        if await visit.do(work) is None:
            self.show(None)
            return
        visit.forget()
        visit.show()
        if tool == "hide":
            await visit.ask(False)

    async def _clear(self) -> None:
        await self.visit.edit(self.visit.session.clear)

    async def _centre(self) -> None:
        image = self.visit.session.image
        if not self.visit.session.mask.all():
            self.visit.note("Only an image that is seen whole is centred.")
        elif image is not None:
            await self.visit.take(centre(image))

    async def _next(self) -> None:
        for image in await self.visit.images(1):
            await self.visit.take(image)

    async def _open(self, event: events.UploadEventArguments) -> None:
        visit = self.visit
        self.upload.reset()
        data = await event.file.read()
        if event.file.name.lower().endswith(".json"):
            await self._open_json(data)
            return
        image = await visit.do(lambda: open_image(data, visit.config))
        if image is not None:
            await visit.take(image)

    async def _open_json(self, data: bytes) -> None:
        visit = self.visit

        def work() -> ParseTree | OtherModel:
            try:
                return visit.session.from_json(data)
            except OtherModel as other:
                if other.name in visit.shelf.names():
                    return other
                raise

        found = await visit.do(work)
        if isinstance(found, OtherModel):
            if not await visit.change(found.name):
                return
            visit.note(f"This is a parse of the model {found.name}, which is chosen now.")
            found = await visit.do(work)
        if found is not None:
            visit.forget()
            visit.show()

    async def _show_all(self) -> None:
        await self.visit.edit(lambda: self.visit.session.hide(None))
