"""The watch on learning sees each thing that it is for, and says it once, when it lasts."""

import pytest
import torch

from inference.training.diagnostics import PATIENCE, Watch, problems
from pyro_rnp import RNP
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
    assert "--learning_rate" in found["ignored"]
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
        return type(tree)(tree.program, tree.canvas, children=tuple(parts))

    hypernet.forward = faded
    assert list(problems(well, images)) == ["blank"]
    assert "blank" not in problems(well, 0 * images), "blank images have blank canvases"


def test_a_part_that_is_not_used(well, images):
    hypernet = well.model.recursion
    run = hypernet.forward

    def without_the_second(*args):
        tree = run(*args)
        blank = tree[1].map(torch.zeros_like)
        return type(tree)(tree.program, tree.canvas, children=(tree[0], _placed(blank, tree[1])))

    hypernet.forward = without_the_second
    found = problems(well, images)
    assert list(found) == ["part 1"]
    assert "a lower --learning_rate" in found["part 1"]
    assert "--model.steps" in found["part 1"]


def _placed(node, like):
    return type(node)(node.program, node.canvas, like.action, node.decoding, node.children)


def test_parts_that_are_all_alike(well, images):
    hypernet = well.model.recursion
    run = hypernet.forward

    def the_first_twice(*args):
        tree = run(*args)
        return type(tree)(tree.program, tree.canvas, children=(tree[0], tree[0]))

    hypernet.forward = the_first_twice
    assert list(problems(well, images)) == ["alike"]


def test_it_speaks_once_when_it_has_lasted_and_again_after_a_change(well, images):
    good = {k: v.clone() for k, v in well.state_dict().items()}
    watch, said = Watch(), []
    for look in range(PATIENCE + 3):
        if look == 1:
            collapse(well)
        said.append(watch.look(well, images, step=100 * look))
    assert [len(s) for s in said] == [0] * PATIENCE + [1, 0, 0]
    assert said[PATIENCE][0].startswith("Since step 100 the KL is below")
    well.load_state_dict(good)
    assert watch.look(well, images, 5000) == []
    collapse(well)
    later = Watch()
    later.load_state_dict(watch.state_dict())
    again = [later.look(well, images, 6000 + i) for i in range(PATIENCE)]
    assert again[-1][0].startswith("Since step 6000")
