"""The paper's Algorithm 1 ported line by line over a batch: the yardstick of the benchmark.

Every program's weights are materialised and applied step by step by plain autograd, level by
level, part by part. It has the parameters of a `Recursion` and draws the same canvas.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_rnp.affine import bounded, place
from pyro_rnp.generated import GeneratedLinear
from pyro_rnp.recursion import Recursion, Site
from pyro_rnp.tree import ParseTree


class LiteralRecursion(nn.Module):
    """Runs programs (N, |z|) into trees as `Recursion` does, with none of its short cuts.

    Raises:
        ValueError: unless the feedback is the canvas and the pixel layers are generated, as in
            the paper.
    """

    def __init__(self, recursion: Recursion) -> None:
        super().__init__()
        self.config, self.hypernet = recursion.config, recursion.hypernet
        if (self.config.feedback, self.config.pixel_layers) != ("canvas", "generated"):
            raise ValueError("The literal port has the paper's feedback and pixel layers only.")

    def forward(self, z: Tensor, site: Site | None = None) -> ParseTree:
        """Run programs; sites are passed over."""
        return self._run(z, self.config.depth)

    def _run(self, z: Tensor, level: int) -> ParseTree:
        c, H, n = self.config, self.hypernet, len(z)
        g = z
        for layer in H.trunk:
            g = F.elu(layer(g))
        encode_pixels = _weights(H.encode_pixels, g)
        encode = [_weights(head, g) for head in H.encode]
        decode = [_weights(head, g) for head in H.decode]
        act = [_weights(head, g) for head in H.act]
        f_state, f_policy = _weights(H.f_state, g), _weights(H.f_policy, g)
        h_state, h_policy = H.h_state(g).tanh(), H.h_policy(g).tanh()
        patch, a = H.patch(g).sigmoid(), bounded(H.action(g), c)
        size = c.canvas_size(level)
        canvas = z.new_zeros(n, c.channels, size, size)
        parts = []
        for _ in range(c.steps[c.depth - level]):
            e = F.elu(_apply(encode[0], a) + _apply(encode_pixels, patch))
            e = _apply(encode[2], F.elu(_apply(encode[1], e)))
            h_state = _apply(f_state, torch.cat([e, h_state], 1)).tanh()
            h_policy = _apply(f_policy, torch.cat([e, h_policy], 1)).tanh()
            a = bounded(_mlp(act, h_policy), c)
            decoding = _mlp(decode, h_state).sigmoid()
            decoding = decoding.view(n, c.channels, c.patch_size, c.patch_size)
            below = self._run(h_state, level - 1) if level > 1 else ParseTree(h_state, decoding)
            canvas = canvas + place(below.canvas, a, size)
            patch = below.canvas.flatten(1)
            parts.append(ParseTree(h_state, below.canvas, a, decoding, below.children))
        return ParseTree(z, canvas, children=tuple(parts))


def _weights(layer: nn.Module, g: Tensor) -> tuple[Tensor, Tensor | float]:
    assert isinstance(layer, GeneratedLinear)
    weight = layer.weight(g).view(len(g), layer.fan_out, layer.fan_in)
    return weight, 0.0 if layer.bias is None else layer.bias(g)


def _apply(layer: tuple[Tensor, Tensor | float], x: Tensor) -> Tensor:
    # Rows times W^T, which is several times faster on a CPU than the W x of the paper.
    return torch.bmm(x.unsqueeze(1), layer[0].mT).squeeze(1) + layer[1]


def _mlp(layers: list[tuple[Tensor, Tensor | float]], x: Tensor) -> Tensor:
    first, second, third = layers
    return _apply(third, F.elu(_apply(second, F.elu(_apply(first, x)))))
