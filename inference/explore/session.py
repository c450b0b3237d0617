"""What one visitor has drawn and done: an image, its parse, edits, hidden pixels and kept parts."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inference.explore.images import open_image, png, rounded
from inference.explore.lines import (
    lines_of_image,
    lines_of_images,
    lines_of_model,
    lines_of_question,
    lines_of_sites,
    rows_of,
    with_imports,
)
from inference.explore.nearest import Near, nearest_parts
from inference.explore.questions import Answer, Question, answer
from inference.explore.steps import up_to
from inference.isolation import frozen
from inference.plotting import COLOURS, parse_figure
from inference.posterior import graft, intervene, remove
from inference.posterior.evidence import site_value
from pyro_rnp import RNP, ParseTree
from pyro_rnp.affine import FIELDS, UNITS
from pyro_rnp.parse_tree import COUNTING, Path, read_path, site_name
from pyro_rnp.plotting.figure import FORMATS, to_bytes
from pyro_rnp.sites import is_random, sites

HISTORY = 50
"""Steps that can be undone."""
NUMBER = 8
"""Images that are sampled, walked through or found, by default."""
JSON_BYTES = 50 * 2**20
"""The most that a JSON text may have."""


class OtherModel(ValueError):
    """A JSON is that of another model.

    Args:
        name: the model's, as `open_model` takes it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"This is the parse of the model {name}; choose that model first.")
        self.name = name


class Edit(NamedTuple):
    """One intervention."""

    values: Mapping[str, Tensor]
    """Values, (d,), by site."""
    react: bool

    def undone_by(self, values: Mapping[str, Tensor]) -> bool:
        """Whether another edit, to which nothing reacts, leaves nothing of this one.

        Args:
            values: of the other edit.
        """
        return not self.react and all(site[0] == "a" and site in values for site in self.values)


class Step(NamedTuple):
    """The canvas after a step of the program."""

    site: str
    """Of the part that was placed last, as `a/1`; "" before the first one."""
    canvas: Float[Tensor, "c s s"]


@dataclass(frozen=True)
class _State:
    """All that can be undone."""

    rnp: RNP
    name: str | None
    image: Tensor | None = None
    seen: Tensor | None = None
    missing: Tensor | None = None
    """Pixels that the image lacks, which stay hidden."""
    tree: ParseTree | None = None
    edits: tuple[Edit, ...] = ()
    kept: frozenset[str] = frozenset()


class Session:
    """One visitor's image, parse and edits.

    >>> from pyro_rnp import RNPConfig
    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 1), program_size=3))
    >>> session = Session(rnp)
    >>> session.draw(torch.rand(1, 8, 8))
    >>> tree = session.move("a/1", [0.3, 0.3, 0.0, 0.0, 0.5, 0.0])
    >>> session.undo(), session.edits, session.redo(), len(session.edits)
    (True, (), True, 1)

    Args:
        rnp: the model.
        seed: of samples and questions.
        name: of the model as `open_model` takes it, for `code`; by default the code expects `rnp`.

    Attributes:
        react: whether parts that the program places later react to the next edits.
    """

    def __init__(self, rnp: RNP, *, seed: int = 0, name: str | None = None) -> None:
        self.seed, self.react = seed, False
        self._past: list[_State] = []
        self._now = _State(rnp, name)
        self._future: list[_State] = []
        self._drawn = 0

    # What there is -----------------------------------------------------------------------------

    @property
    def rnp(self) -> RNP:
        """The model."""
        return self._now.rnp

    @property
    def name(self) -> str | None:
        """The model's name as `open_model` takes it; None where it has none."""
        return self._now.name

    @property
    def image(self) -> Float[Tensor, "c s s"] | None:
        """The image that is parsed; None before anything is drawn."""
        return self._now.image

    @property
    def mask(self) -> Bool[Tensor, "s s"]:
        """True where a pixel is seen."""
        size = self.rnp.config.image_size
        seen = self._now.seen
        return torch.ones(size, size, dtype=torch.bool) if seen is None else seen

    @property
    def tree(self) -> ParseTree:
        """The parse after all edits, of one image.

        Raises:
            ValueError: if nothing is drawn yet.
        """
        if self._now.tree is None:
            tree = self.rnp.parse(self._image().unsqueeze(0))
            self._now = replace(self._now, tree=tree)
        assert self._now.tree is not None
        return self._now.tree

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The interventions since the image was parsed, in order."""
        return self._now.edits

    @property
    def kept(self) -> list[str]:
        """The sites that questions hold at their present values.

        Those of parts that were removed since are not among them: no model places parts so far out.
        """
        return sorted(site for site in self._now.kept if not self._is_removed(site))

    def _is_removed(self, site: str) -> bool:
        """Whether a site belongs to a part beyond the bounds of actions, or lies within one."""
        path, limit = self._path(site), 1.001 * self.rnp.config.max_translation
        nodes = [self.tree.part(path[:i]) for i in range(1, len(path) + 1)]
        return any(
            abs(node.action[0, 4].item()) > limit for node in nodes if node.action is not None
        )

    def _image(self) -> Tensor:
        if self._now.image is None:
            raise ValueError("Nothing is drawn yet.")
        return self._now.image

    # Undo --------------------------------------------------------------------------------------

    def _go(self, state: _State) -> None:
        self._past = [*self._past[-HISTORY + 1 :], self._now]
        self._now, self._future = state, []

    def undo(self) -> bool:
        """Take the last step back; false where there is none."""
        return self._swap(self._past, self._future)

    def redo(self) -> bool:
        """Take the last step that was undone again; false where there is none."""
        return self._swap(self._future, self._past)

    def _swap(self, taken: list[_State], given: list[_State]) -> bool:
        if taken:
            given.append(self._now)
            self._now = taken.pop()
            return True
        return False

    # Image and parse ---------------------------------------------------------------------------

    def draw(self, image: Float[Tensor, "c s s"], further: bool = False) -> None:
        """Begin with another image, of which everything is seen and no part is kept.

        Pixels are rounded to multiples of 1/255, so that files hold the image exactly.

        Args:
            image: as the model reads it, in [0, 1]; a pixel that is NaN is blank, and hidden.
            further: whether it is the present image with more or less on it: pixels that are
                hidden or missing stay so.

        Raises:
            ValueError: if the model does not read such images.
        """
        found = self.rnp.check(torch.as_tensor(image).unsqueeze(0))[0].cpu().float()
        missing = found.isnan().any(0)
        seen = ~missing & self.mask if further else ~missing
        if further and self._now.missing is not None:
            missing = missing | self._now.missing
        found = rounded(found.nan_to_num())
        self._go(_State(self.rnp, self.name, image=found, seen=seen, missing=missing))

    def clear(self) -> None:
        """Begin with nothing drawn; the image before comes back by `undo`."""
        self._go(_State(self.rnp, self.name))

    def change(self, rnp: RNP, name: str | None = None) -> None:
        """Go on with another model, which parses the image anew, without edits and kept parts.

        An image of another size or with other channels is read as `open_image` reads a file.

        Args:
            rnp: the model.
            name: as `Session` takes it.

        Raises:
            ValueError: if the model does not read the image; then nothing changes.
        """
        now = self._now
        if now.image is None:
            self._go(_State(rnp, name))
            return
        image = open_image(png(now.image), rnp.config, invert=False)
        size = rnp.config.image_size
        tree = rnp.parse(image.unsqueeze(0))
        self._go(
            _State(rnp, name, image, _resized(now.seen, size), _resized(now.missing, size), tree)
        )

    def parse(self) -> ParseTree:
        """Parse the image, without the edits so far.

        Raises:
            ValueError: if nothing is drawn yet.
        """
        self._image()
        if self._now.edits:
            self._go(replace(self._now, tree=None, edits=()))
        return self.tree

    # Edits -------------------------------------------------------------------------------------

    def preview(self, site: str, values: Sequence[float] | Tensor) -> ParseTree:
        """Return the tree with a site set, while a frame is dragged; nothing is kept.

        Args:
            site: as for `set`.
            values: as for `set`.

        Raises:
            ValueError: as `set`.
        """
        return self._intervened({site: self._value(site, values)})

    def move(self, site: str, action: Sequence[float] | Tensor) -> ParseTree:
        """Place a part by an action.

        Args:
            site: the action's, as `a/1/3`.
            action: six numbers in the units of `pyro_rnp.affine.UNITS`, within the model's bounds.

        Returns:
            The tree after the edit.

        Raises:
            ValueError: in one sentence, if there is no such site, or a number is out of its bounds.
        """
        if not site.startswith("a/"):
            raise ValueError(f"A part is moved by its action, as a/1, got {site!r}.")
        return self.set(site, action)

    def set(self, site: str, values: Sequence[float] | Tensor) -> ParseTree:
        """Set a site: an action, or a program.

        Args:
            site: as `a/1` or `z/1/3`.
            values: as many numbers as the site has, within the model's bounds.

        Returns:
            The tree after the edit.

        Raises:
            ValueError: in one sentence, if there is no such site, or the values do not fit it.
        """
        return self._edit({site: self._value(site, values)})

    def remove(self, part: str) -> ParseTree:
        """Take a part away.

        Args:
            part: its path, as `1/3`.

        Returns:
            The tree after the edit.

        Raises:
            ValueError: if there is no such part.
        """
        action = self.tree.part(part).action
        assert action is not None
        return self._edit({f"a/{part}": remove(action[0], self.rnp.config)})

    def exchange(
        self,
        part: str,
        other_image: Float[Tensor, "c s s"],
        other_part: str | None = None,
        *,
        pose: bool = False,
    ) -> ParseTree:
        """Put a part of another image in the place of one of this image.

        Args:
            part: the path of the part that goes, as `1/3`.
            other_image: as the model reads it.
            other_part: the path of the part that comes, of the same level; by default the same.
            pose: whether it comes with its own place.

        Returns:
            The tree after the edit.

        Raises:
            ValueError: if there is no such part, or the model does not read such images.
        """
        other = self.rnp.parse(torch.as_tensor(other_image).unsqueeze(0))
        source, at = read_path(other_part or part), read_path(part)
        return self._edit({k: v[0] for k, v in graft(other, source, at, pose).items()})

    def _value(self, site: str, values: Any) -> Tensor:
        return site_value(self.rnp.config, site, torch.as_tensor(values).to(self.tree.program))

    def _intervened(self, values: Mapping[str, Tensor]) -> ParseTree:
        return intervene(self.rnp, self.tree, values, react=self.react)

    def _edit(self, values: Mapping[str, Tensor]) -> ParseTree:
        tree, edits = self._intervened(values), self._now.edits
        if edits and edits[-1].undone_by(values) and not self.react:
            edits = edits[:-1]
        edits = (*edits, Edit(dict(values), self.react))
        self._go(replace(self._now, tree=tree, edits=edits))
        return tree

    # Questions ---------------------------------------------------------------------------------

    def hide(self, mask: Bool[Tensor, "s s"] | None) -> None:
        """Hide pixels, beside those that are hidden already.

        Args:
            mask: True where a pixel is to be hidden; None shows all pixels that there are.

        Raises:
            ValueError: if the mask has another shape than the image.
        """
        if mask is None:
            missing = self._now.missing
            self._go(replace(self._now, seen=None if missing is None else ~missing))
            return
        hidden = torch.as_tensor(mask).bool()
        if hidden.shape != self.mask.shape:
            raise ValueError(
                f"The mask must have shape {tuple(self.mask.shape)}, got {tuple(hidden.shape)}."
            )
        self._go(replace(self._now, seen=self.mask & ~hidden))

    def keep(self, *sites: str) -> None:
        """Hold sites at their present values in questions from now on.

        Args:
            sites: as `a/1` or `z/1`.

        Raises:
            ValueError: if there is no such site, or its part was removed; then nothing changes.
        """
        for site in sites:
            if self._is_removed(site):
                raise ValueError(
                    f"Part {site[2:]} was removed; undo that before you keep the part."
                )
        self._go(replace(self._now, kept=self._now.kept | {*sites}))

    def release(self, *sites: str) -> None:
        """Hold sites no more.

        Args:
            sites: as for `keep`.

        Raises:
            ValueError: if there is no such site; then nothing changes.
        """
        for site in sites:
            self._path(site)
        self._go(replace(self._now, kept=self._now.kept - {*sites}))

    def _path(self, site: str) -> Path:
        """The path of a site's part.

        Raises:
            ValueError: if the model has no such site.
        """
        is_random(self.rnp.config, site)
        return tuple(map(int, site.split("/")[1:]))

    def question(self, others: bool = False, **options: Any) -> Question:
        """What is hidden, given what is seen and which parts are kept; for `Worker.ask`.

        Args:
            others: whether to ask what the kept parts alone tell of the others: nothing is seen.
            options: other fields of `Question`, such as `num_samples`.

        Raises:
            ValueError: if nothing is drawn yet; or of `others`, if no part is kept.
        """
        if others and not self.kept:
            raise ValueError("No part is kept; keep one first.")
        values, seen = self.tree.sites(), self.mask
        given = {site: values[site][0].cpu() for site in self.kept}
        if given:  # which the guide cannot hold
            options = {"methods": ("importance", "smc"), **options}
        seen = torch.zeros_like(seen) if others else seen
        return Question(image=self._image(), seen=seen, given=given, seed=self.seed, **options)

    def complete(self, method: str = "smc", others: bool = False, **options: Any) -> Answer:
        """Ask what is hidden, and wait for the answer.

        Args:
            method: the engine, as `query` takes it.
            others: as for `question`.
            options: as for `question`.

        Raises:
            ValueError: as `query` or `question`.
        """
        return answer(self.rnp, self.question(others, **options), method)

    def sample(self, num: int = NUMBER) -> ParseTree:
        """Draw images of the prior, other ones at each call.

        Args:
            num: how many.

        Returns:
            The tree of `num` images.
        """
        self._drawn += 1
        with frozen(self.rnp, self.seed + self._drawn):
            return self.rnp.sample(num)

    def walk(self, other_image: Float[Tensor, "c s s"], num: int = NUMBER) -> ParseTree:
        """Run programs on the straight line from the present program to that of another image.

        Args:
            other_image: as the model reads it.
            num: how many, both ends included.

        Returns:
            The tree of `num` images.

        Raises:
            ValueError: if the model does not read such images, or `num` is below 2.
        """
        other = self.rnp.parse(torch.as_tensor(other_image).unsqueeze(0))
        return self.rnp.interpolate(self.tree.program[0], other.program[0], num)

    def nearest(self, site: str, images: Float[Tensor, "n c s s"], num: int = NUMBER) -> list[Near]:
        """Find the parts of other images that draw most alike.

        Args:
            site: of the part, as `a/1` or `z/1`.
            images: as the model reads them; it takes long the first time that they are asked about.
            num: how many, at most.

        Returns:
            Parts of the same level, the nearest first.

        Raises:
            ValueError: if there is no such part, or the model does not read such images.
        """
        return nearest_parts(self.rnp, self.tree, site, images, num)

    # What can be taken away --------------------------------------------------------------------

    def steps(self, depth: int = 1) -> list[Step]:
        """Return the blank canvas, and the canvas after each step of the program.

        Args:
            depth: 1 for a step a part, 2 for a step a sub-part.

        Raises:
            ValueError: if nothing is drawn yet.
        """
        tree = self.tree
        found = [Step("", torch.zeros_like(tree.canvas[0]).cpu())]
        for path, _ in tree.walk():
            if len(path) == depth:
                found.append(Step(site_name("a", path), up_to(tree, path).canvas[0].cpu()))
        return found

    def picture(
        self,
        format: str = "png",
        palette: Sequence[Any] = COLOURS,
        depth: int | None = None,
        steps: int | None = None,
    ) -> bytes:
        """Draw the image, hidden pixels in a colour of their own, and its parse into a file.

        Args:
            format: png, svg or pdf.
            palette: colours of the parts, in their order.
            depth: levels to draw, 1 for parts alone; by default all.
            steps: how many parts of that depth are there, in the program's order; by default all.

        Returns:
            The file's content.

        Raises:
            ValueError: if there is no such format.
        """
        if f".{format}" not in FORMATS:
            raise ValueError(f"format must be png, svg or pdf, got {format!r}.")
        tree, image = self.tree, self._image().masked_fill(~self.mask, torch.nan).unsqueeze(0)
        paths = [path for path, _ in tree.walk() if len(path) == (depth or tree.level)]
        if tree.level and steps is not None and steps < len(paths):
            blank = replace(tree, children=(), canvas=torch.zeros_like(tree.canvas))
            tree = up_to(tree, paths[steps - 1]) if steps else blank
        figure = parse_figure(tree, images=image, palette=palette, depth=depth)
        return to_bytes(figure, f".{format}")

    def to_json(self) -> str:
        """Write image, parse, hidden pixels and kept sites as JSON.

        The entries `parts`, `units` and `tree` are those of `pyro-rnp parse`.
        """
        missing = self._now.missing
        found = {
            "model": self.name,
            "image": base64.b64encode(png(self._image())).decode(),
            "seen": rows_of(self.mask),
            "missing": rows_of(torch.zeros_like(self.mask) if missing is None else missing),
            "kept": self.kept,
            "parts": COUNTING,
            "units": UNITS,
            "tree": self.tree.to_dict(0),
        }
        return json.dumps(found, indent=2)

    def from_json(self, text: str | bytes) -> ParseTree:
        """Go to what `to_json` wrote, or to a parse of `pyro-rnp parse`.

        Args:
            text: the JSON; without an image the canvas is taken for it.

        Returns:
            The tree.

        Raises:
            OtherModel: if the text is the parse of a model of another name.
            ValueError: in one sentence, if the text is not the parse of such a model.
        """
        if len(text) > JSON_BYTES:
            raise ValueError(f"The JSON is too long; at most {JSON_BYTES / 2**20:g} MiB are read.")
        config = self.rnp.config
        try:
            found = json.loads(text)
            lists = _sites(found["tree"])
            stored = base64.b64decode(found["image"]) if "image" in found else None
            seen = _mask(found.get("seen", ["1" * config.image_size] * config.image_size))
            missing = _mask(found.get("missing", ["0" * len(row) for row in seen]))
            model = found.get("model")
            if not isinstance(model, str | None):
                raise TypeError("A model's name is text.")
            kept = frozenset(_list(found.get("kept", []), str))
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise ValueError("This is not the JSON of a parse.") from error
        if model and self.name and os.path.realpath(model) != os.path.realpath(self.name):
            raise OtherModel(model)
        sizes = {seen.shape, missing.shape, self.mask.shape}
        if lists.keys() != sites(config).keys() or len(sizes) > 1:
            raise ValueError("This is the parse of a model with other parts, or of another size.")
        for site in kept:
            self._path(site)
        like = next(self.rnp.parameters())
        values = {
            site: site_value(config, site, torch.tensor(value).to(like), bounds=False).cpu()
            for site, value in lists.items()
        }
        image = torch.zeros(config.channels, *seen.shape)
        if stored is not None:
            image = open_image(stored, config, invert=False)
        tree = self.rnp.parse(image.unsqueeze(0))
        edits: tuple[Edit, ...] = ()
        if stored is None or not _same(tree, values):
            tree, edits = intervene(self.rnp, tree, values), (Edit(values, False),)
            if not tree.canvas.isfinite().all():
                raise ValueError(
                    "The parse has numbers that are too large or too small to be drawn."
                )
        if stored is None:
            image = rounded(tree.canvas[0].cpu().float())
        seen = seen & ~missing
        self._go(_State(self.rnp, self.name, image, seen, missing, tree, edits, kept))
        return tree

    def code(
        self,
        method: str | None = None,
        others: bool = False,
        *,
        samples: int = 0,
        walk: Float[Tensor, "c s s"] | None = None,
        nearest: str | None = None,
        images: Mapping[str, str] | None = None,
        **options: Any,
    ) -> str:
        """Return Python lines that give the same tree, and the same answers.

        They define `rnp` (which they expect where the model has no name), `image`, `tree` and, if
        asked for, `posterior` with the `samples` that `complete` gives, `prior`, `walk` and `near`.

        Args:
            method: the engine of the question, as `complete` takes it; by default none is asked.
            others: as for `question`.
            samples: how many images of the prior, as `sample` drew them last; 0 for none.
            walk: the other image of a walk, as `walk` takes it; pixels are multiples of 1/255.
            nearest: site of the part whose nearest parts are found, as `nearest` takes it.
            images: arguments by name with which `images_for` gives the images that are looked
                through; by default the lines expect `images`.
            options: as for `question`.

        Raises:
            ValueError: as `question`.
        """
        lines = [] if self.name is None else lines_of_model(self.name)
        lines += lines_of_image("image", self._image())
        lines += ["tree = rnp.parse(image.unsqueeze(0))"]
        for values, react in self.edits:
            more = ", react=True" if react else ""
            lines += [f"tree = intervene(rnp, tree, {lines_of_sites(values)}{more})"]
        if method is not None:
            lines += lines_of_question(self.question(others, **options), method)
        if samples:
            seed = self.seed + self._drawn
            lines += ["", f"torch.manual_seed({seed})", f"prior = rnp.sample({samples})"]
        if walk is not None:
            lines += lines_of_image("other", walk)
            ends = "tree.program[0], rnp.parse(other.unsqueeze(0)).program[0]"
            lines += [f"walk = rnp.interpolate({ends}, {NUMBER})"]
        if nearest is not None:
            lines += [""] if images is None else lines_of_images(self.name, images)
            lines += [f"near = nearest_parts(rnp, tree, {nearest!r}, images, {NUMBER})"]
        return with_imports(lines)


def _same(tree: ParseTree, values: Mapping[str, Tensor]) -> bool:
    """Whether a tree has these values, (d,) by site."""
    own = tree.sites()
    return all(torch.equal(own[site][0].cpu(), value) for site, value in values.items())


def _resized(mask: Tensor | None, size: int) -> Tensor | None:
    """A mask at another size."""
    if mask is None or len(mask) == size:
        return mask
    at = torch.arange(size) * len(mask) // size
    return mask[at][:, at]


def _list(found: Any, *kinds: type) -> list[Any]:
    """A list of JSON, all of whose entries are of these types; true and false are no numbers.

    Raises:
        TypeError: if it is something else.
    """
    if not isinstance(found, list) or not all(type(one) in kinds for one in found):
        raise TypeError(f"This must be a list of {kinds}.")
    return found


def _mask(rows: Any) -> Tensor:
    """A mask that `rows_of` wrote.

    Raises:
        ValueError, TypeError: if it is something else.
    """
    return torch.tensor([[pixel == "1" for pixel in row] for row in _list(rows, str)])


def _sites(node: Mapping[str, Any]) -> dict[str, list[float]]:
    """Values by site of a tree's JSON."""
    path = "" if node["part"] == "image" else f"/{node['part']}"
    found = {f"z{path}": [float(x) for x in _list(node["program"], int, float)]}
    if path:
        action = [node["action"][field] for field in FIELDS]
        found[f"a{path}"] = [float(x) for x in _list(action, int, float)]
    for part in _list(node.get("parts", []), dict):
        below = _sites(part)
        if found.keys() & below.keys():
            raise ValueError("A part is there twice.")
        found |= below
    return found
