"""The controls of the page: cards, rows, buttons, stages and small pictures, each with a name."""

from __future__ import annotations

from typing import Any

from nicegui import ui
from torch import Tensor

from inference.explore.view import uri

POINTER = "(event) => rnpPointer(event, emit)"
"""Hands what a pointer does to `pointer.js`."""
KEY = """(event) => {
  const known = /^(Arrow(Left|Right|Up|Down)|Delete|[-+=0-9\\[\\]])$/.test(event.key);
  if (!known || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.currentTarget.held = event.type === "keydown";
  emit(event.type === "keyup" ? "keyup" : event.key);
}"""
"""Hands keys that move a part to the server."""
BLUR = """(event) => {
  if (event.currentTarget.held) emit("keyup");
  event.currentTarget.held = false;
}"""
"""Releases a key that is held when another control is gone to, which gets its release."""


def points(args: Any) -> list[tuple[float, float]]:
    """Return the points of a pointer's event; none where it has something else.

    Args:
        args: what the browser sent.
    """
    found = args.get("points") if isinstance(args, dict) else None
    try:
        return [(float(x), float(y)) for x, y in found or ()]
    except (TypeError, ValueError):
        return []


def card(title: str, hint: str, wide: bool = False) -> ui.element:
    """Make a card with a title and a sentence.

    Args:
        title: also its name for screen readers.
        hint: the sentence; "" is none.
        wide: whether it takes a whole row.
    """
    section = ui.element("section").classes("rnp-card" + " rnp-wide" * wide)
    section.props(f'aria-label="{title}"')
    with section:
        ui.html(title, tag="h2", sanitize=False)
        if hint:
            ui.label(hint).classes("rnp-hint")
    return section


def row() -> ui.element:
    """Make a row of controls beside one another, in as many lines as they need."""
    return ui.element("div").classes("rnp-row")


def tile_row() -> ui.element:
    """Make a row of pictures."""
    return ui.element("div").classes("rnp-tiles")


def stage(words: str) -> ui.interactive_image:
    """Make a picture that a pointer draws on, or whose parts it takes hold of.

    Args:
        words: its name for screen readers.
    """
    made = ui.interactive_image(sanitize=False).classes("rnp-stage")
    return made.props(f'tabindex=0 role=application aria-label="{words}"')


def button(words: str, does: Any, icon: str, flat: bool = False) -> ui.button:
    """Make a button with words, by which a screen reader names it.

    Args:
        words: its name.
        does: what is called.
        icon: of Material's.
        flat: whether it has no border.
    """
    kind = "flat" if flat else "outline"
    return (
        ui.button(words, on_click=does, icon=icon)
        .props(f"{kind} no-caps dense")
        .classes("rnp-button")
    )


def name_list(select: ui.select, words: str) -> None:
    """Name the list of a select for screen readers, which Quasar leaves without a name.

    Args:
        select: the select.
        words: the list's name.
    """
    named = f"""() => {{
      const name = frames => {{
        const list = document.querySelector("[role=listbox]:not([aria-label])")
        if (list) list.setAttribute("aria-label", "{words}")
        else if (frames) requestAnimationFrame(() => name(frames - 1))
      }}
      requestAnimationFrame(() => name(60))
    }}"""
    select.on("popup-show", js_handler=named)


def tile(rgb: Tensor, words: str, does: Any = None) -> ui.element:
    """Make a small picture with a name, below it a link that takes it away as a PNG file.

    Args:
        rgb: the picture, (H, W, 3) in [0, 1].
        words: its name.
        does: what is called when it is pressed; None makes it no button.

    Returns:
        The picture with its name.
    """
    source = uri(rgb)
    with ui.element("div").classes("rnp-tile"):
        made = ui.element("div" if does is None else "button")
        if does is not None:
            made.on("click", does).props("type=button")
        with made:
            ui.element("img").props(f'src="{source}" alt=""')
            ui.label(words)
        link = ui.element("a").props(f'href="{source}" download="{words}.png"')
        with link.props(f'aria-label="PNG of {words}"'):
            ui.label("PNG").props("aria-hidden=true")
    return made
