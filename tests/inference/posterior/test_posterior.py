"""Means, errors and trust of weighted samples, against their formulas."""

import csv
import json
import math
import pickle
import tempfile
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pyro
import pytest
import torch
from pyro.ops.stats import effective_sample_size

from inference.posterior import POSE, query
from inference.posterior import posterior as module
from inference.posterior.weights import importance_weights
from pyro_rnp import RNP
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("double")

S, N = 200, 3


def test_the_evidence_and_its_error_are_those_of_the_mean_weight():
    log_weights = torch.randn(S, N) - 40
    found, w = importance_weights(log_weights), (log_weights + 40).exp()
    mean = w.sum(0) / S
    deviation = ((w - mean).square().sum(0) / (S - 1)).sqrt()
    torch.testing.assert_close(found.weights, w / w.sum(0))
    torch.testing.assert_close(found.log_evidence, mean.log() - 40)
    torch.testing.assert_close(found.log_evidence_error, deviation / S**0.5 / mean)
    torch.testing.assert_close(found.effective_samples, w.sum(0) ** 2 / w.square().sum(0))


@pytest.mark.parametrize("method", ["importance", "guide"])
def test_moments_and_their_errors_are_those_of_the_formulas(method):
    answer = query(RNP(tiny()), torch.rand(N, 1, 8, 8), method=method, num_samples=S)
    log_weights = 2 * torch.randn(S, N)
    raw = log_weights.exp() / log_weights.exp().sum(0)
    w = raw if method == "importance" else torch.full((S, N), 1 / S)
    answer = replace(answer, weights=w, log_weights=log_weights)
    samples = answer.samples["z"]
    for n in range(N):
        x = samples[:, n]
        mean = sum(w[s, n] * x[s] for s in range(S))
        squares = sum(w[s, n] * (x[s] - mean) ** 2 for s in range(S))
        error = sum((w[s, n] * (x[s] - mean)) ** 2 for s in range(S)).sqrt()
        outer = torch.stack([torch.outer(row - mean, row - mean) for row in x])
        covariance = sum(w[s, n] * outer[s] for s in range(S))
        spread = sum((w[s, n] * (outer[s] - covariance)) ** 2 for s in range(S)).sqrt()
        if method == "guide":  # and how far the weights would move it
            moved = sum(raw[s, n] * x[s] for s in range(S))
            error = (error**2 + (moved - mean) ** 2).sqrt()
            about = torch.stack([torch.outer(row - moved, row - moved) for row in x])
            other = sum(raw[s, n] * about[s] for s in range(S))
            spread = (spread**2 + (other - covariance) ** 2).sqrt()
        torch.testing.assert_close(answer.mean("z")[n], mean)
        torch.testing.assert_close(answer.variance("z")[n], squares)
        torch.testing.assert_close(answer.standard_error("z")[n], error)
        torch.testing.assert_close(answer.covariance("z")[n], covariance)
        torch.testing.assert_close(answer.covariance_error("z")[n], spread)


def test_chains_are_judged_by_the_number_that_mixes_worst(monkeypatch):
    rnp, chains, each = RNP(tiny(stochastic="actions,none")), 4, 50
    u = torch.randn(chains, each, N, 3 + 2 * 6)
    u[..., 1] += 0.5 * torch.arange(float(chains)).view(-1, 1, 1)  # of z
    u[..., 7] += 0.05 * torch.arange(float(each)).view(-1, 1)  # of a/0
    monkeypatch.setattr("inference.posterior.nuts.sample_chains", lambda *_: (u, 0))
    images = torch.rand(N, 1, 8, 8)
    answer = query(rnp, images, method="nuts", num_samples=chains * each, steps=0, chains=chains)
    halves = u.view(2 * chains, each // 2, N, -1)
    within, between = halves.var(1).mean(0), halves.mean(1).var(0)
    r_hat = (1 - 2 / each + between / within).sqrt()
    for name, (first, last) in {"z": (0, 3), "a/0": (3, 9), "a/1": (9, 15)}.items():
        torch.testing.assert_close(answer.r_hat[name], r_hat[:, first:last].amax(1))
    size = torch.stack([effective_sample_size(u[..., i], 0, 1) for i in range(15)])
    torch.testing.assert_close(answer.effective_samples, size.amin(0))
    assert min(answer.r_hat[name].min() for name in ("z", "a/0")) > 1.05
    assert not answer.trusted.any()


METHODS = ("mean", "variance", "standard_error", "covariance", "interval")


def test_of_more_trees_than_are_kept_a_few_images_run_at_a_time(monkeypatch, unchecked):
    rnp, images = RNP(tiny(stochastic="actions")), torch.rand(5, 1, 8, 8)
    options = {"mask": torch.arange(8) < 5, "method": "importance", "num_samples": 20}
    options["mask"] = options["mask"].expand(8, 8)
    whole, pieces = query(rnp, images, **options), query(rnp, images, **options)
    two = 2 * 20 * whole.tree.nbytes // 100
    monkeypatch.setattr(module, "KEPT", two)
    monkeypatch.setattr("inference.posterior.log_density.AT_ONCE", 15)
    largest = 0
    log_joint = module.LogDensity.log_joint

    def run(self, u):
        nonlocal largest
        log_p, tree = log_joint(self, u)
        largest = max(largest, tree.nbytes)
        return log_p, tree

    monkeypatch.setattr(module.LogDensity, "log_joint", run)
    same = torch.testing.assert_close
    for row, wanted in zip(pieces.summary(pixels=True), whole.summary(pixels=True), strict=True):
        assert row == pytest.approx(wanted)
    for name in ("z", "a/1", "pose/1/0", "canvas"):
        for statistic in METHODS:
            same(getattr(pieces, statistic)(name), getattr(whole, statistic)(name))
        same(pieces.samples[name], whole.samples[name])
        same(pieces.resample(3, name), whole.resample(3, name))
    same(pieces.covariance_error("a/1"), whole.covariance_error("a/1"))
    for depth in (1, 2):
        same(pieces.part_probabilities(depth), whole.part_probabilities(depth))
    same(pieces.log_likelihood, whole.log_likelihood)
    for i in (1, 4):
        for name, moments in pieces.to_dict(i)["sites"].items():
            for kind, value in moments.items():
                same(torch.tensor(value), torch.tensor(whole.to_dict(i)["sites"][name][kind]))
    assert [len(part.trusted) for part in pieces.split()] == [2, 2, 1]
    assert next(whole.split()) is whole
    assert "tree" not in vars(pieces)
    assert 0 < largest < two
    same(pieces[1:4].mean("canvas"), whole.mean("canvas")[1:4])
    same(pieces[1:4].r_hat, {})
    same(pieces.tree.canvas, whole.tree.canvas)


def test_the_error_of_a_covariance_of_a_large_site_is_computed_in_pieces(images, monkeypatch):
    answer = query(RNP(tiny()), images, method="importance", num_samples=20)
    whole, covariance = answer.covariance_error("canvas"), answer.covariance("canvas")
    largest, error = 0, module.Posterior._error

    def measured(self, values, mean):
        nonlocal largest
        largest = max(largest, values.numel())
        return error(self, values, mean)

    monkeypatch.setattr(module.Posterior, "_error", measured)
    monkeypatch.setattr(module, "PIECE", 7 * 20 * 4 * 64)
    torch.testing.assert_close(answer.covariance_error("canvas"), whole)
    assert largest == 7 * 20 * 4 * 64
    needed = 3 * covariance.nbytes
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: needed)
    torch.testing.assert_close(answer.covariance("canvas"), covariance)
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: needed - 1)
    for ask in (answer.covariance, answer.covariance_error):
        with pytest.raises(ValueError, match="covariance of canvas of 4 images needs .* fewer im"):
            ask("canvas")


def test_trees_and_sites_that_memory_does_not_hold_are_refused(images, monkeypatch):
    answer = query(RNP(tiny()), images, method="importance", num_samples=50)
    size = answer._nbytes
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: 2 * size - 1)
    with pytest.raises(
        ValueError, match=r"The trees of 50 samples of 4 images need .* sample\(k\)"
    ):
        _ = answer.tree
    monkeypatch.setattr(module, "KEPT", size - 1)
    assert answer.mean("canvas").shape == (4, 1, 8, 8)
    needed = 50 * images.nbytes
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: needed)
    assert answer.samples["canvas"].nbytes == needed
    monkeypatch.setattr("inference.posterior.log_density.available_memory", lambda _: needed - 1)
    with pytest.raises(ValueError, match="canvas of 50 samples of 4 images needs"):
        answer.samples["canvas"]
    with pytest.raises(KeyError, match="There is no site 'z/7'; there are canvas, z, a/0"):
        answer.samples["z/7"]


class Stored(torch.nn.Module):
    """A prior with a parameter of its own in Pyro's store."""

    def forward(self):
        loc = pyro.param("stored.loc", torch.zeros(3))
        return pyro.distributions.Normal(loc, 1.0).to_event(1)


def test_a_posterior_speaks_for_the_weights_that_it_was_asked_with(images):
    rnp = RNP(tiny(), prior=Stored())
    pyro.param("stored.loc", torch.ones(3))
    options = {"method": "importance", "num_samples": 20}
    before, later = query(rnp, images, **options), query(rnp, images, **options)
    wanted, likelihood = before.tree.canvas, before.log_likelihood
    with tempfile.NamedTemporaryFile() as file:
        svi = pyro.infer.SVI(
            rnp.model, rnp.guide, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO()
        )
        for _ in range(3):
            svi.step(images)
        pyro.get_param_store().save(file.name)
        pyro.get_param_store().load(file.name)
    assert not torch.allclose(query(rnp, images, **options).tree.canvas, wanted)
    assert pyro.param("stored.loc").ne(1).all()
    store = dict(pyro.get_param_store().named_parameters())
    assert torch.equal(later.tree.canvas, wanted)
    assert torch.equal(later.log_likelihood, likelihood)
    assert dict(pyro.get_param_store().named_parameters()).keys() == store.keys()
    pyro.clear_param_store()
    again = pickle.loads(pickle.dumps(query(rnp, images, **options)))
    assert torch.equal(again.tree.canvas, deepcopy(again).tree.canvas)


def answered(method="importance", **changes):
    rnp = RNP(tiny(**changes)).eval()
    return query(rnp, torch.rand(N, 1, 8, 8), method=method, num_samples=S)


def test_a_quantile_is_the_smallest_sample_that_enough_weight_reaches():
    answer = answered()
    uneven = (3 * torch.randn(S, N)).softmax(0)
    answer = replace(answer, weights=uneven)
    q = [0.0, 0.05, 0.5, 0.9, 1.0]
    found = answer.quantile("a/0", q)
    assert found.shape == (5, N, 6)
    for n in range(N):
        for field in range(6):
            x = answer.samples["a/0"][:, n, field]
            order = x.argsort()
            reached = answer.weights[order, n].cumsum(0)
            wanted = [x[order][(reached >= p - 1e-6) & (reached > 0)][0] for p in q]
            assert found[:, n, field].tolist() == [float(value) for value in wanted]
    assert answer.quantile("canvas", 0.5).shape == answer.mean("canvas").shape
    assert torch.equal(answer.quantile("canvas", 0.5), answer.quantile("canvas", [0.5])[0])
    assert torch.equal(answer.interval("z", 0.8), answer.quantile("z", [0.1, 0.9]))
    alike = replace(answer, weights=torch.full((S, N), 1 / S))
    q = [0.05, 0.26, 0.5, 0.7, 1.0]
    wanted = np.quantile(alike.samples["z"].numpy(), q, axis=0, method="inverted_cdf")
    assert torch.equal(alike.quantile("z", q), torch.tensor(wanted))
    one = replace(answer, weights=torch.eye(S)[:, [7]].expand(-1, N))
    for q in (0.0, 0.3, 1.0):
        assert torch.equal(one.quantile("z", q), one.samples["z"][7]), "all else weighs nothing"
    for wrong in (1.5, [0.5, -0.1], math.nan):
        with pytest.raises(ValueError, match=r"q must lie in \[0, 1\], got"):
            answer.quantile("z", wrong)
    for level in (0.0, 1.0, 95.0):
        with pytest.raises(ValueError, match=f"level must lie between 0 and 1, got {level}"):
            answer.interval("z", level)
        with pytest.raises(ValueError, match=f"level must lie between 0 and 1, got {level}"):
            answer.summary(level=level)


def test_samples_are_drawn_by_weight_as_trees():
    answer = answered()
    weights = torch.zeros(S, N)
    weights[3], weights[5] = 0.25, 0.75
    answer = replace(answer, weights=weights)
    tree = answer.sample(4000)
    for name in ("canvas", "a/1"):
        drawn = tree.sites()[name].unflatten(0, (4000, N))
        assert torch.equal(drawn, answer.resample(4000, name))
        third, fifth = answer.samples[name][3], answer.samples[name][5]
        first = (drawn == third).flatten(2).all(2)
        assert (first | (drawn == fifth).flatten(2).all(2)).all()
        assert first.double().mean() == pytest.approx(0.25, abs=0.03)
    assert not torch.equal(answer.sample(20, seed=1).canvas, answer.sample(20).canvas)


def test_an_image_is_a_posterior_and_a_number_of_none_is_refused(images):
    answer = query(RNP(tiny()), images, method="importance", num_samples=30)
    torch.testing.assert_close(answer[-1].mean("z"), answer.mean("z")[-1:])
    assert [len(each.log_evidence) for each in answer] == [1] * len(images)
    with pytest.raises(IndexError):
        answer[len(images)]
    with pytest.raises(ValueError, match=r"num must be at least 1, got 0\."):
        answer.sample(0)
    half = answer.quantile("z", torch.tensor(0.5))
    assert torch.equal(half, answer.quantile("z", 0.5))
    with pytest.raises(ValueError, match=r"steps must be at least 0, got -1\."):
        query(RNP(tiny()), images, steps=-1)


def test_a_pose_is_where_the_part_lies_in_the_pixels_of_the_image():
    answer = answered(steps=(2, 3), stochastic="actions")
    size = 8
    for name, path in {"pose/1": (1,), "pose/1/2": (1, 2)}.items():
        pose = answer.samples[name]
        assert pose.shape == (S, N, 6)
        maps = torch.eye(3).expand(S, N, 3, 3)
        for depth in range(1, len(path) + 1):  # each frame in that above, by its definition
            site = "/".join(["a", *map(str, path[:depth])])
            sx, sy, turn, shear, x, y = answer.samples[site].unbind(-1)
            one, zero = torch.ones_like(x), torch.zeros_like(x)
            rows = [[turn.cos(), -turn.sin(), x], [turn.sin(), turn.cos(), y], [zero, zero, one]]
            placed = torch.stack([torch.stack(row, -1) for row in rows], -2)
            rows = [[sx, shear * sy, zero], [zero, sy, zero], [zero, zero, one]]
            maps = maps @ placed @ torch.stack([torch.stack(row, -1) for row in rows], -2)
        centre = (maps[..., :2, 2] + 1) * size / 2
        torch.testing.assert_close(pose[..., :2], centre)
        along, across = maps[..., :2, 0], maps[..., :2, 1]
        torch.testing.assert_close(pose[..., 2], along.norm(dim=-1) * size)
        area = (along[..., 0] * across[..., 1] - along[..., 1] * across[..., 0]).abs()
        torch.testing.assert_close(pose[..., 2] * pose[..., 3], area * size**2)
        degrees = torch.atan2(along[..., 1], along[..., 0]) * 180 / math.pi
        torch.testing.assert_close(pose[..., 4], degrees)
    assert POSE[:5] == ("x", "y", "width", "height", "rotation")
    for wrong in ("pose", "pose/2", "pose/0/0/0"):
        with pytest.raises(KeyError, match=f"There is no site '{wrong}'"):
            answer.mean(wrong)
    assert "pose/1" not in list(answer.samples)


@pytest.mark.parametrize("method", ["importance", "guide", "nuts", "svi"])
def test_a_summary_is_a_table_of_every_number(method, tmp_path):
    rnp, images = RNP(tiny()), torch.rand(2, 1, 8, 8)
    sizes = {"num_samples": 24, "steps": 2, "warmup": 2, "chains": 2}
    answer = query(rnp, images, method=method, **sizes)
    table = answer.summary(level=0.8)
    names = [name for name in answer.samples if name != "canvas"]
    assert len(table) == 2 * sum(answer.samples[name].shape[-1] for name in names)
    assert [row["image"] for row in table] == [0] * (len(table) // 2) + [1] * (len(table) // 2)
    (row,) = [r for r in table if (r["image"], r["site"], r["field"]) == (1, "a/1", "rotation")]
    low, high = answer.interval("a/1", 0.8)[:, 1, 2].tolist()
    sd = float(answer.variance("a/1")[1, 2]) ** 0.5
    error = float(answer.standard_error("a/1")[1, 2])
    wanted = {"mean": float(answer.mean("a/1")[1, 2]), "sd": sd, "10%": low, "90%": high}
    assert [*row] == ["image", "site", "field", *wanted, "error", "ess"]
    most = float(answer.effective_samples[1]) if answer.kind == "weighted" else math.inf
    wanted |= {"error": error, "ess": min((sd / error) ** 2, most)}
    assert {name: row[name] for name in wanted} == pytest.approx(wanted)
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    table.to_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv") as file:
        read = list(csv.DictReader(file))
    assert [float(row["mean"]) for row in read] == [row["mean"] for row in table]
    lines = repr(table).splitlines()
    assert lines[0].split() == [*row]
    assert lines[1].split()[:3] == ["0", "z", "0"]
    assert lines[-1] == f"... and {len(table) - table.SHOWN} more rows"
    assert len(lines) == table.SHOWN + 2
    poses = answer.summary(["z", "a/0/0"], pixels=True)
    assert [row["field"] for row in poses][:9] == ["0", "1", "2", *POSE]
    assert poses[3]["mean"] == pytest.approx(float(answer.mean("pose/0/0")[0, 0]))


def test_a_summary_leaves_out_what_is_not_known():
    rnp = RNP(tiny())
    row = query(rnp, torch.rand(1, 1, 8, 8), method="importance", num_samples=1).summary()[0]
    assert row["error"] is None, "of a single sample"
    assert row["ess"] is None
    row = query(rnp, given={"z": torch.zeros(3)}).summary()[0]
    assert row["error"] == 0, "of what is given"
    assert row["ess"] is None
    assert " -" in repr(query(rnp, given={"z": torch.zeros(3)}).summary())
