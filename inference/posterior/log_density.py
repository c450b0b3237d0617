"""The model given evidence, as the log-density of one vector u for each image.

u holds all sites that are random and not given, in coordinates in which it is a standard normal
before any evidence is seen, as far as priors are normal.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer.reparam.reparam import Reparam
from torch import Tensor
from torch.distributions import constraints
from tqdm import tqdm

from inference.posterior.evidence import Evidence
from inference.posterior.reparam import MaskedLikelihood, NonCentered, whiten
from inference.system import available_memory
from inference.traces import latent_sites, log_joint, per_image
from pyro_rnp import RNP, ParseTree

AT_ONCE = 1000
"""Images that are run together."""
WITH_GRADIENTS = 256
"""Images that are run together with gradients, which keep all that was computed."""


class LogDensity:
    """log p(u, evidence) of N images, with proposals from the guide.

    Args:
        rnp: the model and its guide; the caller freezes it (`inference.isolation.frozen`).
        evidence: pixels and sites that are known.
        progress: whether to show bars where it takes more than five seconds; or a function that is
            called before each run of the model.

    Attributes:
        sizes: numbers of u of each random site, by name.
        size: D, the length of u; 0 where the evidence holds every random site.

    Raises:
        ValueError: if the model draws a site once for all images.
    """

    def __init__(
        self, rnp: RNP, evidence: Evidence, progress: bool | Callable[[], object] = False
    ) -> None:
        self.rnp, self.evidence, self.progress = rnp, evidence, progress is True
        self._tell: Callable[[], object] = progress if callable(progress) else lambda: None
        self._repeated = 1, evidence
        few = self.groups(AT_ONCE)[0]
        trace: Any = poutine.trace(few._model(1)).get_trace()
        random = per_image(latent_sites(trace))
        self._each: int = trace.nodes["_RETURN"]["value"].nbytes // len(few.evidence.images)
        self.sizes = {name: site["value"].shape[-1] for name, site in random.items()}
        self.size = sum(self.sizes.values())

    @property
    def nbytes(self) -> int:
        """Bytes of the trees of one sample of all images."""
        return self._each * len(self.evidence.images)

    def groups(self, most: int) -> list[LogDensity]:
        """Return the densities of groups of images in order, of at most so many images each."""
        n = len(self.evidence.images)
        if n <= most:
            return [self]
        found = [copy.copy(self) for _ in range(0, n, most)]
        for k, part in enumerate(found):
            part.evidence = self.evidence.take(slice(k * most, (k + 1) * most))
            part._repeated = 1, part.evidence
        return found

    def check_memory(self, num: int) -> None:
        """Raise unless memory holds u of `num` samples and the trees that run together.

        Args:
            num: samples for each image.

        Raises:
            ValueError: if the memory that is free is too small.
        """
        n, num = len(self.evidence.images), num if self.size else 1
        u = num * n * self.size * self.evidence.images.element_size()
        needed = 3 * u + 2 * self.nbytes * min(num, max(1, AT_ONCE // n))
        what = f"num_samples of {num} for {n} images needs"
        instead = "take fewer num_samples, or fewer images at a time"
        check_memory(needed, self.rnp.device, what, instead)

    def _model(self, copies: int, u: Tensor | None = None, rows: Tensor | None = None) -> Any:
        """A Pyro model of the evidence; with u, nothing in it is random.

        The evidence is that of all images, `copies` times over, or of the images of `rows`.
        """
        self._tell()
        if rows is None and copies != self._repeated[0]:  # a sampler asks for one number for long
            self._repeated = copies, self.evidence.repeat(copies)
        evidence = self._repeated[1] if rows is None else self.evidence.take(rows)
        sites: dict[str, Reparam] = {"x": MaskedLikelihood(evidence.seen)}
        if u is not None:
            sites |= {name: NonCentered(own) for name, own in self.by_site(u).items()}
        conditioned = poutine.condition(self.rnp.model, data=evidence.hard)
        masked = poutine.reparam(conditioned, config=sites)

        def model() -> ParseTree:
            nodes: Any = poutine.trace(masked).get_trace(evidence.images).nodes
            with pyro.plate("given", len(evidence.images), dim=-1):
                for name, (value, tolerance) in evidence.soft.items():
                    around = dist.Normal(nodes[name]["value"], tolerance).to_event(1)
                    pyro.sample(f"{name}/given", around, obs=value)
            return nodes["_RETURN"]["value"]

        return poutine.block(model, hide_types=["param"])

    def model(self) -> None:
        """Run the density as a Pyro model with one latent, u, (N, D), of an improper flat prior."""
        with pyro.plate("batch", len(self.evidence.images), dim=-1):
            u = pyro.sample("u", dist.ImproperUniform(constraints.real_vector, (), (self.size,)))
        self._model(1, u)()

    def by_site(self, u: Tensor) -> dict[str, Tensor]:
        """Split u into the slices of the random sites.

        Args:
            u: (..., D).

        Returns:
            (..., d) for each random site of d numbers, by name.
        """
        return dict(zip(self.sizes, u.split(list(self.sizes.values()), -1), strict=True))

    def log_joint(self, u: Tensor, rows: Tensor | None = None) -> tuple[Tensor, ParseTree]:
        """Return log p(u, evidence), in nats, with its gradient, and the trees.

        Args:
            u: (S * N, D), all N of the first sample first.
            rows: the image of each row of u, (M,), where u is (M, D) of other images than that.

        Returns:
            As many numbers, (S * N,) or (M,), and as many trees.
        """
        model = self._model(len(u) // len(self.evidence.images), u, rows)
        trace: Any = poutine.trace(model).get_trace()
        return log_joint(trace, len(u)), trace.nodes["_RETURN"]["value"]

    def at(self, values: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, ParseTree]:
        """Return u, log |d values / d u|, log p(values, evidence) and the trees at site values.

        Args:
            values: every random site, (S * N, d) by name.

        Returns:
            (S * N, D), (S * N,), (S * N,), the last two in nats, and S * N trees.
        """
        n = len(next(iter(values.values())))
        model = poutine.condition(self._model(n // len(self.evidence.images)), data=dict(values))
        trace: Any = poutine.trace(model).get_trace()
        whitened = [whiten(trace.nodes[name]["fn"], values[name]) for name in self.sizes]
        log_det = torch.stack([log_det for _, log_det in whitened]).sum(0)
        tree = trace.nodes["_RETURN"]["value"]
        return torch.cat([u for u, _ in whitened], -1), log_det, log_joint(trace, n), tree

    def visit(self, u: Tensor) -> Tensor:
        """Return log p(u, evidence) of samples, a few at a time.

        Args:
            u: (S, N, D).

        Returns:
            (S, N), in nats.
        """
        few = [self._run(some)[0] for some in self._few(u, "weighing")]
        return torch.cat(few).unflatten(0, u.shape[:2])

    def trees(self, u: Tensor) -> Iterator[ParseTree]:
        """Run the programs of samples, a few samples at a time.

        Args:
            u: (S, N, D).

        Yields:
            Trees of s * N images, all N of the first sample first, until there are S * N.
        """
        for some in self._few(u, "running programs"):
            yield self._run(some)[1]

    def _run(self, u: Tensor) -> tuple[Tensor, ParseTree]:
        """`log_joint` of samples, (s, N, D), without gradients; of many images a few at a time."""
        few = [
            part.log_joint(some.flatten(0, 1))
            for part, some in zip(self.groups(AT_ONCE), u.split(AT_ONCE, 1), strict=True)
        ]
        if len(few) == 1:
            return few[0]
        log_p, trees = zip(*few, strict=True)  # of many images, samples come one by one
        return torch.cat(log_p), ParseTree.join(list(trees))

    def log_likelihood(self, canvas: Tensor) -> Tensor:
        """Return log p(seen pixels | canvas) of each sample.

        Args:
            canvas: (S, N, C, H, W).

        Returns:
            (S, N), in nats.
        """
        s, n = canvas.shape[:2]
        evidence = self.evidence.repeat(s)
        fn = self.rnp.model.likelihood(canvas.flatten(0, 1))
        masked = MaskedLikelihood(evidence.seen).apply({"fn": fn})["fn"]
        found: Tensor = masked.log_prob(evidence.images).view(s, n)
        return found

    def _few(self, samples: Tensor, label: str) -> Iterable[Tensor]:
        """Samples a few at a time, with a bar where that takes long."""
        few = samples.split(max(1, AT_ONCE // len(self.evidence.images)))
        return tqdm(few, label, disable=not self.progress, delay=5)

    def propose(self, num: int, broad: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """Draw samples of the guide or, where no pixel is seen, of the prior.

        Where pixels are hidden, programs z^K are of the guide that has seen masks, if the model has
        one; else the guide of whole images looks at the images that `fill_hidden` completes.

        Args:
            num: samples for each image.
            broad: how many of them, the last ones, have a program of the prior where the guide that
                has seen masks gives the others. Then q is the mixture of the two, which bounds the
                weights (Hesterberg, 1995). By default none.

        Returns:
            u, (num, N, D), log q(u) and log p(u, evidence), (num, N) in nats.
        """
        groups = self.groups(AT_ONCE)
        if len(groups) > 1:
            drawn = [part.propose(num, broad) for part in groups]
            u, q, p = (torch.cat(some, 1) for some in zip(*drawn, strict=True))
            return u, q, p
        seen, images = self.evidence.seen, self.evidence.images
        programs = None
        if self.rnp.guide.masked is not None and not seen.all() and "z" in self.sizes:
            images = images.masked_fill(~seen, torch.nan)
            programs = self._programs(images, num, broad) if seen.any() else None
        elif seen.any():
            images = self.fill_hidden()
        us, log_qs, log_ps = [], [], []
        for k in self._few(torch.arange(num), "proposing"):
            hard = self.evidence.repeat(len(k)).hard
            if not seen.any():
                trace = poutine.trace(self._model(len(k))).get_trace()
            else:
                if programs is not None:
                    hard = {**hard, "z": programs[0][k].flatten(0, 1)}
                guide = poutine.condition(self.rnp.guide, data=hard)
                trace = poutine.trace(guide).get_trace(images.repeat(len(k), 1, 1, 1))
            values = {name: trace.nodes[name]["value"] for name in self.sizes}
            u, log_det, log_values, _ = self.at(values)
            log_q = {name: trace.nodes[name]["fn"].log_prob(values[name]) for name in self.sizes}
            if programs is not None:
                log_q["z"] = programs[1][k].flatten()
            us.append(u.view(len(k), -1, self.size))
            log_qs.append((sum(log_q.values()) + log_det).view(len(k), -1))
            log_ps.append((log_values + log_det).view(len(k), -1))
        return torch.cat(us), torch.cat(log_qs), torch.cat(log_ps)

    def proposal_log_prob(self, num: int, broad: int) -> Callable[[Tensor], Tensor] | None:
        """Return the log-density of what `propose` draws, as a function of u.

        Args:
            num, broad: as for `propose`.

        Returns:
            A function from (S, N, D) to (S, N), in nats; None where there is none, but where the
            guide that has seen masks is used and programs z^K alone are random.
        """
        seen, (*names,) = self.evidence.seen, self.sizes
        if self.rnp.guide.masked is None or seen.all() or not seen.any() or names != ["z"]:
            return None
        images = self.evidence.images.masked_fill(~seen, torch.nan)
        q, prior = self.rnp.guide.seen_posterior(images), self.rnp.model.prior()

        def log_prob(u: Tensor) -> Tensor:
            z = NonCentered(u).apply({"fn": prior})["value"]
            return _mixed(q, prior, broad / num, z) + whiten(prior, z)[1]

        return log_prob

    def _programs(self, images: Tensor, num: int, broad: int) -> tuple[Tensor, Tensor]:
        """Programs, (num, N, |z|), of the guide that has seen masks, `broad` of them of the prior,
        and their log-densities, (num, N), under the mixture of both.
        """
        q, prior = self.rnp.guide.seen_posterior(images), self.rnp.model.prior()
        z = torch.cat([q.sample((num - broad,)), prior.sample((broad, len(images)))])
        return z, _mixed(q, prior, broad / num, z)

    def fill_hidden(self, rounds: int = 20) -> Tensor:
        """Fill in hidden pixels with the model's own expectation of them.

        A guide was trained on whole images. It is run on the image with hidden pixels at 0, then on
        the image with hidden pixels as the model expects them at the guide's sample, and so on; of
        all rounds the most probable one counts.

        Source: Rezende, Mohamed and Wierstra, "Stochastic backpropagation", 2014, appendix F.

        Returns:
            (N, C, H, W), the images where pixels are seen.
        """
        evidence, model, groups = self.evidence, self.rnp.model, self.groups(AT_ONCE)
        if evidence.seen.all():
            return evidence.images
        if len(groups) > 1:
            return torch.cat([part.fill_hidden(rounds) for part in groups])
        images = best = evidence.images
        most: Tensor | None = None
        guide = poutine.condition(self.rnp.guide, data=evidence.hard)
        for _ in range(rounds):
            guided = latent_sites(poutine.trace(guide).get_trace(images))
            _, _, log_p, tree = self.at({name: site["value"] for name, site in guided.items()})
            better = log_p > (-math.inf if most is None else most)
            most = log_p if most is None else torch.maximum(log_p, most)
            best = torch.where(better.view(-1, 1, 1, 1), images, best)
            expected = model.likelihood(tree.canvas).mean.clamp(0, 1)
            images = torch.where(evidence.seen, evidence.images, expected)
        return best


def check_memory(needed: int, device: torch.device, what: str, instead: str) -> None:
    """Raise unless that much memory is free.

    Args:
        needed: bytes.
        device: where they are needed.
        what: the beginning of the sentence, with its verb.
        instead: what to do.

    Raises:
        ValueError: if less is free.
    """
    free = available_memory(device)
    if needed > free:
        sizes = f"{needed / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} are free"
        raise ValueError(f"{what} {sizes}; {instead}.")


def _mixed(q: Any, prior: Any, share: float, z: Tensor) -> Tensor:
    """Log-density of a mixture of two distributions, with a share of the second one."""
    log_q = q.log_prob(z) + math.log1p(-share)
    return log_q.logaddexp(prior.log_prob(z) + math.log(share)) if share else log_q
