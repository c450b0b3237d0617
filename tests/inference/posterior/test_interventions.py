"""What if: an edit changes what it says and nothing else."""

import math

import pyro
import pytest
import torch
from pyro import poutine

from inference.posterior.interventions import (
    graft,
    intervene,
    move,
    read_edit,
    remove,
    rotate,
    scale,
)
from inference.posterior.reparam import whiten
from pyro_rnp import RNP
from pyro_rnp.registry import PLACEMENTS
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
    same = {"z/0": tree[0].program}
    for edits in (
        {},
        {"a/1": tree[1].action},
        same,
        same | graft(tree, (0,)),
        {"z": tree.program},
    ):
        again = intervene(rnp, tree, edits, react=react)
        assert torch.equal(again.canvas, tree.canvas)
        for name, value in tree.sites().items():
            assert torch.equal(again.sites()[name], value), name


def test_moving_a_part_moves_its_pixels(parsed):
    rnp, tree = parsed
    start = tree[0].action.clone()
    start[:, 4:] = torch.tensor([-0.25, 0.0])
    before = intervene(rnp, tree, {"a/0": start})
    after = intervene(rnp, tree, {"a/0": move(start, x=0.5, y=-0.25)})  # 2 right, 1 up
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
    assert torch.equal(rotate(action, 0.3)[:, 2], action[:, 2] + 0.3)
    torch.testing.assert_close(scale(action, 0.5)[:, :2], action[:, :2] / 2)
    assert torch.equal(scale(action, 0.5)[:, 2:], action[:, 2:])
    gone = intervene(rnp, tree, {"a/1": remove(action)})
    assert (gone.contributions(1)[:, 1] == 0).all()
    assert torch.equal(gone.canvas, tree.contributions(1)[:, 0])
    with pytest.raises(ValueError, match="a factor above 0"):
        scale(action, -1.0)
    with pytest.raises(ValueError, match="at most 10, got 100"):
        scale(action, 100.0)
    with pytest.raises(ValueError, match=r"radians, from -6.28 to 6.28, got 45"):
        rotate(action, 45.0)
    with pytest.raises(ValueError, match=r"half-widths .* got 0, -7"):
        move(action, 0.0, -7.0)


def test_later_steps_react_where_asked_and_earlier_ones_never(parsed):
    rnp, tree = parsed
    edits = {"a/0": move(tree[0].action, 0.2)}
    calm, stirred = (intervene(rnp, tree, edits, react=react) for react in (False, True))
    assert torch.equal(calm[1].action, tree[1].action)
    assert not torch.equal(stirred[1].action, tree[1].action)
    late = {"a/1": move(tree[1].action, 0.2)}
    assert torch.equal(intervene(rnp, tree, late, react=True)[0].action, tree[0].action)


def test_what_is_inside_a_part_that_is_exchanged_runs_anew(parsed):
    rnp, tree = parsed
    swapped = intervene(rnp, tree, {"z/0": tree[1].program, "z/1": tree[0].program})
    assert torch.equal(swapped[0].program, tree[1].program)
    assert not torch.equal(swapped[0][0].program, tree[0][0].program)
    assert torch.equal(swapped[0].action, tree[0].action)
    if not rnp.config.any_random:
        torch.testing.assert_close(swapped[0].canvas, tree[1].canvas)


def test_a_part_of_one_image_goes_into_another(parsed):
    rnp, tree = parsed
    a, b = tree.map(lambda t: t[:1]), tree.map(lambda t: t[1:3])
    mixed = intervene(rnp, b, graft(a, (1,), (0,)))
    torch.testing.assert_close(
        mixed.contributions(1)[:, 0], a.contributions(1)[:, 1].expand(2, -1, -1, -1)
    )
    torch.testing.assert_close(mixed.contributions(1)[:, 1], b.contributions(1)[:, 1])
    stays = intervene(rnp, b, graft(a, (1,), (0,), pose=False))
    assert torch.equal(stays[0].action, b[0].action)
    torch.testing.assert_close(stays[0].canvas, a[1].canvas.expand(2, -1, -1, -1))
    deep = intervene(rnp, b, graft(a, (1, 0), (0, 1)))
    assert torch.equal(deep[0][1].program, a[1][0].program.expand(2, -1))


@pytest.mark.parametrize(
    ("edits", "sentence"),
    [
        ({"a/5": torch.zeros(6)}, "no site 'a/5'; the closest is"),
        ({"a/0": torch.zeros(6)}, "a/0: scales must be positive, got 0"),
        ({"a/0": torch.zeros(5)}, r"must have shape \(6,\) or \(N, 6\)"),
        ({"a/0": torch.full((6,), math.inf)}, "must be finite"),
        ({"a/0": torch.ones(3, 6)}, "for 3 images, but the tree has 4"),
    ],
)
def test_bad_edits_get_one_sentence(edits, sentence, parsed):
    rnp, tree = parsed
    with pytest.raises(ValueError, match=sentence):
        intervene(rnp, tree, edits)


def test_grafts_fit(parsed):
    _, tree = parsed
    with pytest.raises(ValueError, match="one of its own level"):
        graft(tree, (0,), (1, 1))
    with pytest.raises(ValueError, match="There is no part 4"):
        graft(tree, (4,))


@pytest.mark.parametrize("placement", PLACEMENTS.pieces)
@pytest.mark.parametrize("composed", [False, True])
def test_what_is_removed_is_out_of_the_image_at_every_level(placement, composed, images):
    rnp = RNP(tiny(placement=placement, composed=composed)).eval()
    with torch.no_grad():
        for p in rnp.model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        tree = rnp.parse(images)
    whole = intervene(rnp, tree, {"a/1": remove(tree[1].action, rnp.config)})
    assert (whole.contributions(1)[:, 1] == 0).all()
    assert (tree.contributions(1)[:, 1] != 0).any()
    part = intervene(rnp, tree, {"a/1/0": remove(tree[1][0].action, rnp.config)})
    assert (part.contributions(2)[:, 2] == 0).all()
    assert (tree.contributions(2)[:, 2] != 0).any()


def test_what_is_random_keeps_its_noise(images):
    rnp = RNP(tiny(stochastic="both", program_scale=0.3)).eval()
    with torch.no_grad():
        for p in rnp.model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        tree = rnp.parse(images, sample=True)
    edits = {"z/0": -tree[0].program, "a/0": move(tree[0].action, 0.2)}
    first, again = (intervene(rnp, tree, edits, react=True) for _ in range(2))
    assert torch.equal(first.canvas, again.canvas), "nothing is drawn"

    names = ("a/1", "z/1", "a/0/0", "z/0/1", "a/1/1", "z/1/0")

    def noise(of):
        nodes = poutine.trace(pyro.do(rnp.model, data=of)).get_trace(None, 4).nodes
        return {name: whiten(nodes[name]["fn"], of[name])[0] for name in names}

    before, after = noise(tree.sites()), noise(first.sites())
    for name in names:
        torch.testing.assert_close(after[name], before[name], rtol=1e-3, atol=1e-3)
        assert not torch.equal(first.sites()[name], tree.sites()[name]), f"{name} follows"
    out = intervene(rnp, tree, {"a/1": remove(tree[1].action)})
    later = intervene(rnp, out, edits, react=True)
    assert torch.equal(later[1].action, out[1].action), "what was edited stays where no noise is"
    assert later.canvas.isfinite().all()


def test_edits_as_text(parsed):
    rnp, tree = parsed
    once = read_edit(rnp.config, tree, "move", "1:0.25,-0.5", {})
    twice = read_edit(rnp.config, tree, "rotate", "1:0.5", once)
    wanted = rotate(move(tree[1].action, 0.25, -0.5), 0.5)
    assert torch.equal(twice["a/1"], wanted), "what is changed is changed further"
    for kind, text, wanted in (
        ("move", "1:0.25,-0.5", {"a/1": move(tree[1].action, 0.25, -0.5)}),
        ("rotate", "1/0:-0.3", {"a/1/0": rotate(tree[1][0].action, -0.3)}),
        ("scale", "0:2", {"a/0": scale(tree[0].action, 2.0)}),
        ("remove", "0/1", {"a/0/1": remove(tree[0][1].action)}),
    ):
        found = read_edit(rnp.config, tree, kind, text, {})
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert torch.equal(found[name], value)
    for kind, text in (
        *(("move", "1"), ("move", "1:a,b"), ("move", "1:1,2,3"), ("rotate", "0:nan")),
        *(
            ("remove", "0:1"),
            ("scale", "x:2"),
            ("rotate", "-1:2"),
            ("rotate", "2:1"),
            ("rotate", ":1"),
        ),
    ):
        with pytest.raises(ValueError, match=r"takes PART|written as 1|no part 2"):
            read_edit(rnp.config, tree, kind, text, {})


@pytest.mark.parametrize(
    "changes",
    [
        {"stochastic": "both"},
        {"composition": "noisy_or", "channels": 3},
        {"composition": "over", "placement": "continuous", "composed": True},
        {"steps": (2, 2, 2), "feedback": "decoding"},
    ],
)
def test_moved_parts_are_drawn_as_the_model_draws_them(changes):
    rnp = RNP(tiny(**changes)).eval()
    tree = rnp.sample(2)
    edits = {"a/1": move(tree[1].action, x=0.3), "a/0/1": scale(tree[0][1].action, 0.9)}
    values = {name: value for name, value in tree.sites().items() if name != "canvas"}
    with torch.no_grad(), pyro.do(data={**values, **edits}):
        wanted = rnp.model(None, 2).sites()
    found = intervene(rnp, tree, edits)
    assert all(torch.equal(found.sites()[name], value) for name, value in wanted.items())
    assert found[0][0] is tree[0][0]
    assert not torch.equal(found.canvas, tree.canvas)
