"""Synthetic images of a known two-level grammar: characters of parts of strokes.

The grammar, the same at every call: five kinds of stroke; twelve kinds of part, each two or three
strokes at places of its own; twenty characters, each two to four parts at places of its own. An
image is one character with every part and stroke moved, rotated and scaled a little, drawn with
antialiased lines. Each comes with the true part and stroke of each pixel that has ink.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIZE = 28
KINDS, PARTS, CHARACTERS = 5, 12, 20
MAX_PARTS, MAX_STROKES = 4, 3
POINTS = 9
WIDTH = 1.8
"""Thickness of a line, in pixels."""


def strokes(
    n: int, seed: int = 0
) -> tuple[Float[Tensor, "n 1 28 28"], Int[Tensor, "n"], Int[Tensor, "n 2 28 28"]]:
    """Draw images from the grammar.

    Args:
        n: number of images.
        seed: seed of the characters and of how each is moved.

    Returns:
        Images with ink in [0, 1]; the character of each; the part and the stroke (numbered
        through all parts) that each pixel belongs to, -1 where there is no ink.
    """
    random = torch.Generator().manual_seed(seed)
    places, present = _characters()
    labels = torch.randint(CHARACTERS, (n,), generator=random)
    drawn = [_draw(places[c], present[c], random) for c in labels.split(50)]
    images, segments = (torch.cat(values) for values in zip(*drawn, strict=True))
    return images, labels, segments


def _characters() -> tuple[Tensor, Tensor]:
    """Control points of each character's strokes (C, P, S, points, 2) in their part's frame with
    the part's pose appended as a last row pair, and which strokes exist (C, P, S).
    """
    g = torch.Generator().manual_seed(2206)
    s = torch.linspace(-1, 1, POINTS)
    bend = torch.stack([torch.zeros_like(s), 0.5 * (1 - s**2), 1.2 * (1 - s**2)])
    hook = torch.where(s > 0.2, 1.2 * (s - 0.2) ** 2, 0 * s)
    wave = 0.5 * torch.sin(math.pi * s)
    kinds = torch.stack([torch.stack([s, y], -1) for y in (*bend, hook, wave)])

    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    part_strokes = torch.zeros(PARTS, MAX_STROKES, POINTS, 2)
    part_present = torch.zeros(PARTS, MAX_STROKES, dtype=torch.bool)
    for part in range(PARTS):
        count = int(torch.randint(2, MAX_STROKES + 1, (), generator=g))
        cells = torch.randperm(4, generator=g)
        for i in range(count):
            kind = int(torch.randint(KINDS, (), generator=g))
            turn = float(torch.rand((), generator=g)) * math.pi
            centre = 0.45 * corners[cells[i]]
            part_strokes[part, i] = 0.5 * kinds[kind] @ _rotation(torch.tensor(turn)).mT + centre
            part_present[part, i] = True
    points = torch.zeros(CHARACTERS, MAX_PARTS, MAX_STROKES, POINTS + 1, 2)
    present = torch.zeros(CHARACTERS, MAX_PARTS, MAX_STROKES, dtype=torch.bool)
    for character in range(CHARACTERS):
        count = int(torch.randint(2, MAX_PARTS + 1, (), generator=g))
        cells = torch.randperm(4, generator=g)
        for i in range(count):
            part = int(torch.randint(PARTS, (), generator=g))
            points[character, i, :, :POINTS] = part_strokes[part]
            points[character, i, :, POINTS] = 0.46 * corners[cells[i]]
            present[character, i] = part_present[part]
    return points, present


def _draw(points: Tensor, present: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Jitter and render characters; `points` (N, P, S, points + 1, 2), `present` (N, P, S)."""
    line, centre = points[..., :POINTS, :], points[..., :1, POINTS, :]
    n = len(points)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    own = _similarity(normal(n, MAX_PARTS, MAX_STROKES, 4) * torch.tensor([0.1, 0.06, 0.05, 0.05]))
    middle = line.mean(-2, keepdim=True)
    line = (line - middle) @ own[..., :2].mT + own[..., 2:].mT + middle
    whole = _similarity(normal(n, MAX_PARTS, 1, 4) * torch.tensor([0.12, 0.08, 0.04, 0.04]))
    line = 0.36 * line @ whole[..., :2].mT + whole[..., 2:].mT + centre.unsqueeze(-2)

    pixel = (torch.arange(SIZE) + 0.5) * 2 / SIZE - 1
    x, y = (axis.reshape(-1, 1) for axis in torch.meshgrid(pixel, pixel, indexing="xy"))
    ink = torch.zeros(n, MAX_PARTS * MAX_STROKES, SIZE * SIZE)
    for i, (at, there) in enumerate(
        zip(line.flatten(1, 2).unbind(1), present.flatten(1).unbind(1), strict=True)
    ):
        distance = _distance(x, y, at[there]) * SIZE / 2
        ink[there, i] = (WIDTH / 2 + 0.5 - distance).clamp(0, 1)
    strongest, stroke = ink.max(1)
    stroke = torch.where(strongest > 0, stroke, -1).view(n, SIZE, SIZE)
    part = torch.where(stroke < 0, -1, stroke // MAX_STROKES)
    return strongest.view(n, 1, SIZE, SIZE), torch.stack([part, stroke], 1)


def _distance(x: Tensor, y: Tensor, line: Tensor) -> Tensor:
    """Distance of pixels at x, y (p, 1) to each polyline (n, points, 2): (n, p)."""
    a, step = line[:, None, :-1], (line[:, 1:] - line[:, :-1]).unsqueeze(1)
    (dx, dy), (u, v) = step.unbind(-1), ((x - a[..., 0]), (y - a[..., 1]))
    along = ((u * dx + v * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((u - along * dx).square() + (v - along * dy).square()).amin(-1).sqrt()


def _rotation(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)


def _similarity(pose: Tensor) -> Tensor:
    """(angle, log-scale, x, y) to [A | t]."""
    turn = _rotation(pose[..., 0]) * pose[..., 1, None, None].exp()
    return torch.cat([turn, pose[..., 2:, None]], -1)
