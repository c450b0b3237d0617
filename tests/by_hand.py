"""Densities of a model with random levels and of its guide, written down site by site.

The package gives the networks and one run of the recursion, whose sites below the top are held at
values from outside. All else, from what is predicted there to numbers in nats, is formulas.
"""

import math

import pyro
import torch
import torch.nn.functional as F
from pyro import poutine

from pyro_rnp import RNP
from pyro_rnp.affine import bounded
from pyro_rnp.contract import DensitiesOnly
from pyro_rnp.recursion import Sites
from tests.conftest import tiny


def stirred(by=0.2, **changes):
    """A tiny model in float64, of which no parameter is where it starts."""
    rnp = RNP(tiny(**{"stochastic": "both", **changes})).double()
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(by * torch.randn_like(p))
    return rnp


class Held(Sites):
    """Holds random sites at values, (M, d) by name, and notes what is predicted and glimpsed.

    The `value` of a site may be made otherwise.
    """

    def __init__(self, config, values):
        super().__init__(config)
        self.values, self.predicted, self.glimpsed = values, {}, {}

    def action(self, paths, raw, glimpsed):
        return self._hold("a", paths, raw, super().action(paths, raw, glimpsed), glimpsed)

    def program(self, paths, h_state, glimpsed):
        return self._hold("z", paths, h_state, h_state, glimpsed)

    def _hold(self, kind, paths, predicted, determined, glimpsed):
        names = ["/".join([kind, *map(str, path)]) for path in paths]
        self.predicted.update(zip(names, predicted.chunk(len(names)), strict=True))
        if glimpsed is not None:
            self.glimpsed.update(zip(names, glimpsed.chunk(len(names)), strict=True))
        if not self.config.random(kind, len(paths[0])):
            return determined
        return torch.cat([self.value(name) for name in names])

    def value(self, name):
        return self.values[name]


class FromPrior(Held):
    """Draws what is not given from the model's own normals, and keeps it."""

    def __init__(self, rnp, given):
        super().__init__(rnp.config, dict(given))
        self.rnp = rnp

    def value(self, name):
        if name not in self.values:
            said = self.predicted[name]
            loc = near(said) if name[0] == "a" else said
            raw = loc + scale(self.rnp, name, said) * torch.randn_like(loc)
            self.values[name] = bounded(raw, self.config) if name[0] == "a" else raw
        return self.values[name]


def scale(rnp, name, said):
    """The scale of a random site, () or (M, d), from the parameters; of others None."""
    own, (kind, *path) = rnp.model.scales, name.split("/")
    level = dict(own.named_parameters()).get(f"{kind}{len(path)}")
    if level is None or rnp.config.learn_scales != "predicted":
        return None if level is None else level.exp()
    first, _, last = own.networks[f"{kind}{len(path)}"]
    units = said @ first.weight.T + first.bias + own.places[f"{kind}{len(path)}"][int(path[-1])]
    return (level + F.elu(units) @ last.weight.T + last.bias).exp()


def unbounded(action, c):
    """An action's numbers before they are bounded, and the log of the bounds' slope there."""
    share = (action[:, :2] - c.min_scale) / (c.max_scale - c.min_scale)
    most = torch.tensor([c.max_rotation, c.max_shear, c.max_translation, c.max_translation])
    turn = action[:, 2:] / most
    raw = torch.cat([(share / (1 - share)).log(), turn.atanh()], 1)
    slope = [(c.max_scale - c.min_scale) * share * (1 - share), most * (1 - turn**2)]
    return raw, torch.cat(slope, 1).log().sum(1)


def near(raw):
    """An action's numbers, no farther out than floats tell actions apart; gradients pass."""
    most = torch.tensor([10.0, 10.0, 5.0, 5.0, 5.0, 5.0])
    return raw + (torch.minimum(torch.maximum(raw, -most), most) - raw).detach()


def log_normal(x, loc, scale):
    """The log-density of a diagonal normal, in nats."""
    each = -(((x - loc) / scale) ** 2) / 2 - torch.log(scale * math.sqrt(2 * math.pi))
    return each.flatten(1).sum(1)


class ByHand:
    """Terms of M images, each (M,), in nats, at values of all random sites, (M, d) by name.

    Args:
        images: (M, C, H, W), of whose pixels the density is, and at which the guide looks.
        looked: other images at which it looks.

    Attributes:
        p: log-density of each site in the model.
        q: likewise in the guide.
        kl: KL of the guide's normal from the model's, by site.
        pixels: log p(x | canvas) pixel by pixel, (M, pixels), of a normal likelihood.
        u: each site, (M, d), in units of the model's own normal.
        tree: the run.
    """

    def __init__(self, rnp, values, images, looked=None):
        c, n = rnp.config, len(images)
        held = Held(c, values)
        self.tree = rnp.model.recursion(values["z"], held)
        self.pixels = log_normal(
            images.reshape(-1, 1), self.tree.canvas.reshape(-1, 1), torch.tensor(c.sigma)
        ).view(n, -1)
        self.p, self.q, self.kl, self.u = {}, {}, {}, {}
        normals = guided(rnp, values, images if looked is None else looked)
        for name, (mean, deviation) in normals.items():
            x, slope = values[name], torch.zeros(n)
            loc, width = torch.zeros_like(x), torch.ones_like(x)
            if name != "z":
                loc = held.predicted[name]
                width = scale(rnp, name, loc).expand_as(x)
            if name[0] == "a":
                (x, slope), loc = unbounded(x, c), near(loc)
            self.u[name] = (x - loc) / width
            self.p[name] = log_normal(x, loc, width) - slope
            self.q[name] = log_normal(x, mean, deviation) - slope
            ratio = deviation / width
            each = (ratio**2 + ((mean - loc) / width) ** 2 - 1) / 2 - ratio.log()
            self.kl[name] = each.sum(1)


def guided(rnp, values, images):
    """Mean and scale, (M, d), of the guide's normal at each random site, by name."""
    lower, held = rnp.guide.lower, Held(rnp.config, values)
    rnp.model.recursion(values["z"], held, images)
    loc, raw = rnp.guide.top.encoder(images).chunk(2, 1)
    found = {"z": (loc, torch.log(1 + raw.exp()) + 1e-4)}
    for name, said in held.predicted.items():
        kind, depth, own = name[0], name.count("/"), scale(rnp, name, said)
        if own is None:
            continue
        if rnp.config.lower_guide.startswith("bottom_up"):
            seen = F.elu(lower.eye(held.glimpsed[name].flatten(1)))
        else:
            seen = F.elu(lower.encoder(images))
        place = lower.places[f"{kind}{depth}"][int(name.rsplit("/", 1)[1])]
        inputs = torch.cat([said, seen, place.expand(len(said), -1)], 1)
        shift, stretch = lower.networks[f"{kind}{depth}"](inputs).chunk(2, 1)
        loc = said + own * shift
        found[name] = near(loc) if kind == "a" else loc, own * stretch.exp()
    return found


def drawn(guide, images, particles=1, together=False):
    """What a guide draws, (particles * N, d) by name; seeded before, as what it is held against.

    Where siblings are drawn together, as in training, one draw has other numbers than several.
    """
    with DensitiesOnly(together), pyro.plate("particles", particles, dim=-2):
        nodes = poutine.trace(guide).get_trace(images).nodes
    found = {}
    for name, site in nodes.items():
        if site["type"] != "sample" or name in ("images", "particles"):
            continue
        value = site["value"].flatten(0, 1)
        if "*" in name:
            found |= {name.replace("*", str(i)): x for i, x in enumerate(value.unbind(1))}
        else:
            found[name] = value
    return found
