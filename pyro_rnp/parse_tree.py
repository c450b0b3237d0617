"""ParseTree: the one result of running programs, read by training, queries and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pyro_rnp.affine import FIELDS, compose, matrix
from pyro_rnp.config import RNPConfig
from pyro_rnp.rendering import Painter

Path = tuple[int, ...]


def site_name(kind: str, path: Path) -> str:
    """The name of a Pyro site: kind "z" (program) or "a" (action), and the part's path.

    >>> site_name("z", ()), site_name("a", (0, 2))
    ('z', 'a/0/2')
    """
    return "/".join([kind, *map(str, path)])


@dataclass(frozen=True, repr=False)
class ParseTree:
    """A batch of N images as programs: a node for the image, each part and each sub-part.

    `tree[1]` is the second part, `tree[1][3]` its fourth sub-part, as in the sites `z/1/3` and
    `a/1/3`; iterating gives the parts in the order in which the program places them.
    """

    program: Float[Tensor, "n z"]
    """z^k, the vector that runs this node; z^0 of a leaf."""
    canvas: Float[Tensor, "n c s s"]
    """What the node draws in its own frame; at the root, the image before noise."""
    action: Float[Tensor, "n 6"] | None = None
    """Where its parent places it, in the units of `pyro_rnp.affine`; None at the root."""
    decoding: Float[Tensor, "n c p p"] | None = None
    """D_θ(h_state), what its parent expects it to look like; None at the root. The canvas of a
    leaf is its decoding."""
    children: tuple[ParseTree, ...] = ()
    ink: Float[Tensor, "n ink"] | None = None
    """What a leaf's function of coordinates is made of, where placement is continuous."""
    painter: Painter | None = field(default=None, repr=False)
    """What made canvases of children; without one, as the paper has it."""

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

    def walk(self, path: Path = ()) -> Iterator[tuple[Path, ParseTree]]:
        """Each node below and including this one, with its path, depth first."""
        yield path, self
        for i, child in enumerate(self.children):
            yield from child.walk((*path, i))

    def nodes(self, depth: int) -> list[ParseTree]:
        """The nodes `depth` levels below this one: 1 for parts, 2 for sub-parts."""
        return [node for path, node in self.walk() if len(path) == depth]

    def sites(self) -> dict[str, Tensor]:
        """Programs, actions and the canvas under the names of their Pyro sites."""
        values = {"canvas": self.canvas}
        for path, node in self.walk():
            values[site_name("z", path)] = node.program
            if node.action is not None:
                values[site_name("a", path)] = node.action
        return values

    def matrices(self, depth: int) -> Float[Tensor, "n parts 2 3"]:
        """The maps from the frames of the nodes at `depth` to this node's frame."""
        maps: list[Tensor] = []
        for child in self.children:
            assert child.action is not None
            own = matrix(child.action)
            below = [] if depth == 1 else child.matrices(depth - 1).unbind(1)
            maps += [own] if depth == 1 else [compose(own, inner) for inner in below]
        return torch.stack(maps, 1)

    def contributions(self, depth: int) -> Float[Tensor, "n parts c s s"]:
        """What each node at `depth` adds to this node's canvas; they sum to the canvas.

        A sub-part's share is its share of the part's canvas, placed as that canvas is and as far
        as it is seen.
        """
        size, painter = self.canvas.shape[-1], self.painter or Painter(RNPConfig())
        sheets = painter.sheets(self.children)
        placed, seen = painter.place(sheets, size)
        if depth == 1 or painter.composed:
            shown = (placed if seen is None else placed * seen).transpose(0, 1)
            return shown.unflatten(1, (len(self.nodes(depth)), -1)).sum(2)
        shares: list[Tensor] = []
        for i, (child, to_source) in enumerate(sheets):
            own = child.contributions(depth - 1)
            maps = to_source.repeat_interleave(own.shape[1], 0)
            share = painter.placement.canvas(own.flatten(0, 1), maps, size)
            share = share.unflatten(0, own.shape[:2])
            shares.append(share if seen is None else share * seen[i].unsqueeze(1))
        return torch.cat(shares, 1)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors; those of a leaf's canvas, which is its decoding, count once."""
        tensors: dict[int, Tensor] = {}
        self.map(lambda t: tensors.setdefault(id(t), t))
        return sum(t.nbytes for t in tensors.values())

    @property
    def _is_decoding(self) -> bool:
        """Whether canvas and decoding are one tensor, as a leaf's are."""
        return self.decoding is self.canvas

    def map(self, f: Callable[[Tensor], Tensor]) -> ParseTree:
        """The same tree with `f` applied to each tensor, say `lambda t: t[:4]` for four images."""
        canvas, decoding = f(self.canvas), self.decoding
        if decoding is not None:
            decoding = canvas if self._is_decoding else f(decoding)
        return replace(
            self,
            program=f(self.program),
            canvas=canvas,
            action=None if self.action is None else f(self.action),
            decoding=decoding,
            ink=None if self.ink is None else f(self.ink),
            children=tuple(child.map(f) for child in self.children),
        )

    def split(self, size: int) -> list[ParseTree]:
        """Trees of `size` images each, in order; `size` divides N."""

        def parts(value: Tensor | None) -> Iterable[Tensor | None]:
            return repeat(None) if value is None else value.split(size)

        below = [child.split(size) for child in self.children]
        canvases = self.canvas.split(size)
        rows = zip(
            self.program.split(size),
            canvases,
            parts(self.action),
            canvases if self._is_decoding else parts(self.decoding),
            parts(self.ink),
            strict=False,
        )
        return [
            ParseTree(*values, tuple(child[i] for child in below), ink, self.painter)  # type: ignore
            for i, (*values, ink) in enumerate(rows)
        ]

    @classmethod
    def join(cls, trees: Sequence[ParseTree]) -> ParseTree:
        """Trees of one shape as one batch, in order: what undoes `split`."""
        first = trees[0]

        def every(values: Sequence[Tensor | None]) -> Any:
            return None if values[0] is None else torch.cat(values)  # type: ignore[arg-type]

        canvas = torch.cat([tree.canvas for tree in trees])
        one = all(tree._is_decoding for tree in trees)
        return replace(
            first,
            program=every([tree.program for tree in trees]),
            canvas=canvas,
            action=every([tree.action for tree in trees]),
            decoding=canvas if one else every([tree.decoding for tree in trees]),
            ink=every([tree.ink for tree in trees]),
            children=tuple(map(cls.join, zip(*(tree.children for tree in trees), strict=True))),
        )

    def to_dict(self, image: int, name: Path = ()) -> dict[str, Any]:
        """One image's tree as JSON types: sites, actions by field (in their units), programs."""
        node: dict[str, Any] = {
            "part": "/".join(map(str, name)) or "image",
            "ink": self.canvas[image].detach().sum().item(),
            "program": self.program[image].tolist(),
        }
        if self.action is not None:
            node["action"] = dict(zip(FIELDS, self.action[image].tolist(), strict=True))
        if self.children:
            node["parts"] = [c.to_dict(image, (*name, i)) for i, c in enumerate(self)]
        return node
