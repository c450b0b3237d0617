"""The RNP as a probabilistic program: p(x, z^K) and q(z^K | x), in Pyro."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pyro
import torch
from jaxtyping import Float
from pyro.poutine.indep_messenger import IndepMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_rnp import flat, likelihoods, lower_guides, recursion  # noqa: F401 (they put their names down)
from pyro_rnp.affine import warp
from pyro_rnp.checks import check_images
from pyro_rnp.config import RNPConfig
from pyro_rnp.guides import Guide
from pyro_rnp.levels import RandomSites, Run, Scales
from pyro_rnp.params import register
from pyro_rnp.registry import LIKELIHOODS, PRIORS, PROGRAMS
from pyro_rnp.tree import ParseTree


class Model(nn.Module):
    """The generative model, an ordinary Pyro callable.

    Sites, under the plate `images`: `z` the program z^K; `z/0`, `z/0/2`, ... the programs of parts
    and sub-parts and `a/0`, `a/0/2`, ... their actions, each drawn where the configuration has it
    random and deterministic otherwise, a part's action before its program; `canvas` the image
    before noise (deterministic); `x` the image. In training mode (`model.train()`) there is also
    the auxiliary factor `part_term`, see `part_term`.
    """

    def __init__(self, config: RNPConfig) -> None:
        super().__init__()
        self.config = config
        self.prior = PRIORS.make(config.prior, config)
        self.scales = Scales(config)
        self.recursion = PROGRAMS.make(config.program, config)
        self.likelihood = LIKELIHOODS.make(config.likelihood, config)
        self.sharing = False
        self.shared: Run | None = None
        """The guide's run of the recursion, while `one_run` lasts."""

    @contextmanager
    def one_run(self) -> Iterator[None]:
        """Let the model take over the guide's run of the recursion, where there is one.

        Where levels below the top are random, the guide runs the recursion to propose their sites,
        and a model that is replayed with just these values would run it again, to the same end.
        Not for parameters that change in between.
        """
        self.sharing = True
        try:
            yield
        finally:
            self.sharing, self.shared = False, None

    def forward(self, images: Tensor | None = None, num_images: int = 1) -> ParseTree:
        """Run the program.

        Args:
            images: (N, C, H, W) in [0, 1], observed at `x`; None samples them.
            num_images: N where `images` is None.

        Returns:
            The tree; under vectorised particles the leading dimensions are flattened into one.

        Raises:
            ValueError: if the images are not of the shape and type that the configuration says.
        """
        register(self)
        if images is not None:
            check_images(images, self.config, values=False)
        n = num_images if images is None else len(images)
        with pyro.plate("images", n, dim=-1):
            z = pyro.sample("z", self.prior())
            batch = torch.broadcast_shapes(z.shape[:-1], _plates())  # (N,), or (particles, N)
            named = partial(pyro.deterministic, event_dim=1)
            sites = RandomSites(self.config, self.scales, batch, pyro.sample, named)
            run, self.shared = self.shared, None
            if run is not None and run.z is z and z.shape[:-1] == batch and sites.again(run):
                tree = run.tree
            else:
                tree = self.recursion(z.expand(*batch, -1).flatten(0, -2), sites)
            canvas = pyro.deterministic("canvas", tree.canvas.unflatten(0, batch), event_dim=3)
            canvas = canvas.expand(*batch, -1, -1, -1)
            tree = replace(tree, canvas=canvas.flatten(0, -4))
            pyro.sample("x", self.likelihood(canvas), obs=images)
            if self.training and images is not None and self.config.part_weight:
                repeated = images.expand(*batch, *images.shape[1:]).flatten(0, -4)
                error = part_term(tree, repeated).view(batch)
                pyro.factor(
                    "part_term", -self.config.part_weight * error / (2 * self.config.sigma**2)
                )
        return tree

    def run(self, z: Tensor) -> ParseTree:
        """Run programs z^K, (N, |z|), with what is random below drawn; without Pyro."""

        def draw(_: str, distribution: Distribution) -> Tensor:
            return distribution.sample()

        return self.recursion(z, RandomSites(self.config, self.scales, z.shape[:-1], draw))


def _plates() -> torch.Size:
    """The batch shape of the plates that are open; a value given from outside may have less."""
    sizes = {
        p.dim: getattr(p, "subsample_size", p.size)
        for p in _PYRO_STACK
        if isinstance(p, IndepMessenger) and p.dim
    }
    return torch.Size([sizes.get(dim, 1) for dim in range(min(sizes), 0)])


def part_term(tree: ParseTree, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n"]:
    """Squared error of the parents' own decodings of their parts (equation (1)).

    D_θ(h_state) of each part that is itself a program is held against the glimpse of the image at
    the part's place, with no gradient through the target; summed over pixels, averaged over the
    parts of a level, summed over levels. Its target comes from the image itself, so it is no part
    of the generative model.
    """
    error = torch.zeros_like(images[:, 0, 0, 0])
    for depth in range(1, tree.level):
        maps, parts = tree.matrices(depth), tree.nodes(depth)
        with torch.no_grad():
            repeated = images.repeat_interleave(len(parts), 0)
            targets = warp(repeated, maps.flatten(0, 1), parts[0].canvas.shape[-1])
        decodings = torch.stack([part.decoding for part in parts if part.decoding is not None], 1)
        wrong = decodings - targets.view_as(decodings)
        error = error + wrong.square().sum((-3, -2, -1)).mean(1)
    return error


class RNP(nn.Module):
    """A recursive neural program: `model` and `guide`, parsing and sampling.

    >>> rnp = RNP(RNPConfig(image_size=8, patch_size=4, steps=(2, 2), program_size=3))
    >>> tree = rnp.parse(torch.rand(5, 1, 8, 8))
    >>> tree.canvas.shape, tree[1][0].action.shape
    (torch.Size([5, 1, 8, 8]), torch.Size([5, 6]))
    """

    def __init__(self, config: RNPConfig | None = None) -> None:
        super().__init__()
        self.config = RNPConfig() if config is None else config
        self.model = Model(self.config)
        self.guide = Guide(self.config)
        self.guide.attach(self.model)
        for piece in (self.guide.top, self.model.prior, self.model.likelihood):
            if hasattr(piece, "attach"):
                piece.attach(self)

    def parse(self, images: Tensor, sample: bool = False) -> ParseTree:
        """Take images apart: run the programs at the guide's centre, or at a sample of it.

        The centre is the mean; of a flow, and of an action, what becomes of the mean before it.

        Args:
            images: (N, C, H, W) in [0, 1], looked at before use.
            sample: draw z^K, and what is random below, from the guide instead of taking the centre.

        Raises:
            ValueError: if the images have another shape, type or range, or are none.
        """
        self.check(images)
        return self.guide.parse(images, sample)

    def check(self, images: Tensor) -> None:
        """Raise unless images are what the model reads and its likelihood can give.

        Raises:
            ValueError: if the images have another shape, type or range, are none, or are such as
                the likelihood does not give.
        """
        check_images(images, self.config)
        support = self.model.likelihood(images[:1].to(self.device)).support
        if not support.check(images.cpu()).all():
            raise ValueError(
                f"The likelihood {self.config.likelihood} gives no images like these: pixels must "
                "be 0 or 1 for bernoulli, and --binarize true makes them so."
            )

    @torch.no_grad()
    def sample(self, num_images: int) -> ParseTree:
        """Draw programs from the prior and run them, at most 1,000 at a time, without gradients.

        Raises:
            ValueError: if `num_images` is not positive.
        """
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {num_images}.")
        z = self.model.prior().sample((num_images,))
        return ParseTree.join([self.model.run(some) for some in z.split(1000)])

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device
