"""Colour images of other sizes through every score, posterior and picture."""

import math

import pytest
import torch

from inference.data import ImageSet, Splits
from inference.evaluation import build_dictionary, collect_parts
from inference.evaluation.completion import completion_metrics
from inference.evaluation.latent_space import (
    clusters,
    collect_programs,
    interpolate,
    latent_space_metrics,
    sample_cluster,
)
from inference.evaluation.metrics import evaluate
from inference.evaluation.one_shot import class_log_likelihood, exemplars
from inference.evaluation.reconstruction import reconstruction_metrics
from inference.evaluation.sample_quality import sample_quality_metrics
from inference.evaluation.segmentation import segmentation_metrics
from inference.plotting import (
    dictionary_figure,
    exemplar_figure,
    grid_figure,
    parse_figure,
    posterior_figure,
)
from inference.posterior import graft, half_mask, intervene, move, query
from inference.reproduction.figures import FigureInputs, figure_3, figure_4, figure_5, figure_6
from inference.training.diagnostics import problems
from pyro_rnp import RNP, RNPConfig
from tests.conftest import tiny

SMALL = {
    **{"program_size": 3, "hypernet_layers": 1, "hypernet_units": 4, "network_units": 4},
    **{"encoder_channels": 3, "encoder_layers": 1, "encoder_blocks": 4, "stochastic": "actions"},
}


def images_of(n, size, seed=0):
    """Squares of random colours at random places on black."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(n, 3, size, size)
    for image in images:
        x, y = (torch.rand(2, generator=generator) * size / 2).int().tolist()
        colour = torch.rand(3, 1, 1, generator=generator)
        image[:, y : y + size // 2, x : x + size // 2] = colour
    return images


def image_set(n, size, seed=0, classes=2):
    return ImageSet(images_of(n, size, seed), torch.arange(n) % classes)


@pytest.fixture(params=[20, 64], scope="module")
def rnp(request):
    torch.manual_seed(0)
    return RNP(RNPConfig.for_images(request.param, 3, steps=(2, 2), **SMALL)).eval()


@pytest.fixture
def size(rnp):
    return rnp.config.image_size


@pytest.fixture
def splits(size):
    return Splits(image_set(40, size), image_set(20, size, 1), image_set(20, size, 2))


def test_scores(rnp, splits, size):
    test = splits.test[:6]
    scores = evaluate(rnp, test, particles=2, train=splits.train)
    assert scores["sse_blank"] == pytest.approx(float(test.images.square().sum() / 6))
    assert scores["mse"] == pytest.approx(scores["sse"] / (3 * size**2))
    levels = reconstruction_metrics(rnp, test.images, train=splits.train)
    assert len(levels["explained_by_step"]) == 2
    seen = half_mask("right", size)
    methods = ("guide", "importance", "svi")
    found = completion_metrics(
        rnp, test.images, seen, splits.train.images, methods, num_samples=5, steps=2
    )
    hidden = test.images[..., size // 2 :].square().sum() / 6
    assert found["blank"]["sse"] == pytest.approx(float(hidden))
    assert all(math.isfinite(scores["sse"]) for scores in found.values())
    one = rnp.parse(test.images).contributions(2).sum(2)
    truth = torch.stack([one.argmax(1) // 2, one.argmax(1)], 1)
    known = ImageSet(test.images, test.labels, truth)
    assert segmentation_metrics(rnp, known, "guide", num_samples=5)["ari_subparts"] <= 1
    found = problems(rnp, test.images).keys()
    assert found <= {"ignored"}, (
        "canvases of a model that has not learned are neither blank nor alike"
    )


@pytest.mark.parametrize("method", ["guide", "importance", "svi", "smc"])
@pytest.mark.usefixtures("brief")
def test_queries(rnp, size, method, tmp_path):
    images = images_of(2, size)
    given = {"a/0": rnp.parse(images)[0].action}
    how = {"num_samples": 8, "steps": 2, "warmup": 2, "chains": 2}
    posterior = query(rnp, images, given=given, mask=half_mask("top", size), method=method, **how)
    assert posterior.mean("canvas").shape == images.shape
    assert posterior.part_probabilities(2).shape == (2, 5, size, size)
    seen = half_mask("top", size).expand_as(images)
    file = tmp_path / "posterior.png"
    posterior_figure(posterior, path=file, images=images, seen=seen, given=given)
    assert file.stat().st_size > 1000


def test_edits_and_dictionaries(rnp, size, tmp_path):
    images = images_of(6, size)
    tree = rnp.parse(images)
    moved = {"a/1": move(tree[1].action, x=0.2)}
    after = intervene(rnp, tree, moved | graft(tree, (0, 1), (0, 0)))
    assert after.canvas.shape == images.shape
    parse_figure(after, path=tmp_path / "edit.png", images=images)
    parts = collect_parts(rnp, images, depth=2)
    assert parts.canvases.shape == (24, 3, rnp.config.patch_size, rnp.config.patch_size)
    dictionary_figure(build_dictionary(parts, 3), parts, path=tmp_path / "dictionary.png")
    grid_figure([("images", images)], path=tmp_path / "grid.png")
    assert len(list(tmp_path.iterdir())) == 3


def test_spaces(rnp, splits, size):
    space = collect_programs(rnp, splits.test)
    assert space.canvases.shape == (40, 3, size, size)
    assert 0 <= latent_space_metrics(space, space)["class_probe"] <= 1
    group = clusters(space, 2, level=2)[0]
    assert sample_cluster(rnp, group, 3).shape == (3, 3, size, size)
    assert interpolate(rnp, group.centre, -group.centre, 4, level=2)[0].shape[1] == 3


def test_one_shot(tmp_path):
    rnp = RNP(tiny(channels=3, prior="types")).eval()
    images = images_of(3, 8)
    assert class_log_likelihood(rnp, images, images, num_samples=2).shape == (3, 3)
    made = exemplars(rnp, images[:1], 2).canvas
    exemplar_figure(images[:1], made.unsqueeze(0), path=tmp_path / "exemplars.png")


def test_the_paper_s_figures(rnp, splits, size, tmp_path):
    if size > 20:
        pytest.skip("pictures take as long as all else")
    given = FigureInputs(rnp, splits, tmp_path, num=20, clusters=2, across={"other": splits.test})
    numbers = {}
    for figure in (figure_3, figure_4, figure_5, figure_6):
        numbers |= figure(given)
    assert {"frechet", "class_probe", "other_blank"} <= set(numbers)
    assert len(list(tmp_path.glob("*.png"))) == 8


def test_nothing_is_learned_of_classes_where_there_is_one(rnp, size):
    """As of images without labels."""
    splits = Splits(*(image_set(8, size, i, classes=1) for i in range(3)))
    assert sample_quality_metrics(rnp, splits, num=4) == {"images": 4}
    space = collect_programs(rnp, splits.test)
    assert set(latent_space_metrics(space, space)) == {"silhouette_of_levels", "level_probe"}
