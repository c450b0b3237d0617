"""Diagnostics: each problem is seen, and told once, when it lasts; and the verdict at the end."""

from dataclasses import replace

import pytest
import torch

from inference.training.diagnostics import (
    PATIENCE,
    Diagnostics,
    coverage_sentence,
    problems,
    verdict,
)
from pyro_rnp import RNP, RNPConfig, load
from tests.conftest import tiny


@pytest.fixture
def images():
    """Faint ones, of which a model that has not learned explains more than nothing."""
    return 0.1 * torch.rand(4, 1, 8, 8)


@pytest.fixture
def well(images):
    """A model whose parts differ and whose programs depend on the image."""
    rnp = RNP(tiny()).eval()
    with torch.no_grad():
        for p in rnp.parameters():
            p.add_(0.2 * torch.randn_like(p))
    assert problems(rnp, images) == {}
    return rnp


def collapse(rnp):
    last = rnp.guide.top.encoder[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():  # loc 0, scale 1: softplus(0.5413) = 1
        last.bias.copy_(torch.tensor([0.0] * 3 + [0.5413] * 3))


def test_a_kl_that_collapsed(well, images):
    collapse(well)
    found = problems(well, images)
    assert list(found) == ["kl"]
    assert "the KL is below 0.1 nats" in found["kl"]


def test_canvases_that_do_not_differ_between_images(well, images):
    """Programs that differ from the prior, so that the KL is large, and not from each other."""
    last = well.guide.top.encoder[-1]
    torch.nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.fill_(2.0)
    found = problems(well, images)
    assert list(found) == ["ignored"]
    assert "canvases do not differ between images" in found["ignored"]
    assert "--epochs" in found["ignored"]
    assert "ignored" not in problems(well, images[:1].expand(4, -1, -1, -1)), "the images do not"
    assert "ignored" not in problems(well, images[:1]), "one image differs from none"


def test_a_flat_model_s_canvases_are_looked_at_too(images):
    flat = RNP(tiny(program="flat")).eval()
    torch.nn.init.zeros_(flat.guide.top.encoder[-1].weight)
    assert "ignored" in problems(flat, images)


def test_a_canvas_that_is_blank(well, images):
    hypernet = well.model.recursion
    run = hypernet.forward

    def faded(*args):
        tree = run(*args)
        parts = [_placed(part.map(lambda t: 1e-4 * t), part) for part in tree]
        return replace(tree, children=tuple(parts))

    hypernet.forward = faded
    assert list(problems(well, images)) == ["blank"]
    assert "blank" not in problems(well, 0 * images), "blank images have blank canvases"


def test_a_part_that_is_not_used(well, images):
    hypernet = well.model.recursion
    run = hypernet.forward

    def without_the_second(*args):
        tree = run(*args)
        blank = tree[1].map(torch.zeros_like)
        return replace(tree, children=(tree[0], _placed(blank, tree[1])))

    hypernet.forward = without_the_second
    found = problems(well, images)
    assert list(found) == ["part 1"]
    assert "a lower --learning_rate" in found["part 1"]
    assert "--model.steps" in found["part 1"]


def _placed(node, like):
    return replace(node, action=like.action)


def test_parts_that_are_all_alike(well, images):
    hypernet = well.model.recursion
    run = hypernet.forward

    def the_first_twice(*args):
        tree = run(*args)
        return replace(tree, children=(tree[0], tree[0]))

    hypernet.forward = the_first_twice
    assert list(problems(well, images)) == ["alike"]


@pytest.mark.parametrize(("like", "ignored"), [(-1, True), (1, False)])
def test_canvases_that_hardly_differ_must_explain_more_than_the_mean(well, images, like, ignored):
    """A variance ratio of 0.04, of canvases that are a little like the images, or unlike them."""
    hypernet = well.model.recursion
    run = hypernet.forward
    mean = images.mean(0)
    hypernet.forward = lambda *args: replace(run(*args), canvas=mean + 0.2 * like * (images - mean))
    assert ("ignored" in problems(well, images)) is ignored


def test_parts_that_do_not_move_between_images(well, images):
    hypernet = well.model.recursion
    run = hypernet.forward

    def at_the_first_s_places(*args):
        return still(run(*args))

    def still(node):
        action = None if node.action is None else node.action[:1].expand_as(node.action)
        return replace(node, action=action, children=tuple(map(still, node.children)))

    hypernet.forward = at_the_first_s_places
    found = problems(well, images)
    assert list(found) == ["still"]
    assert found["still"].startswith("the parts stand at the same places in every image: try")
    assert problems(well, images[:1].expand(4, -1, -1, -1)) == {}, "the images do not differ"


@pytest.mark.parametrize("name", ["mnist", "fashion", "omniglot"])
def test_models_that_learned_have_no_problems(name):
    """Shipped weights on digits, garments and characters of their own prior."""
    rnp = load(name)
    torch.manual_seed(0)
    assert problems(rnp, rnp.sample(16).canvas.clamp(0, 1)) == {}


def test_what_lasts_to_the_second_half_of_a_short_training_is_told(well, images):
    collapse(well)
    diagnostics = Diagnostics()
    said = [diagnostics.look(well, images, 100 * i, late=i > 1) for i in range(PATIENCE + 3)]
    assert [len(s) for s in said] == [0, 0, 1] + [0] * PATIENCE
    assert said[2][0].startswith("Since step 0 the KL is below")


def test_it_speaks_once_when_it_has_lasted_and_again_after_a_change(well, images):
    good = {k: v.clone() for k, v in well.state_dict().items()}
    diagnostics, said = Diagnostics(), []
    for look in range(PATIENCE + 3):
        if look == 1:
            collapse(well)
        said.append(diagnostics.look(well, images, step=100 * look))
    assert [len(s) for s in said] == [0] * PATIENCE + [1, 0, 0]
    assert said[PATIENCE][0].startswith("Since step 100 the KL is below")
    well.load_state_dict(good)
    assert diagnostics.look(well, images, 5000) == []
    collapse(well)
    later = Diagnostics()
    later.load_state_dict(diagnostics.state_dict())
    again = [later.look(well, images, 6000 + i) for i in range(PATIENCE)]
    assert again[-1][0].startswith("Since step 6000")


def told(sse, ratio, blank=128.0, mean_image=35.4, spread=0.2):
    return verdict(
        {
            "test_sse": sse,
            "test_explained": 1 - sse / blank,
            "test_sse_blank": blank,
            "test_sse_mean_image": mean_image,
            "test_explained_mean_image": 1 - mean_image / blank,
            **({} if ratio is None else {"test_canvas_variance_ratio": ratio}),
            **({} if ratio is None else {"test_action_spread": spread}),
        }
    )


def test_a_model_that_ignores_the_image_is_named_as_such():
    said = told(49.4, 4e-6)
    assert "explains 61.4 % of the test images' squared intensity (squared error 49.4" in said
    assert "the mean training image 72.3 % (35.4), a blank canvas 0 % (128.0)" in said
    assert "ignores the image" in said
    assert "Try more training (--minutes, --epochs)" in said
    assert "beat" not in said


def test_a_model_that_learned_is_better_than_both():
    said = told(10.1, 0.8)
    assert "beats both, and its canvases differ between images" in said
    assert "more training" not in said


@pytest.mark.parametrize(
    ("sse", "mean_image", "than"), [(60, 35.4, "mean training image"), (140, 150, "blank canvas")]
)
def test_a_model_whose_canvases_differ_may_still_be_no_better(sse, mean_image, than):
    said = told(sse, 0.1, mean_image=mean_image)
    assert "canvases differ between images, but" in said
    assert f"does not beat {'the ' * (than[0] == 'm')}{'a ' * (than[0] == 'b')}{than}" in said


def test_of_one_image_nothing_is_said_of_differences():
    for sse, words in ((49.4, "The model does not beat the mean"), (10.1, "The model beats both.")):
        said = told(sse, None)
        assert words in said
        assert "differ" not in said
        assert "ignores" not in said


@pytest.mark.parametrize(
    ("changes", "share", "begins", "advises"),
    [
        ({}, 1.0, "Parts can cover at most 76 % of an image, their sub-parts 57 %; 100 %", True),
        ({}, 0.25, "Parts can cover at most 76 % of an image, their sub-parts 57 %; 25 %", False),
        ({"max_scale": 0.62}, 1.0, "Parts can cover at most 100 % of an image, their sub", False),
        (
            {"steps": (4, 4, 4)},
            1.0,
            "Parts can cover at most 76 % of an image, their sub-parts 57 %, parts at level 3 43 %",
            True,
        ),
        ({"steps": (5,)}, 1.0, "Parts can cover at most 95 % of an image; 100 % of the", True),
    ],
)
def test_how_much_the_parts_can_cover_is_told(changes, share, begins, advises):
    images = torch.zeros(2, 3, 8, 8)
    images[:, 1, : int(8 * share)] = 0.5
    said = coverage_sentence(RNPConfig(**changes), images)
    assert said.startswith(begins)
    assert ("--max_scale" in said) is advises


def test_a_flat_program_has_no_parts_that_could_cover():
    assert coverage_sentence(RNPConfig(program="flat"), torch.ones(2, 1, 8, 8)) == ""


def test_canvases_that_hardly_differ_count_where_they_explain_no_more_than_the_mean():
    assert "ignores the image" in told(36.0, 0.04)
    assert "beats both" in told(35.0, 0.04)
    assert "canvases differ between images, but" in told(36.0, 0.06)


def test_parts_that_do_not_move_are_told_at_the_end():
    said = told(10.1, 0.8, spread=0.005)
    assert "beats both, but the parts stand at the same places in every image" in said
    assert "--minutes" in said
    assert "same places" not in told(40.0, 0.8, spread=0.005), "first it must explain more"
