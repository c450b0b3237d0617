"""The paper's Algorithm 1 ported line by line over a batch: the yardstick of the benchmark.

Every program's weights are materialised and applied step by step by plain autograd, level by
level, part by part. It draws the same canvas as the `Recursion` whose parameters it copies.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_rnp.affine import bounded, place
from pyro_rnp.parse_tree import ParseTree
from pyro_rnp.recursion import Recursion, Sites


class LiteralRecursion(nn.Module):
    """Runs programs (N, |z|) into trees as `Recursion` does, with none of its short cuts.

    Source: the paper, Algorithm 1.

    Args:
        recursion: gives the configuration and the parameters, which are copied.

    Raises:
        ValueError: unless feedback, pixel layers, placement and composition are the paper's.
    """

    def __init__(self, recursion: Recursion) -> None:
        super().__init__()
        hypernet: Any = recursion.hypernets[0]
        self.config, self.trunk = recursion.config, hypernet.trunk
        self.renderer = recursion.renderer
        c = self.config
        chosen = (c.feedback, c.pixel_layers, c.placement, c.composition, c.composed)
        if chosen != ("canvas", "generated", "bilinear", "sum", False):
            raise ValueError(
                "The literal port has the paper's feedback and pixel layers, placement and "
                "composition only."
            )
        heads = hypernet.heads()
        self.weights = _linears({name: theta for name, (theta, _) in heads.items()})
        self.biases = _linears({name: bias for name, (_, bias) in heads.items()})

    def forward(
        self, z: Tensor, sites: Sites | None = None, target: Tensor | None = None
    ) -> ParseTree:
        """Run the programs z^K of N images.

        Args:
            z: programs, (N, |z|).
            sites: unused; actions and programs have their predicted values.
            target: unused.

        Returns:
            The tree of N images.
        """
        return self._run(z, self.config.depth)

    def _run(self, z: Tensor, level: int) -> ParseTree:
        c, n = self.config, len(z)
        g = z
        for layer in self.trunk:
            g = F.elu(layer(g))
        theta = {name: head(g) for name, head in self.weights.items()}
        bias = {name: head(g) for name, head in self.biases.items()}

        def apply(name: str, x: Tensor) -> Tensor:
            # Rows times W^T, which is several times faster on a CPU than the W x of the paper.
            weight = theta[name].view(n, -1, x.shape[1])
            y = torch.bmm(x.unsqueeze(1), weight.mT).squeeze(1)
            return y + bias[name] if name in bias else y

        def mlp(name: str, x: Tensor) -> Tensor:
            x = F.elu(apply(f"{name}_0", x))
            return apply(f"{name}_2", F.elu(apply(f"{name}_1", x)))

        h_state, h_policy = bias["h_state"].tanh(), bias["h_policy"].tanh()
        patch, a = bias["patch"].sigmoid(), bounded(bias["action"], c)
        size = c.canvas_size(level)
        canvas = z.new_zeros(n, c.channels, size, size)
        parts = []
        for _ in range(c.steps[c.depth - level]):
            e = F.elu(apply("encode_0", a) + apply("encode_pixels", patch))
            e = apply("encode_2", F.elu(apply("encode_1", e)))
            h_state = apply("f_state", torch.cat([e, h_state], 1)).tanh()
            h_policy = apply("f_policy", torch.cat([e, h_policy], 1)).tanh()
            a = bounded(mlp("act", h_policy), c)
            decoding = mlp("decode", h_state).sigmoid()
            decoding = decoding.view(n, c.channels, c.patch_size, c.patch_size)
            below = self._run(h_state, level - 1) if level > 1 else ParseTree(h_state, decoding)
            canvas = canvas + place(below.canvas, a, size)
            patch = below.canvas.flatten(1)
            parts.append(replace(below, action=a, own_decoding=decoding if level > 1 else None))
        return ParseTree(z, canvas, children=tuple(parts), renderer=self.renderer)


def _linears(heads: dict[str, Tensor | None]) -> nn.ModuleDict:
    """Heads (1 + R, ...) as linear layers of g, by names without dots."""
    made = nn.ModuleDict()
    for name, head in heads.items():
        if head is None:
            continue
        flat = head.detach().flatten(1)
        linear = nn.Linear(len(flat) - 1, flat.shape[1], dtype=flat.dtype, device=flat.device)
        with torch.no_grad():
            linear.bias.copy_(flat[0])
            linear.weight.copy_(flat[1:].mT)
        made[name.replace(".", "_")] = linear
    return made
