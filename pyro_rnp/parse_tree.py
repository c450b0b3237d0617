"""The parse tree: the one result of running programs, which training, queries and figures read."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_rnp.affine import FIELDS, compose, inverse_matrix, matrix
from pyro_rnp.rendering import Renderer, Sheet

DRAWN = 256
"""Nodes of a level that a notebook draws at most of one image."""
Path = tuple[int, ...]
"""A part's place in the tree: () is the image, (0, 2) the third sub-part of the first part."""


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

    `tree[1]` is the second part and `tree[1][3]` its fourth sub-part, as in the sites `z/1/3` and
    `a/1/3`; iterating gives the parts in the order in which the program places them.

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
        maps: list[Tensor] = []
        for child in self.children:
            assert child.action is not None
            own = matrix(child.action)
            below = [] if depth == 1 else child.matrices(depth - 1).unbind(1)
            maps += [own] if depth == 1 else [compose(own, inner) for inner in below]
        return torch.stack(maps, 1)

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
        for i, (child, sheet) in enumerate(zip(self.children, placed_here, strict=True)):
            own = child.contributions(depth - 1)
            maps = sheet.to_source.repeat_interleave(own.shape[1], 0)
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
            images: (N, C, H, W) in [0, 1], the images that were parsed, for a row above; by
                default there is none.
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
            `part`, the path or "image"; `intensity`, the sum of the canvas's pixels; `program`;
            `action`, by field in its units, except at the root; `parts`, if there are any.
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


def sheets(parts: Sequence[ParseTree], composed: bool) -> list[Sheet]:
    """The sheets that are placed for parts on the canvas of their parent.

    Args:
        parts: nodes with an action, one or more.
        composed: whether the leaves below a part are placed in its stead, by the product of their
            ancestors' inverse actions.

    Returns:
        A sheet for each part, or for each leaf, in the order in which they are placed.
    """
    made = []
    actions = [part.action for part in parts if part.action is not None]
    maps = inverse_matrix(torch.cat(actions)).chunk(len(parts))
    for part, own in zip(parts, maps, strict=True):
        if composed and part.children:
            below = sheets(part.children, composed)
            made += [leaf._replace(to_source=compose(leaf.to_source, own)) for leaf in below]
        else:
            made.append(Sheet(part.canvas, part.appearance, own))
    return made


def _renamed(former: str, present: str) -> str:
    return f"ParseTree.{former} is now ParseTree.{present}."
