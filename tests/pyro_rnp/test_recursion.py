"""The recursion against the literal transcription of Algorithm 1, and its laws."""

from copy import deepcopy

import pytest
import torch

from pyro_rnp.affine import glimpse, place
from pyro_rnp.parse_tree import site_name
from pyro_rnp.recursion import Recursion, Sites
from tests.conftest import tiny
from tests.reference import Reference


def literal(hypernet):
    c = hypernet.config
    bounds = (c.min_scale, c.max_scale, c.max_rotation, c.max_shear, c.max_translation)
    return Reference(
        dict(hypernet.named_parameters()),
        hypernet.heads(),
        c.steps,
        c.feedback,
        c.channels,
        c.image_size,
        c.patch_size,
        bounds,
    )


def make(**changes):
    """A recursion in float64, with actions large enough that every bound matters."""
    recursion = Recursion(tiny(**changes)).double()
    with torch.no_grad():
        for p in recursion.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return recursion


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        ((3,), {}),
        ((2, 3), {}),
        ((2, 2, 2), {}),
        ((3, 2), {"channels": 2}),
        ((2, 2), {"pixel_layers": "shared"}),
        ((2, 2), {"pixel_layers": "shared", "weights": "factored", "factors": 7}),
        ((2, 2), {"weights": "factored", "factors": 3}),
    ],
)
def test_equals_the_literal_algorithm(steps, feedback, changes):
    recursion = make(steps=steps, feedback=feedback, **changes)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    canvas = recursion(z).canvas
    weights = torch.randn_like(canvas)
    wanted_from = dict(recursion.hypernets[0].named_parameters())
    got = torch.autograd.grad(
        (canvas * weights).sum(), [z, *wanted_from.values()], allow_unused=True
    )

    z_copy = z.detach().clone().requires_grad_()
    copied = deepcopy(recursion.hypernets[0])
    copies = dict(copied.named_parameters())
    reference = literal(copied)
    expected_canvas = torch.stack([reference.run(row, len(steps)) for row in z_copy])
    expected = torch.autograd.grad(
        (expected_canvas * weights).sum(), [z_copy, *copies.values()], allow_unused=True
    )

    torch.testing.assert_close(canvas, expected_canvas, rtol=0, atol=1e-9)
    for name, a, b in zip(["z", *copies], got, expected, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.abs().max() > 0, name
            torch.testing.assert_close(
                a, b, rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
            )


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_batch_equals_stacked_singles(feedback):
    recursion = make(steps=(2, 2, 2), feedback=feedback)
    z = torch.randn(3, 3, dtype=torch.float64)
    whole = recursion(z).sites()
    for i in range(3):
        for name, value in recursion(z[i : i + 1]).sites().items():
            torch.testing.assert_close(value[0], whole[name][i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("composed", [False, True])
@pytest.mark.parametrize("composition", ["sum", "noisy_or", "over"])
def test_shares_of_every_level_add_up_to_the_canvas(composition, composed):
    changes = {"composition": composition, "composed": composed}
    tree = make(steps=(2, 3, 2), **changes)(torch.randn(3, 3, dtype=torch.float64))
    for depth, parts in ((1, 2), (2, 6), (3, 12)):
        shares = tree.contributions(depth)
        assert shares.shape == (3, parts, 1, 8, 8)
        torch.testing.assert_close(shares.sum(1), tree.canvas)


def test_sites_see_and_set_every_program_and_action():
    recursion = make(steps=(2, 2), feedback="decoding")
    z = torch.randn(3, 3, dtype=torch.float64)
    seen = {}

    class Record(Sites):
        """Notes every value that it gives; sees no target."""

        def action(self, paths, raw, glimpsed):
            assert glimpsed is None
            return self.note("a", paths, super().action(paths, raw, glimpsed))

        def program(self, paths, h_state, glimpsed):
            return self.note("z", paths, super().program(paths, h_state, glimpsed))

        def note(self, kind, paths, value):
            shares = value.split(len(value) // len(paths))
            seen.update({site_name(kind, p): v for p, v in zip(paths, shares, strict=True)})
            return value

    tree = recursion(z, Record(recursion.config))
    names = [f"{kind}/{path}" for path in ("0", "1", "0/0", "0/1", "1/0", "1/1") for kind in "za"]
    assert sorted(seen) == sorted(names)
    for name in names:
        torch.testing.assert_close(seen[name], tree.sites()[name])

    other = torch.randn_like(seen["z/1"])

    class Change(Sites):
        def program(self, paths, h_state, glimpsed):
            return other if paths == [(1,)] else h_state

    changed = recursion(z, Change(recursion.config))
    torch.testing.assert_close(changed[1].program, other)
    torch.testing.assert_close(changed[0].canvas, tree[0].canvas)
    assert not torch.allclose(changed[1].canvas, tree[1].canvas)
    assert not torch.allclose(changed[1].decoding, tree[1].decoding)


def test_a_decoding_makes_siblings_independent_and_a_canvas_does_not():
    for feedback, expected in (("decoding", True), ("canvas", False)):
        recursion = make(steps=(2, 2), feedback=feedback)
        z = torch.randn(1, 3, dtype=torch.float64)

        class Shift(Sites):
            def action(self, paths, raw, glimpsed):
                moved = torch.tensor([[0.1 * (path == (0, 0))] for path in paths])
                return super().action(paths, raw, glimpsed) + moved

        before, after = recursion(z), recursion(z, Shift(recursion.config))
        assert not torch.equal(before[0].canvas, after[0].canvas)
        assert torch.equal(before[1].program, after[1].program) == expected


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_weights_written_again_give_the_same_gradient_bit_for_bit(feedback, levels):
    recursion = make(steps=(2, 3), feedback=feedback)
    z = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    gradients = []
    for recursion.recompute_levels in (0, levels):
        loss = recursion(z).canvas.sin().sum()
        gradients.append(torch.autograd.grad(loss, [z, *recursion.parameters()], allow_unused=True))
    for a, b in zip(*gradients, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_sites_are_shown_what_is_not_yet_drawn_where_they_are_about_to_draw(feedback):
    recursion = make(steps=(2, 2), feedback=feedback)
    z, images = torch.randn(1, 3, dtype=torch.float64), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    predicted, placed = {}, {}

    class Look(Sites):
        def action(self, paths, raw, glimpsed):
            for path, view in zip(paths, glimpsed, strict=True):
                predicted[path] = view
            return super().action(paths, raw, glimpsed) + 0.05

        def program(self, paths, h_state, glimpsed):
            for path, view in zip(paths, glimpsed, strict=True):
                placed[path] = view
            return h_state

    tree = recursion(z, Look(recursion.config), images)
    first, second = tree
    belief = first.canvas if feedback == "canvas" else first.decoding
    left = images - place(belief, first.action, 8)
    torch.testing.assert_close(placed[0,], glimpse(images, first.action, 5)[0])
    torch.testing.assert_close(placed[1,], glimpse(left, second.action, 5)[0])
    torch.testing.assert_close(predicted[1,], glimpse(left, second.action - 0.05, 5)[0])
    inner = placed[1,].unsqueeze(0)  # a part's sub-parts look at what it is to explain
    rest = inner - place(second[0].canvas, second[0].action, 5)
    torch.testing.assert_close(placed[1, 0], glimpse(inner, second[0].action, 5)[0])
    torch.testing.assert_close(placed[1, 1], glimpse(rest, second[1].action, 5)[0])


def test_a_level_that_is_not_run_is_drawn_by_its_parents_decodings():
    for feedback in ("canvas", "decoding"):
        recursion = make(steps=(2, 3, 2), feedback=feedback)
        z = torch.randn(2, 3, dtype=torch.float64)
        whole, recursion.levels = recursion(z), 1
        tree = recursion(z)
        assert tree.level == 1
        torch.testing.assert_close(tree[0].canvas, whole[0].decoding)
        recursion.levels = 2
        assert [recursion(z).level, len(recursion(z).nodes(2))] == [2, 6]


def test_a_hypernetwork_for_each_level_is_used_at_its_level():
    recursion = make(steps=(2, 2), hypernet="per_level", feedback="decoding")
    z = torch.randn(2, 3, dtype=torch.float64)
    before = recursion(z)
    with torch.no_grad():
        for p in recursion.hypernets[1].parameters():
            p.mul_(1.5)
    after = recursion(z)
    assert torch.equal(before[1].program, after[1].program)
    assert not torch.allclose(before[1][0].program, after[1][0].program)


def test_the_hypernetworks_of_the_levels_start_alike():
    first, second = Recursion(tiny(steps=(2, 2), hypernet="per_level")).hypernets
    for own, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(own, other)
        assert own is not other


def test_the_rank_is_how_many_matrices_a_layer_is_mixed_from():
    hypernet = make(rank=2).hypernets[0]
    theta, bias = hypernet.heads()["f_state"]
    assert (len(theta), len(bias)) == (3, 3)


@pytest.mark.parametrize("steps", [(2,), (2, 2), (2, 1, 2)])
@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_gradients_of_a_canvas_reach_each_program_and_action_of_its_tree(feedback, steps):
    tree = make(steps=steps, feedback=feedback)(torch.randn(2, 3, dtype=torch.float64))
    for path, node in tree.walk():
        found = (
            torch.autograd.grad(
                tree.canvas.sum(),
                [node.program, *([] if node.action is None else [node.action])],
                retain_graph=True,
                allow_unused=not path,  # the root's program takes no gradient itself
            )
            if path
            else []
        )
        assert all(g.abs().max() > 0 for g in found), path


@pytest.mark.parametrize("weights", ["mixed", "factored"])
@pytest.mark.parametrize("feedback", ["canvas", "decoding"])
def test_no_images_make_an_empty_tree(feedback, weights):
    recursion = make(steps=(2, 2, 2), feedback=feedback, weights=weights)
    z = torch.zeros(0, 3, dtype=torch.float64, requires_grad=True)
    tree = recursion(z)
    assert tree.canvas.shape == (0, 1, 8, 8)
    assert tree[1][1][1].program.shape == (0, 3)
    tree.canvas.sum().backward()
    assert z.grad.shape == (0, 3)
