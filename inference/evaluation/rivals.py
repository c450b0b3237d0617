"""Models that a user of Pyro might pick instead, in Pyro's own training loop, to time.

Each has the sizes of an example of Pyro, is a module with a `model` and a `guide`, and takes images
of shape (N, 1, H, W) in [0, 1] of its own `image_size`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Float
from pyro.infer import ELBO, SVI, Trace_ELBO, TraceGraph_ELBO
from pyro.optim import Adam  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

from pyro_rnp.contract import PYRO

Grey = Float[Tensor, "n 1 h w"]


class MLPVAE(nn.Module):
    """A variational autoencoder of one hidden layer either way, for binary images.

    Source: Pyro's `examples/vae`, https://pyro.ai/examples/vae.html, with its default sizes.

    Args:
        image_size: height and width of the images, in pixels.
        units: units of the hidden layers.
        code: length of the latent.
    """

    def __init__(self, image_size: int = 28, units: int = 400, code: int = 50) -> None:
        super().__init__()
        self.image_size = image_size
        self.encoder = _mlp(image_size**2, units, 2 * code, nn.Softplus)
        self.decoder = _mlp(code, units, image_size**2, nn.Softplus)
        self.code = code

    def model(self, images: Grey) -> None:
        """Sample a code and observe the pixels, the site `x`."""
        pyro.module("decoder", self.decoder)
        with pyro.plate("images", len(images)):
            zeros = images.new_zeros(len(images), self.code)
            z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(1))
            # Grey pixels count as probabilities, so that their support is not checked.
            likelihood = dist.Bernoulli(self.decoder(z).sigmoid(), validate_args=False)
            pyro.sample("x", likelihood.to_event(1), obs=images.flatten(1))

    def guide(self, images: Grey) -> None:
        """Sample a code given the pixels."""
        pyro.module("encoder", self.encoder)
        with pyro.plate("images", len(images)):
            loc, log_scale = self.encoder(images.flatten(1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


class Attention(nn.Module):
    """The inference network of `AIR`: where to look next, and what is there.

    Args:
        pixels: of an image.
        hidden: units of either LSTM.
        window: height and width of a window, in pixels.
        units: units of the encoder's hidden layer.
        code: length of what a window shows.
    """

    def __init__(self, pixels: int, hidden: int, window: int, units: int, code: int) -> None:
        super().__init__()
        inputs = pixels + 1 + 3 + code
        self.lstm, self.baseline_lstm = nn.LSTMCell(inputs, hidden), nn.LSTMCell(inputs, hidden)
        self.head, self.baseline = nn.Linear(hidden, 1 + 2 * 3), nn.Linear(hidden, 1)
        self.encoder = _mlp(window**2, units, 2 * code, nn.ReLU)
        self.first = nn.ParameterDict(
            {name: torch.zeros(1, hidden) for name in ("h", "c", "baseline_h", "baseline_c")}
            | {"where": torch.zeros(1, 3), "what": torch.zeros(1, code)}
        )


class AIR(nn.Module):
    """Attend, infer, repeat: up to a few windows, each with a code that is drawn where it lies.

    A step has the sites `present/t`, `where/t` (the inverse of the scale, then x and y) and
    `what/t`. Steps after the last one that is present do not count.

    Source: Eslami et al., "Attend, infer, repeat", 2016; sizes, priors and baselines are the
    defaults of Pyro's `examples/air`.

    Args:
        image_size: height and width of the images, in pixels.
        steps: the most windows.
        hidden: units of the LSTM, and of that of the baseline.
        window: height and width of a window, in pixels.
        units: units of the hidden layers of a window's encoder and decoder.
        code: length of what a window shows.
    """

    def __init__(
        self,
        image_size: int = 50,
        steps: int = 3,
        hidden: int = 256,
        window: int = 28,
        units: int = 200,
        code: int = 50,
    ) -> None:
        super().__init__()
        self.image_size, self.window, self.code = image_size, window, code
        self.inference = Attention(image_size**2, hidden, window, units, code)
        self.decoder = _mlp(code, units, window**2, nn.ReLU)
        counts = 0.5 ** torch.arange(steps + 1)  # p(n windows), to a factor
        self.chances = [float(counts[t + 1 :].sum() / counts[t:].sum()) for t in range(steps)]

    def model(self, images: Grey) -> None:
        """Sample windows, draw each, and observe the pixels, the site `x`."""
        pyro.module("decoder", self.decoder)
        n = len(images)
        with pyro.plate("images", n):
            present, canvas = images.new_ones(n, 1), torch.zeros_like(images)
            zeros, places = images.new_zeros(n, self.code), self._places(images)
            for t, chance in enumerate(self.chances):
                there = dist.Bernoulli(chance * present).to_event(1)
                present = pyro.sample(f"present/{t}", there)
                where = pyro.sample(f"where/{t}", _masked(*places, present))
                what = pyro.sample(f"what/{t}", _masked(zeros, 1.0, present))
                drawn = self.decoder(what).view(-1, 1, self.window, self.window)
                canvas = canvas + present[..., None, None] * _seen(drawn, where, self.image_size)
            pyro.sample("x", dist.Normal(canvas, 0.3).to_event(3), obs=images)

    def guide(self, images: Grey) -> None:
        """Look at one window after the other, with a baseline for whether there is one."""
        net = self.inference
        pyro.module("inference", net)
        pixels, n = images.flatten(1), len(images)
        with pyro.plate("images", n):
            first = {name: value.expand(n, -1) for name, value in net.first.items()}
            where, what, present = first["where"], first["what"], images.new_ones(n, 1)
            state = first["h"], first["c"]
            memory = first["baseline_h"], first["baseline_c"]
            prior_loc, prior_scale = self._places(images)
            for t in range(len(self.chances)):
                before = torch.cat((where, what, present), -1)
                state = net.lstm(torch.cat((pixels, before), -1), state)
                memory = net.baseline_lstm(torch.cat((pixels, before.detach()), -1), memory)
                baseline = (net.baseline(memory[0]) * present).squeeze(-1)
                chance, loc, scale = net.head(state[0]).split((1, 3, 3), -1)
                there = dist.Bernoulli(chance.sigmoid() * present).to_event(1)
                hint: Any = {"baseline": {"baseline_value": baseline}}
                present = pyro.sample(f"present/{t}", there, infer=hint)
                scale = F.softplus(scale) * prior_scale
                where = pyro.sample(f"where/{t}", _masked(loc + prior_loc, scale, present))
                seen = _seen(images, _inverse(where), self.window).flatten(1)
                loc, scale = net.encoder(seen).chunk(2, -1)
                what = pyro.sample(f"what/{t}", _masked(loc, F.softplus(scale), present))

    def _places(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Location and scale of the prior of windows, (1, 3) each."""
        loc, scale = images.new_tensor([[[3.0, 0.0, 0.0]], [[0.1, 1.0, 1.0]]])
        return loc, scale


class Rival(NamedTuple):
    """A model to time, and how its example trains it."""

    make: Callable[[], Any]
    """Makes the model."""
    elbo: Callable[[], ELBO]
    """Makes the objective."""
    learning_rate: Callable[[str], float]
    """Adam's learning rate of a parameter by its name."""


RIVALS = {
    "vae": Rival(MLPVAE, Trace_ELBO, lambda _: 1e-3),
    "air": Rival(AIR, TraceGraph_ELBO, lambda name: 1e-3 if "baseline" in name else 1e-4),
}
"""Rivals by kind."""


def svi_step(
    rnp: Any,
    images: Tensor,
    elbo: ELBO | None = None,
    learning_rate: Callable[[str], float] = lambda _: 1e-3,
) -> Callable[[], float]:
    """Make a call that takes one step of a user's own loop: Pyro's `SVI` with Pyro's `Adam`.

    The caller's parameter store is as before after each step.

    Args:
        rnp: has a `model` and a `guide`, which take images.
        images: of each step, (N, C, H, W).
        elbo: the objective; by default `Trace_ELBO`.
        learning_rate: of a parameter by its name; by default 1e-3.

    Returns:
        The call, which returns the loss in nats.
    """
    adam = Adam(lambda name: {"lr": learning_rate(name)})
    svi = SVI(rnp.model, rnp.guide, adam, elbo or Trace_ELBO())
    state: Any = {"params": {}, "constraints": {}}

    def step() -> float:
        with PYRO, pyro.get_param_store().scope(state):
            return float(svi.step(images))

    return step


def _mlp(inputs: int, units: int, outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, units), activation(), nn.Linear(units, outputs))


def _masked(loc: Tensor, scale: Tensor | float, present: Tensor) -> Any:
    return dist.Normal(loc, scale).mask(present.bool()).to_event(1)


def _seen(images: Tensor, where: Tensor, size: int) -> Tensor:
    """What each image shows at a place (s, x, y), that is at s p + (x, y) for a pixel's place p."""
    zero = torch.zeros_like(where[:, 0])
    s, x, y = where.unbind(-1)
    maps = torch.stack((torch.stack((s, zero, x), -1), torch.stack((zero, s, y), -1)), 1)
    grid = F.affine_grid(maps, [len(where), 1, size, size], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _inverse(where: Tensor) -> Tensor:
    """The place of the image in a window, from that of the window in the image."""
    s, shift = where.split((1, 2), -1)
    return torch.cat((s.reciprocal(), -shift / s), -1)
