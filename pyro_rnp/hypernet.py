"""The hypernetwork H: a program z to the networks that run it, θ = H(z) (section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.affine import bounded
from pyro_rnp.config import RNPConfig
from pyro_rnp.generated import GeneratedLinear, Layer, SharedLinear


class State(NamedTuple):
    """What a program carries from one step to the next, for P programs."""

    h_state: Float[Tensor, "p z"]
    """State RNN's hidden state: the child's program z^(k-1)."""
    h_policy: Float[Tensor, "p z"]
    """Policy RNN's hidden state."""
    patch: Float[Tensor, "p c s s"]
    """x̂, the previous patch."""
    action: Float[Tensor, "p 6"]
    """a, the previous action, in its units (`pyro_rnp.affine`)."""


class Networks(NamedTuple):
    """θ: the networks of P programs and their initial state."""

    encode_pixels: Layer
    encode: Sequence[Layer]
    f_state: Layer
    f_policy: Layer
    decode: Sequence[Layer]
    act: Sequence[Layer]
    initial: State
    config: RNPConfig

    def E(self, patch: Tensor, action: Tensor) -> Tensor:
        """E_θ(x̂, a), a 3-layer MLP: previous patch and action to the RNNs' input."""
        pixels = self.encode_pixels(_row(patch.flatten(1)))
        first, *rest = self.encode
        return _mlp(rest, F.elu(first(_row(action)) + pixels))

    def T(self, h_policy: Tensor) -> Tensor:
        """T_θ(h_policy), a 3-layer MLP to 6 numbers, as an action within its bounds (P, 6)."""
        return bounded(_mlp(self.act, _row(h_policy)).squeeze(1), self.config)

    def D(self, h_state: Tensor) -> Tensor:
        """D_θ(h_state), a 3-layer MLP to a patch (P, C, S, S) with pixels in (0, 1)."""
        c = self.config
        shape = (-1, c.channels, c.patch_size, c.patch_size)
        return _mlp(self.decode, _row(h_state)).sigmoid().view(shape)

    def step(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """One step of Algorithm 1 up to the action: the next h_state, h_policy and a."""
        e = self.E(state.patch, state.action)
        # tanh, not the authors' ELU: through 20 recurrent steps ELU overflows at lr 1e-3.
        h_state = _rnn(self.f_state, e, state.h_state)
        h_policy = _rnn(self.f_policy, e, state.h_policy)
        return h_state, h_policy, self.T(h_policy)


def _row(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


def _mlp(layers: Sequence[Layer], x: Tensor) -> Tensor:
    for layer in layers[:-1]:
        x = F.elu(layer(x))
    return layers[-1](x)


def _rnn(layer: Layer, e: Tensor, h: Tensor) -> Tensor:
    return layer(torch.cat([e, _row(h)], -1)).squeeze(1).tanh()


class Hypernetwork(nn.Module):
    """H: one MLP trunk with seven heads: E, f_state, f_policy, D, T, x̂_0 and a_0.

    The heads f_state and f_policy give their initial hidden states too. The same H serves every
    level.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        c, r, u = config, config.hypernet_units, config.network_units
        z, pixels = c.program_size, c.channels * c.patch_size**2
        widths = [z] + [r] * c.hypernet_layers
        trunk = [nn.Linear(i, o) for i, o in pairwise(widths)]
        for layer in trunk:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
        self.config = config
        self.trunk = nn.ModuleList(trunk)
        pixel_layer = GeneratedLinear if c.pixel_layers == "generated" else SharedLinear
        self.encode_pixels = pixel_layer(r, pixels, u, bias=False)
        self.encode = _heads(r, [6, u, u, u])
        self.f_state = GeneratedLinear(r, u + z, z)
        self.f_policy = GeneratedLinear(r, u + z, z)
        self.decode = _heads(r, [z, u, u])
        self.decode.append(pixel_layer(r, u, pixels))
        self.act = _heads(r, [z, u, u, 6])
        self.h_state = nn.Linear(r, z)
        self.h_policy = nn.Linear(r, z)
        self.patch = nn.Linear(r, pixels)
        self.action = nn.Linear(r, 6)
        # A canvas that starts near blank: sums of patches begin below the ink they must explain.
        nn.init.constant_(self.decode[-1].offset, -3.0)  # type: ignore[arg-type]
        nn.init.constant_(self.patch.bias, -3.0)

    def forward(self, z: Float[Tensor, "p z"]) -> Networks:
        c, g = self.config, z
        for layer in self.trunk:
            g = F.elu(layer(g))
        shape = (-1, c.channels, c.patch_size, c.patch_size)
        return Networks(
            encode_pixels=self.encode_pixels(g),
            encode=[head(g) for head in self.encode],
            f_state=self.f_state(g),
            f_policy=self.f_policy(g),
            decode=[head(g) for head in self.decode],
            act=[head(g) for head in self.act],
            initial=State(
                self.h_state(g).tanh(),
                self.h_policy(g).tanh(),
                self.patch(g).sigmoid().view(shape),
                bounded(self.action(g), c),
            ),
            config=c,
        )


def _heads(features: int, widths: list[int]) -> nn.ModuleList:
    pairs = pairwise(widths)
    return nn.ModuleList(GeneratedLinear(features, i, o) for i, o in pairs)
