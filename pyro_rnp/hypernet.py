"""The hypernetwork H, which takes a program z to the networks that run it: θ = H(z)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pyro_rnp.activations import elu
from pyro_rnp.affine import bounded
from pyro_rnp.config import RNPConfig
from pyro_rnp.generated_layers import FactoredLayers, GeneratedLayers, Layer, SharedLayers
from pyro_rnp.placements import BLANK, Bilinear, Placement


class State(NamedTuple):
    """The state that P programs carry from one step to the next."""

    h_state: Float[Tensor, "p z"]
    """Hidden state of the state RNN, in (-1, 1): the child's program z^(k-1)."""
    h_policy: Float[Tensor, "p z"]
    """Hidden state of the policy RNN, in (-1, 1)."""
    patch: Float[Tensor, "p c s s"]
    """x̂, the previous patch, in (0, 1)."""
    action: Float[Tensor, "p 6"]
    """a, the previous action, in its units (`pyro_rnp.affine`)."""


class Networks(NamedTuple):
    """θ: the networks of P programs and their initial state.

    Source: the paper, section 2.1.

    Args:
        layers: generated or shared layers by name.
        bias: their biases by name, (P, 1, out) or (out,).
        initial: the state before the first step.
        config: the model's configuration.
    """

    layers: dict[str, Layer]
    bias: dict[str, Tensor]
    initial: State
    config: RNPConfig

    def E(self, patch: Tensor, action: Tensor) -> Tensor:
        """E_θ(x̂, a), a 3-layer MLP to the RNNs' input.

        Args:
            patch: the previous patch, (P, C, S, S).
            action: the previous action, (P, 6).

        Returns:
            (P, 1, network_units).
        """
        pixels = self.layers["encode.pixels"](_row(patch.flatten(1)), None)
        e = elu(self._layer("encode.0", _row(action)) + pixels)
        return self._layer("encode.2", elu(self._layer("encode.1", e)))

    def T(self, h_policy: Tensor) -> Tensor:
        """T_θ(h_policy), a 3-layer MLP to actions before they are bounded.

        Args:
            h_policy: (P, |z|).

        Returns:
            (P, 6).
        """
        return self._mlp("act", _row(h_policy)).squeeze(1)

    def D(self, h_state: Tensor) -> Tensor:
        """D_θ(h_state), a 3-layer MLP to appearances of patches.

        Args:
            h_state: (P, |z|).

        Returns:
            (P, appearance), unbounded; see `pyro_rnp.placements`.
        """
        return self._mlp("decode", _row(h_state)).squeeze(1)

    def step(self, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """One step of the paper's Algorithm 1.

        Args:
            state: of the step before.

        Returns:
            The next h_state and h_policy, (P, |z|) each, and the next action before it is bounded,
            (P, 6).
        """
        e = self.E(state.patch, state.action)
        # tanh, not the authors' ELU: through 20 recurrent steps ELU overflows at lr 1e-3.
        h_state = self._rnn("f_state", e, state.h_state)
        h_policy = self._rnn("f_policy", e, state.h_policy)
        return h_state, h_policy, self.T(h_policy)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        return self.layers[name](x, self.bias[name])

    def _mlp(self, name: str, x: Tensor) -> Tensor:
        x = elu(self._layer(f"{name}.0", x))
        return self._layer(f"{name}.2", elu(self._layer(f"{name}.1", x)))

    def _rnn(self, name: str, e: Tensor, h: Tensor) -> Tensor:
        return self._layer(name, torch.cat([e, _row(h)], -1)).squeeze(1).tanh()


def _row(x: Tensor) -> Tensor:
    return x.unsqueeze(1)


class Hypernetwork(nn.Module):
    """H: one MLP trunk to features g, and heads linear in g: E, f_state, f_policy, D, T, x̂_0, a_0.

    The heads f_state and f_policy give their initial hidden states too. Heads that are vectors
    (biases and initial values) are one product, `vectors`; those that are matrices are the sets in
    `layers`.

    Source: the paper, section 2.1, which has the same H for every level.

    Args:
        config: gives the sizes of the trunk, the networks, programs and patches.
        placement: gives the length of an appearance and a blank one; bilinear by default.
    """

    def __init__(self, config: RNPConfig, placement: Placement | None = None) -> None:
        super().__init__()
        placement = Bilinear(config) if placement is None else placement
        c, r, u = config, config.rank or config.hypernet_units, config.network_units
        z, pixels = c.program_size, c.channels * c.patch_size**2
        appearance = placement.appearance_size
        widths = [z] + [c.hypernet_units] * (c.hypernet_layers - 1) + [r]
        trunk = [nn.Linear(i, o) for i, o in pairwise(widths)]
        for layer in trunk:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)
        self.config = config
        self.trunk = nn.ModuleList(trunk)
        small = {
            **{"encode.0": (6, u), "encode.1": (u, u), "encode.2": (u, u)},
            **{"decode.0": (z, u), "decode.1": (u, u)},
            **{"act.0": (z, u), "act.1": (u, u), "act.2": (u, 6)},
        }
        recurrent = {"f_state": (u + z, z), "f_policy": (u + z, z)}
        mixed = c.weights == "mixed"
        own: Any = GeneratedLayers if mixed else partial(FactoredLayers, factors=c.factors)
        pixel_layers = own if c.pixel_layers == "generated" else SharedLayers
        sets = [
            (own, u, small),
            (own, z, recurrent),
            (pixel_layers, u, {"encode.pixels": (pixels, u)}),
            (pixel_layers, u, {"decode.2": (u, appearance)}),
        ]
        self.names = [list(shapes) for _, _, shapes in sets]
        self.layers = nn.ModuleList(
            made(r, units, list(shapes.values())) for made, units, shapes in sets
        )
        self.biases = {name: out for name, (_, out) in {**small, **recurrent}.items()}
        if c.pixel_layers == "generated":
            self.biases["decode.2"] = appearance
        else:
            self.pixel_bias = nn.Parameter(placement.blank())
        self.sizes = {**self.biases, "h_state": z, "h_policy": z, "patch": pixels, "action": 6}
        self.vectors = nn.Linear(r, sum(self.sizes.values()))
        fan_in = {name: i for _, _, shapes in sets for name, (i, _) in shapes.items()}
        with torch.no_grad():
            weight, bias = self._named(self.vectors.weight), self._named(self.vectors.bias)
            for name in self.biases:
                weight[name].normal_(std=(r * fan_in[name]) ** -0.5)
                bias[name].copy_(placement.blank() if name == "decode.2" else torch.zeros(()))
            bias["patch"].fill_(BLANK)

    def _named(self, vectors: Tensor, dim: int = 0) -> dict[str, Tensor]:
        parts = vectors.split(list(self.sizes.values()), dim)
        return dict(zip(self.sizes, parts, strict=True))

    def heads(self) -> dict[str, tuple[Tensor | None, Tensor | None]]:
        """Every head by name, in the paper's form.

        Returns:
            Θ, (1 + R, out, in), and its bias, (1 + R, out), of each head, as views of parameters;
            Θ of a factored layer is computed. Index 0 is common to all programs, and a shared layer
            has no other. Vectors have no Θ, and E's pixel layer has no bias of its own.
        """
        thetas = {
            name: theta
            for names, made in zip(self.names, self.layers, strict=True)
            for name, theta in zip(names, made.thetas(), strict=True)  # type: ignore[operator]
        }
        v = self.vectors
        biases = self._named(torch.cat([v.bias.unsqueeze(0), v.weight.mT]), 1)
        if "decode.2" not in biases:
            biases["decode.2"] = self.pixel_bias.unsqueeze(0)
        return {name: (thetas.get(name), biases.get(name)) for name in thetas | biases}

    def forward(self, z: Float[Tensor, "p z"], recompute: bool = False) -> Networks:
        """The networks of programs.

        Args:
            z: programs, (P, |z|).
            recompute: write the weights again in the backward pass instead of keeping them; by
                default false.
        """
        c, g = self.config, z
        for layer in self.trunk:
            g = elu(layer(g))
        vectors = self._named(self.vectors(g), 1)
        bias = {name: vectors[name].unsqueeze(1) for name in self.biases}
        if "decode.2" not in bias:
            bias["decode.2"] = self.pixel_bias
        shape = (-1, c.channels, c.patch_size, c.patch_size)
        return Networks(
            layers={
                name: layer
                for names, made in zip(self.names, self.layers, strict=True)
                for name, layer in zip(names, made(g, recompute), strict=True)
            },
            bias=bias,
            initial=State(
                vectors["h_state"].tanh(),
                vectors["h_policy"].tanh(),
                vectors["patch"].sigmoid().view(shape),
                bounded(vectors["action"], c),
            ),
            config=c,
        )
