"""What if: an edit changes what it says and nothing else."""

import math

import pytest
import torch

from inference.edits import grafted, moved, removed, scaled, turned, what_if
from pyro_rnp import RNP
from tests.conftest import tiny


@pytest.fixture(params=["none", "both"])
def parsed(request, images):
    """A model whose steps react to each other, and its parse of four images."""
    rnp = RNP(tiny(stochastic=request.param)).eval()
    with torch.no_grad():
        for p in rnp.model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        return rnp, rnp.parse(images, sample=True)


def others(tree, path):
    """Sites outside of a part."""
    name = "/".join(map(str, path))
    return {
        n: v
        for n, v in tree.sites().items()
        if n != "canvas" and not f"{n[2:]}/".startswith(f"{name}/")
    }


@pytest.mark.parametrize("react", [False, True])
def test_an_edit_that_changes_nothing_gives_the_same_image(react, parsed):
    rnp, tree = parsed
    for edits in ({}, {"a/1": tree[1].action}, {"z/0": tree[0].program} | grafted(tree, (0,))):
        again = what_if(rnp, tree, edits, react=react)
        assert torch.equal(again.canvas, tree.canvas)
        for name, value in tree.sites().items():
            assert torch.equal(again.sites()[name], value), name


def test_moving_a_part_moves_its_pixels(parsed):
    rnp, tree = parsed
    start = tree[0].action.clone()
    start[:, 4:] = torch.tensor([-0.25, 0.0])
    before = what_if(rnp, tree, {"a/0": start})
    after = what_if(rnp, tree, {"a/0": moved(start, x=0.5, y=-0.25)})  # 2 right, 1 up
    old, new = before.contributions(1), after.contributions(1)
    assert old[:, 0].abs().max() > 0
    wanted = old[:, 0].roll((-1, 2), (-2, -1))
    torch.testing.assert_close(new[:, 0, :, :-1, 2:], wanted[..., :-1, 2:], rtol=1e-4, atol=1e-5)
    assert torch.equal(new[:, 1], old[:, 1])
    for name, value in others(tree, (0,)).items():
        assert torch.equal(after.sites()[name], value), "nothing else changes"


def test_turning_scaling_and_removing(parsed):
    rnp, tree = parsed
    action = tree[1].action
    assert torch.equal(turned(action, 0.3)[:, 2], action[:, 2] + 0.3)
    torch.testing.assert_close(scaled(action, 0.5)[:, :2], action[:, :2] / 2)
    assert torch.equal(scaled(action, 0.5)[:, 2:], action[:, 2:])
    gone = what_if(rnp, tree, {"a/1": removed(action)})
    assert (gone.contributions(1)[:, 1] == 0).all()
    assert torch.equal(gone.canvas, tree.contributions(1)[:, 0])
    with pytest.raises(ValueError, match="positive factor"):
        scaled(action, -1.0)


def test_later_steps_react_where_asked_and_earlier_ones_never(parsed):
    rnp, tree = parsed
    edits = {"a/0": moved(tree[0].action, 0.2)}
    calm, stirred = (what_if(rnp, tree, edits, react=react) for react in (False, True))
    assert torch.equal(calm[1].action, tree[1].action)
    random = rnp.config.any_random
    assert torch.equal(stirred[1].action, tree[1].action) == random, "random sites keep theirs"
    late = {"a/1": moved(tree[1].action, 0.2)}
    assert torch.equal(what_if(rnp, tree, late, react=True)[0].action, tree[0].action)


def test_what_is_inside_a_part_that_is_exchanged_runs_anew(parsed):
    rnp, tree = parsed
    swapped = what_if(rnp, tree, {"z/0": tree[1].program, "z/1": tree[0].program})
    assert torch.equal(swapped[0].program, tree[1].program)
    assert not torch.equal(swapped[0][0].program, tree[0][0].program)
    assert torch.equal(swapped[0].action, tree[0].action)
    if not rnp.config.any_random:
        torch.testing.assert_close(swapped[0].canvas, tree[1].canvas)


def test_a_part_of_one_image_goes_into_another(parsed):
    rnp, tree = parsed
    a, b = tree.map(lambda t: t[:1]), tree.map(lambda t: t[1:3])
    mixed = what_if(rnp, b, grafted(a, (1,), (0,)))
    torch.testing.assert_close(
        mixed.contributions(1)[:, 0], a.contributions(1)[:, 1].expand(2, -1, -1, -1)
    )
    torch.testing.assert_close(mixed.contributions(1)[:, 1], b.contributions(1)[:, 1])
    stays = what_if(rnp, b, grafted(a, (1,), (0,), pose=False))
    assert torch.equal(stays[0].action, b[0].action)
    torch.testing.assert_close(stays[0].canvas, a[1].canvas.expand(2, -1, -1, -1))
    deep = what_if(rnp, b, grafted(a, (1, 0), (0, 1)))
    assert torch.equal(deep[0][1].program, a[1][0].program.expand(2, -1))


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"a/5": torch.zeros(6)}, "no site 'a/5'; the closest is"),
        ({"a/0": torch.zeros(5)}, r"must have shape \(6,\) or \(N, 6\)"),
        ({"a/0": torch.full((6,), math.inf)}, "must be finite"),
        ({"a/0": torch.zeros(3, 6)}, "for 3 images, but the tree has 4"),
    ],
)
def test_bad_edits_get_one_sentence(edits, sentence, parsed):
    rnp, tree = parsed
    with pytest.raises(ValueError, match=sentence):
        what_if(rnp, tree, edits)


def test_grafts_fit(parsed):
    _, tree = parsed
    with pytest.raises(ValueError, match="one of its own level"):
        grafted(tree, (0,), (1, 1))
    with pytest.raises(ValueError, match="There is no part 4"):
        grafted(tree, (4,))
