"""The parse tree: the one result of running programs, which training, queries and figures read."""

from __future__ import annotations

import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_rnp.affine import FIELDS, compose, decompose, inverse_matrix, matrix
from pyro_rnp.rendering import Renderer, Sheets

DRAWN = 256
"""Nodes of a level that a notebook draws at most of one image."""
Path = tuple[int, ...]
"""A part's place in the tree: () is the image, (0, 2) the third sub-part of the first part."""
COUNTING = "numbers count from 0: 0 is the first part, 0/2 its third sub-part"
"""How parts are numbered, for JSON files."""


def read_path(text: str) -> Path:
    """Read a part's path in the tree: `1` for the second part, `1/3` for its fourth sub-part.

    >>> read_path("1/3")
    (1, 3)

    Args:
        text: numbers, which count from 0, with slashes between.

    Raises:
        ValueError: if the text is anything else.
    """
    if not re.fullmatch(r"\d+(/\d+)*", text):
        raise ValueError(
            f"A part is written as 1, a sub-part as 1/3, not {text!r}; parts count from 0."
        )
    return tuple(int(i) for i in text.split("/"))


class Pose(NamedTuple):
    """Where parts lie in the frame of an image, or of a part above them, each number (N,).

    See `ParseTree.pose`.
    """

    x: Tensor
    """The centre, to the right: pixels from the left edge, or half-widths from the middle."""
    y: Tensor
    """The centre, downwards: pixels from the top edge, or half-widths from the middle."""
    width: Tensor
    """The size along the part's own x axis: pixels, or a share of the image's size."""
    height: Tensor
    """The size along the part's own y axis, before shear: pixels, or a share of the image's."""
    rotation: Tensor
    """Radians, clockwise, in [-pi, pi]."""
    shear: Tensor
    """Horizontal shift per unit of height, in the part's own frame."""


def site_name(kind: str, path: Path) -> str:
    """The name of a Pyro site.

    >>> site_name("z", ()), site_name("a", (0, 2))
    ('z', 'a/0/2')

    Args:
        kind: "z" for a program, "a" for an action.
        path: the part's path.
    """
    return "/".join([kind, *map(str, path)])


@dataclass(frozen=True, repr=False)
class ParseTree:
    """A batch of N images as programs: a node for the image, each part and each sub-part.

    Parts count from 0: `tree[1]` is the second part and `tree[1][3]` its fourth sub-part, as in the
    sites `z/1/3` and `a/1/3`; iterating gives the parts in the order in which the program places
    them.

    >>> from pyro_rnp import RNP, RNPConfig
    >>> config = RNPConfig(image_size=8, patch_size=4, steps=(2, 3), program_size=5)
    >>> tree = RNP(config).sample(7)
    >>> tree, tree[1][2].program.shape
    (ParseTree(level=2, parts=2, canvas=(7, 1, 8, 8)), torch.Size([7, 5]))

    Args:
        program: z^k, the vector that runs this node, (N, |z|); z^0 of a leaf.
        canvas: what the node draws in its own frame, (N, C, S, S); at the root the image before
            noise.
        action: where the parent places the node, (N, 6), in the units of `pyro_rnp.affine.FIELDS`;
            None at the root.
        own_decoding: the parent's decoding of a part that is itself a program, (N, C, P, P); None
            at the root and of a leaf, whose decoding is its canvas. Read `decoding`.
        children: the parts, in the order in which the program places them; () of a leaf.
        appearance: coefficients of a leaf's function of coordinates, (N, appearance), where
            placement is continuous; else None.
        renderer: makes the canvas of its children; `contributions` needs it.
    """

    program: Float[Tensor, "n z"]
    canvas: Float[Tensor, "n c s s"]
    action: Float[Tensor, "n 6"] | None = None
    own_decoding: Float[Tensor, "n c p p"] | None = None
    children: tuple[ParseTree, ...] = ()
    appearance: Float[Tensor, "n appearance"] | None = None
    renderer: Renderer | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        shape = tuple(self.canvas.shape)
        return f"ParseTree(level={self.level}, parts={len(self)}, canvas={shape})"

    def __getitem__(self, part: int) -> ParseTree:
        """A part, counted from 0.

        Raises:
            IndexError: if there is no such part.
        """
        n = len(self.children)
        if isinstance(part, int) and not -n <= part < n:
            known = f"these are 0 to {n - 1}" if n else "this one is a leaf"
            raise IndexError(f"There is no part {part}; {known}.")
        return self.children[part]

    def __len__(self) -> int:
        return len(self.children)

    def __iter__(self) -> Iterator[ParseTree]:
        return iter(self.children)

    @property
    def level(self) -> int:
        """k: K at the root, 0 at a leaf."""
        return 1 + self.children[0].level if self.children else 0

    @property
    def decoding(self) -> Float[Tensor, "n c p p"] | None:
        """D_θ(h_state), the parent's own decoding of this part; None at the root.

        A leaf's decoding is its canvas.
        """
        leaf = self.action is not None and not self.children
        return self.canvas if leaf and self.own_decoding is None else self.own_decoding

    @property
    def ink(self) -> Tensor | None:
        """The former name of `appearance`, for one release."""
        warnings.warn(_renamed("ink", "appearance"), DeprecationWarning, stacklevel=2)
        return self.appearance

    @property
    def painter(self) -> Renderer | None:
        """The former name of `renderer`, for one release."""
        warnings.warn(_renamed("painter", "renderer"), DeprecationWarning, stacklevel=2)
        return self.renderer

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, ParseTree]]:
        """Each node below and including this one, with its path, depth first.

        Args:
            path: this node's own path, with which all others begin.
        """
        yield path, self
        for i, child in enumerate(self.children):
            yield from child.walk((*path, i))

    def nodes(self, depth: int) -> list[ParseTree]:
        """The nodes at a depth, in the order of `walk`.

        Args:
            depth: levels below this node: 1 for parts, 2 for sub-parts.
        """
        return [node for path, node in self.walk() if len(path) == depth]

    def part(self, path: Path | int | str) -> ParseTree:
        """The node at a path.

        >>> from pyro_rnp import RNP, RNPConfig
        >>> tree = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 3))).sample(1)
        >>> tree.part((1, 2)) is tree[1][2], tree.part("1/2") is tree[1][2]
        (True, True)
        >>> tree.part((1, 3))
        Traceback (most recent call last):
        ValueError: There is no part 1/3: part 1 has 3 parts, 1/0 to 1/2, as parts count from 0.

        Args:
            path: from this node, (1, 2) or "1/2" for the third sub-part of the second part, 1 for
                the second part, () for the node itself; parts count from 0.

        Raises:
            ValueError: if there is none.
        """
        return self._chain(path)[-1]

    def _chain(self, path: Path | int | str) -> list[ParseTree]:
        """The nodes from this one down to the one at a path."""
        path = read_path(path) if isinstance(path, str) else path
        path, found = (path,) if isinstance(path, int) else tuple(path), [self]
        for depth, i in enumerate(path):
            node = found[-1]
            if not 0 <= i < len(node):
                above = "/".join(map(str, path[:depth]))
                raise ValueError(
                    f"There is no part {'/'.join(map(str, path))}: "
                    f"{f'part {above}' if above else 'the tree'} has {_numbers(len(node), above)}."
                )
            found.append(node[i])
        return found

    def pose(self, path: Path | int | str, pixels: bool = False) -> Pose:
        """Where a part lies in this node's frame, through all parts between them.

        >>> from pyro_rnp import RNP, RNPConfig
        >>> tree = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 3))).sample(7)
        >>> tree.pose((1, 2), pixels=True).x.shape
        torch.Size([7])

        Args:
            path: the part's, as `part` takes it: (1, 2) for the third sub-part of the second part,
                since parts count from 0; () is the whole frame.
            pixels: by default false, which gives the units of an action in the frame of this node:
                the centre in half-widths from the middle, the size as a share of the frame's.
                True gives the centre in pixels from the outer edges of the left column and the top
                row of this node's canvas, whose centres lie at 0.5, and the size in pixels.

        Returns:
            The centre `x` and `y`, `width`, `height`, `rotation` in radians and `shear`, each (N,).
            The frame is the parallelogram R(rotation) [[1, shear], [0, 1]] diag(width, height)
            around the centre.

        Raises:
            ValueError: if there is no such part.
        """
        to_here = torch.eye(2, 3).to(self.program).expand(len(self.program), -1, -1)
        for node in self._chain(path)[1:]:
            assert node.action is not None
            to_here = compose(to_here, matrix(node.action))
        width, height, rotation, shear, x, y = decompose(to_here).unbind(-1)
        if pixels:
            size = self.canvas.shape[-1]
            x, y = (1 + x) * size / 2, (1 + y) * size / 2
            width, height = width * size, height * size
        return Pose(x, y, width, height, rotation, shear)

    def sites(self) -> dict[str, Tensor]:
        """Programs (N, |z|), actions (N, 6) and the canvas under the names of their Pyro sites."""
        values = {"canvas": self.canvas}
        for path, node in self.walk():
            values[site_name("z", path)] = node.program
            if node.action is not None:
                values[site_name("a", path)] = node.action
        return values

    def matrices(self, depth: int) -> Float[Tensor, "n parts 2 3"]:
        """The maps from the frames of the nodes at a depth to this node's frame.

        Args:
            depth: levels below this node, in [1, level].
        """
        maps: Tensor | None = None
        for d in range(1, depth + 1):
            actions = [node.action for node in self.nodes(d) if node.action is not None]
            own = matrix(torch.stack(actions, 1))
            if maps is not None:
                above = [i for i, node in enumerate(self.nodes(d - 1)) for _ in node]
                maps = compose(maps[:, above], own)
            else:
                maps = own
        assert maps is not None
        return maps

    def contributions(self, depth: int) -> Float[Tensor, "n parts c s s"]:
        """The share of this node's canvas that each node at a depth draws; they sum to the canvas.

        A sub-part's share is its share of its part's canvas, placed and covered as that canvas is.

        Args:
            depth: levels below this node, in [1, level].

        Raises:
            ValueError: if the tree has no renderer, or no nodes at that depth.
        """
        if not 1 <= depth <= self.level:
            raise ValueError(f"depth must lie in [1, {self.level}], got {depth}.")
        if self.renderer is None:
            raise ValueError(
                "This tree has parts but no renderer, so it is unknown how they share a canvas; "
                "give it one by ParseTree(..., renderer=Renderer(config))."
            )
        size, renderer = self.canvas.shape[-1], self.renderer
        placed_here = sheets(self.children, renderer.composed)
        placed, seen = renderer.place(placed_here, size)
        if depth == 1 or renderer.composed:
            shown = (placed if seen is None else placed * seen).transpose(0, 1)
            return shown.unflatten(1, (len(self.nodes(depth)), -1)).sum(2)
        shares: list[Tensor] = []
        for i, (child, to_source) in enumerate(zip(self, placed_here.to_source, strict=True)):
            own = child.contributions(depth - 1)
            maps = to_source.repeat_interleave(own.shape[1], 0)
            share = renderer.placement.canvas(own.flatten(0, 1), maps, size)
            share = share.unflatten(0, own.shape[:2])
            shares.append(share if seen is None else share * seen[i].unsqueeze(1))
        return torch.cat(shares, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors in the tree."""
        return sum(t.nbytes for _, node in self.walk() for t in node._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        """The node's own tensors by field, each stored once."""
        names = ("program", "canvas", "action", "own_decoding", "appearance")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    def map(self, f: Callable[[Tensor], Tensor]) -> ParseTree:
        """The same tree with a function applied to each tensor.

        >>> from pyro_rnp import RNP, RNPConfig
        >>> config = RNPConfig(image_size=8, patch_size=4, steps=(2,), program_size=5)
        >>> RNP(config).sample(7).map(lambda t: t[:4]).canvas.shape
        torch.Size([4, 1, 8, 8])

        Args:
            f: takes a tensor (N, ...) to one (M, ...), with one M for all tensors.
        """
        own: dict[str, Any] = {name: f(value) for name, value in self._tensors().items()}
        return replace(self, **own, children=tuple(child.map(f) for child in self.children))

    def split(self, size: int) -> list[ParseTree]:
        """The batch in pieces, in order.

        Args:
            size: images in each piece; the last piece may have fewer.
        """
        own: dict[str, Any] = {name: value.split(size) for name, value in self._tensors().items()}
        below = [child.split(size) for child in self.children]
        return [
            replace(
                self,
                **{name: values[i] for name, values in own.items()},
                children=tuple(child[i] for child in below),
            )
            for i in range(len(own["program"]))
        ]

    @classmethod
    def join(cls, trees: Sequence[ParseTree]) -> ParseTree:
        """Trees as one batch, in order: the inverse of `split`.

        Args:
            trees: one or more, with the same parts and the same renderer.
        """
        own: dict[str, Any] = {
            name: torch.cat([getattr(tree, name) for tree in trees]) for name in trees[0]._tensors()
        }
        below = zip(*(tree.children for tree in trees), strict=True)
        return replace(trees[0], **own, children=tuple(map(cls.join, below)))

    def plot(
        self, images: Any = None, path: str | pathlib.Path | None = None, **options: Any
    ) -> Any:
        """Draw the parses; see `pyro_rnp.plotting.parse_figure`.

        Args:
            images: the images that were parsed, in any form that `rnp.parse` takes, for a row
                above; by default there is none.
            path: a .png, .svg or .pdf file to write; None writes nothing.
            options: as `parse_figure` takes them, such as `titles`.

        Returns:
            A matplotlib figure, which a notebook shows.
        """
        from pyro_rnp.plotting import parse_figure

        return parse_figure(self, path, images, **options)

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the text and a picture of the first images."""
        from pyro_rnp.plotting import SHOWN, html

        levels = [d for d in range(self.level + 1) if len(self.nodes(d)) <= DRAWN]
        few = self.map(lambda t: t[:SHOWN])
        return html(repr(self), lambda: few.plot(depth=max(levels)))

    def to_dict(self, image: int, name: Path = ()) -> dict[str, Any]:
        """One image's tree as JSON types.

        Args:
            image: index in the batch.
            name: this node's own path.

        Returns:
            `part`, the path from 0 ("0/2" is the first part's third sub-part) or "image";
            `intensity`, the sum of the canvas's pixels; `program`; `action`, by field in its units,
            except at the root; `parts`, if there are any.
        """
        node: dict[str, Any] = {
            "part": "/".join(map(str, name)) or "image",
            "intensity": self.canvas[image].detach().sum().item(),
            "program": self.program[image].tolist(),
        }
        if self.action is not None:
            node["action"] = dict(zip(FIELDS, self.action[image].tolist(), strict=True))
        if self.children:
            node["parts"] = [c.to_dict(image, (*name, i)) for i, c in enumerate(self)]
        return node


def sheets(parts: Sequence[ParseTree], composed: bool) -> Sheets:
    """The sheets that are placed for parts on the canvas of their parent.

    Args:
        parts: nodes with an action, one or more.
        composed: whether the leaves below a part are placed in its stead, by the product of their
            ancestors' inverse actions.

    Returns:
        A sheet for each part, or for each leaf, in the order in which they are placed.
    """
    maps = inverse_matrix(torch.stack([part.action for part in parts if part.action is not None]))
    looks = [part.appearance for part in parts if part.appearance is not None]
    if not (composed and any(part.children for part in parts)):
        pixels = torch.stack([part.canvas for part in parts])
        return Sheets(pixels, torch.stack(looks) if looks else None, maps)
    found = []
    for part, own in zip(parts, maps, strict=True):
        if part.children:
            below = sheets(part.children, composed)
            found.append(below._replace(to_source=compose(below.to_source, own)))
        else:
            look = None if part.appearance is None else part.appearance.unsqueeze(0)
            found.append(Sheets(part.canvas.unsqueeze(0), look, own.unsqueeze(0)))
    return Sheets.join(found)


def _numbers(count: int, above: str) -> str:
    """The parts that a node has, for a message.

    Args:
        count: how many.
        above: the node's path as text, "" at the root.
    """
    if not count:
        return "no parts"
    first, last = (f"{above}/{i}".lstrip("/") for i in (0, count - 1))
    named = f"{first} to {last}" if count > 1 else first
    return f"{count} part{'s' * (count > 1)}, {named}, as parts count from 0"


def _renamed(former: str, present: str) -> str:
    return f"ParseTree.{former} is now ParseTree.{present}."
