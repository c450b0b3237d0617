"""The state of one visitor, and what can be taken away from it."""

import io
import json
import math
import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from inference.data import load_data
from inference.explore import Session, images_for, open_model
from inference.explore.images import rounded
from inference.explore.session import OtherModel
from inference.posterior import half_mask
from pyro_rnp import RNP
from pyro_rnp.parse_tree import COUNTING
from pyro_rnp.plotting import COLOURS, shades
from tests.conftest import tiny

RIGHT = ~half_mask("right", 8)
ACTION = [0.3, 0.3, 0.0, 0.0, 0.5, 0.0]
KINDS = {
    "one level": {"steps": (3,)},
    "three levels": {"steps": (2, 1, 2)},
    "colour": {"channels": 3, "composition": "over"},
    "random": {"stochastic": "both"},
    "continuous": {"placement": "continuous", "composed": True},
    "flat": {"program": "flat"},
}


def begun(rnp):
    session = Session(rnp)
    size, channels = rnp.config.image_size, rnp.config.channels
    session.draw(torch.rand(channels, size, size))
    return session


@pytest.fixture
def session(rnp):
    return begun(rnp)


def same(a, b):
    return all(torch.equal(value, b.sites()[name]) for name, value in a.sites().items())


# Undo -----------------------------------------------------------------------------------------


def test_an_edit_is_undone_and_done_again(session):
    before = session.tree
    after = session.move("a/1", ACTION)
    assert not torch.equal(after.canvas, before.canvas)
    assert session.undo()
    assert session.tree is before
    assert session.edits == ()
    assert session.redo()
    assert session.tree is after
    assert not session.redo()
    session.undo()
    session.remove("0")
    assert not session.redo()  # another way was taken


def test_all_that_a_visitor_does_can_be_undone(session):
    image = session.image
    session.hide(RIGHT)
    session.keep("a/0")
    session.draw(torch.zeros(1, 8, 8))
    assert session.mask.all()
    assert session.kept == []
    assert session.undo()
    assert torch.equal(session.image, image)
    assert session.kept == ["a/0"]
    assert session.undo()
    assert session.kept == []
    assert torch.equal(session.mask, ~RIGHT)
    assert session.undo()
    assert session.mask.all()
    assert session.undo()
    assert session.image is None
    assert not session.undo()


def test_a_preview_is_not_kept(session):
    before = session.tree
    seen = session.preview("a/1", ACTION)
    assert session.tree is before
    session.move("a/1", ACTION)
    assert same(session.tree, seen)


def test_the_history_is_limited(session, monkeypatch):
    monkeypatch.setattr("inference.explore.session.HISTORY", 3)
    for x in (0.1, 0.2, 0.3, 0.4):
        session.move("a/1", [0.3, 0.3, 0.0, 0.0, x, 0.0])
    assert [session.undo() for _ in range(4)] == [True, True, True, False]


def test_two_visitors_do_not_see_each_other(rnp):
    one, other = Session(rnp), Session(rnp)
    one.draw(torch.ones(1, 8, 8))
    assert other.image is None
    other.draw(torch.zeros(1, 8, 8))
    one.move("a/1", ACTION)
    one.hide(RIGHT)
    assert other.edits == ()
    assert other.mask.all()
    assert same(other.tree, rnp.parse(torch.zeros(1, 1, 8, 8)))


@pytest.mark.parametrize("changes", [{}, {"image_size": 12}, {"channels": 3}])
def test_another_model_parses_the_image_anew_and_is_undone(session, changes):
    rnp, other = session.rnp, RNP(tiny(**changes)).eval()
    session.hide(RIGHT)
    session.keep("a/0")
    before, image, mask = session.move("a/1", ACTION), session.image, session.mask
    session.change(other, "other")
    config = other.config
    assert session.image.shape == (config.channels, config.image_size, config.image_size)
    assert session.image.mean().item() == pytest.approx(image.mean().item(), abs=0.03)
    assert session.mask.float().mean() == mask.float().mean()
    assert (session.rnp, session.name, session.edits, session.kept) == (other, "other", (), [])
    assert same(session.tree, other.parse(session.image[None]))
    assert changes or torch.equal(session.image, image)
    assert session.undo()
    assert (session.rnp, session.name, session.kept) == (rnp, None, ["a/0"])
    assert session.tree is before
    assert session.redo()
    assert session.rnp is other


def test_another_model_before_anything_is_drawn(rnp):
    session, other = Session(rnp), RNP(tiny(channels=3)).eval()
    session.change(other)
    assert session.image is None
    session.draw(torch.rand(3, 8, 8))
    assert len(session.tree) == 2


# Edits ----------------------------------------------------------------------------------------


def test_later_parts_react_if_they_are_let():
    rnp = RNP(tiny(steps=(3,)))
    session = begun(rnp)
    before = session.tree
    assert same(session.move("a/0", ACTION)[2], before[2])
    session.undo()
    session.react = True
    assert not same(session.move("a/0", ACTION)[2], before[2])


def test_a_part_is_removed_and_exchanged(session, rnp):
    tree, other = session.tree, torch.rand(1, 8, 8)
    gone = session.remove("1")
    assert torch.allclose(gone.canvas, tree.contributions(1)[:, 0], atol=1e-6)
    after, source = session.exchange("0", other), rnp.parse(other[None])
    assert torch.equal(after[0].program, source[0].program)
    assert torch.equal(after[0].action, tree[0].action)
    after = session.exchange("1", other, "0", pose=True)
    assert torch.equal(after[1].canvas, source[0].canvas)
    assert torch.equal(after[1].action, source[0].action)


def test_parsing_again_leaves_edits_out(session):
    before = session.tree
    session.move("a/1", ACTION)
    assert same(session.parse(), before)
    assert session.edits == ()
    session.undo()
    assert len(session.edits) == 1


def test_a_new_place_takes_that_of_the_one_before(session):
    session.move("a/1", [0.3, 0.3, 0.0, 0.0, 0.1, 0.0])
    session.move("a/1", ACTION)
    assert len(session.edits) == 1
    session.move("a/0", ACTION)
    session.react = True
    session.move("a/0", ACTION)
    assert len(session.edits) == 3


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (lambda s: s.move("a/7", ACTION), r"no site 'a/7'; the closest is"),
        (lambda s: s.move("z/1", [0.0] * 3), "moved by its action, as a/1, got 'z/1'"),
        (lambda s: s.move("a/1", ACTION[:5]), r"a/1 is an action .* got \(5,\)"),
        (lambda s: s.move("a/1", [0.3, 0.3, 0.0, 0.0, 2.0, 0.0]), r"a/1: x must lie in \[-0.8, 0"),
        (lambda s: s.move("a/1", [0.3, 0.3, 0.0, 0.0, math.nan, 0.0]), "a/1 must be finite"),
        (lambda s: s.set("z/0", [9.0, 0.0, 0.0]), r"z/0: .* lie in \[-1, 1\], got 9"),
        (lambda s: s.set("canvas", [9.0]), "no site 'canvas'"),
        (lambda s: s.preview("a/1", [2.0] * 6), "a/1: scale_x must lie in"),
        (lambda s: s.remove("1/5"), "no part 1/5: part 1 has 2 parts"),
        (lambda s: s.remove("one"), "A part is written as 1"),
        (lambda s: s.exchange("1", torch.rand(1, 9, 9)), r"\(N, 1, 8, 8\)"),
        (lambda s: s.exchange("1", torch.rand(1, 8, 8), "0/1"), "one of its own level"),
        (lambda s: s.keep("z/9"), "no site 'z/9'"),
        (lambda s: s.release("b"), "no site 'b'"),
        (lambda s: s.nearest("a/9", torch.rand(2, 1, 8, 8)), "no site 'a/9'"),
        (lambda s: s.hide(torch.ones(3, 3)), r"must have shape \(8, 8\), got \(3, 3\)"),
        (lambda s: s.draw(torch.full((1, 8, 8), 2.0)), "in .0, 1"),
        (lambda s: s.picture("bmp"), "format must be png, svg or pdf, got 'bmp'"),
        (lambda s: s.walk(torch.rand(1, 8, 8), 1), "steps must be at least 2"),
        (lambda s: s.complete("gibbs"), "method must be one of"),
    ],
)
def test_mistakes_get_one_sentence_and_change_nothing(act, sentence, session, unchecked):
    tree = session.tree
    with pytest.raises(ValueError, match=sentence) as error:
        act(session)
    assert "\n" not in str(error.value)
    assert str(error.value).endswith(".")
    assert session.tree is tree
    session.undo()  # the drawing
    assert session.image is None


@pytest.mark.parametrize(
    "act",
    [
        lambda s: s.tree,
        lambda s: s.parse(),
        lambda s: s.remove("0"),
        lambda s: s.complete(),
        lambda s: s.code(),
        lambda s: s.to_json(),
        lambda s: s.picture(),
        lambda s: s.steps(),
    ],
)
def test_before_anything_is_drawn_a_sentence_says_so(act, rnp):
    with pytest.raises(ValueError, match="Nothing is drawn yet"):
        act(Session(rnp))


# Questions ------------------------------------------------------------------------------------


def test_hidden_pixels_add_up_and_are_shown_again(session):
    session.hide(RIGHT)
    session.hide(RIGHT.T)
    assert torch.equal(session.mask, ~RIGHT & ~RIGHT.T)
    session.hide(None)
    assert session.mask.all()


def test_missing_pixels_are_hidden(rnp):
    session, image = Session(rnp), torch.rand(1, 8, 8)
    image[0, 2, 3] = math.nan
    session.draw(image)
    session.hide(RIGHT)
    session.hide(None)
    assert session.mask.sum() == 63
    assert session.image.isfinite().all()


def test_an_answer_depends_on_what_is_seen_alone(session, rnp):
    session.hide(RIGHT)
    found = session.complete("importance", num_samples=20)
    other = Session(rnp)
    other.draw(torch.where(RIGHT, 1 - session.image, session.image))
    other.hide(RIGHT)
    assert torch.equal(other.complete("importance", num_samples=20).mean, found.mean)
    assert found.mean.shape == found.std.shape == (1, 8, 8)
    assert found.samples.shape == (12, 1, 8, 8)
    assert found.method == "importance"
    assert not found.trusted
    assert found.notes
    assert (found.std >= 0).all()


def test_what_is_kept_is_held(session):
    session.keep("a/0")
    session.move("a/0", ACTION)
    held = session.question().given["a/0"]
    assert held.tolist() == pytest.approx(ACTION)
    session.hide(torch.ones(8, 8, dtype=torch.bool))
    answer = session.complete("svi", num_samples=20, steps=3)
    assert answer.mean.isfinite().all()
    session.release("a/0")
    assert session.question().given == {}


def test_sites_that_are_kept_together_are_one_step(session):
    session.keep("a/0", "z/0")
    assert session.kept == ["a/0", "z/0"]
    session.release("a/0", "z/0")
    assert session.kept == []
    session.undo()
    assert session.kept == ["a/0", "z/0"]
    with pytest.raises(ValueError, match="no site 'z/9'"):
        session.keep("a/1", "z/9")
    session.undo()
    assert session.kept == []
    assert session.image is not None


def test_samples_differ_and_come_again(rnp):
    one, other = Session(rnp, seed=3), Session(rnp, seed=3)
    first, second = one.sample(2), one.sample(2)
    assert not torch.equal(first.canvas, second.canvas)
    assert same(other.sample(2), first)
    random = torch.get_rng_state()
    one.sample(3)
    assert torch.equal(torch.get_rng_state(), random)


def test_a_walk_goes_from_here_to_there(session, rnp):
    other = torch.rand(1, 8, 8)
    walk = session.walk(other, 5)
    assert torch.allclose(walk.canvas[:1], session.tree.canvas, atol=1e-6)
    assert torch.allclose(walk.canvas[-1:], rnp.parse(other[None]).canvas, atol=1e-6)


def test_the_nearest_part_is_the_same_part(session):
    images = torch.cat([torch.rand(3, 1, 8, 8), session.image[None]])
    for site in ("a/1", "z/1/0"):
        first, *_, last = session.nearest(site, images, 4)
        assert (first.image, first.site) == (3, site.replace("a", "z"))
        assert first.distance == pytest.approx(0, abs=1e-5)
        assert last.distance > 0
    assert len(session.nearest("z/1", images, 99)) == 8


def test_the_nearest_parts_are_those_of_the_present_weights(session):
    images = torch.rand(3, 1, 8, 8)
    before = [near.canvas for near in session.nearest("a/1", images, 6)]
    with torch.no_grad():
        for weight in session.rnp.parameters():
            weight.add_(0.05)
    after = [near.canvas for near in session.nearest("a/1", images, 6)]
    assert not torch.allclose(torch.stack(before), torch.stack(after))


# What can be taken away -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_has_its_steps_json_picture_and_code(kind):
    rnp = RNP(tiny(**KINDS[kind])).eval()
    session = begun(rnp)
    if rnp.config.depth:
        session.move("a/0", [*ACTION[:4], -0.5, 0.25])
        session.set("z/1" if len(rnp.config.steps) > 1 else "z/0", [0.1, 0.2, 0.3])
    else:
        session.set("z", [0.1, 0.2, 0.3])
    session.hide(RIGHT)
    tree = session.tree
    for depth in range(1, rnp.config.depth + 1):
        steps = session.steps(depth)
        assert len(steps) == 1 + math.prod(rnp.config.steps[:depth])
        assert not steps[0].canvas.any()
        assert torch.allclose(steps[-1].canvas, tree.canvas[0], atol=1e-6)
    other = Session(rnp)
    other.from_json(session.to_json())
    assert same(other.tree, tree)
    names = {"rnp": rnp}
    for each in (session, other):
        exec(each.code("importance", num_samples=10), names)
        assert same(names["tree"], tree)
        answer = session.complete("importance", num_samples=10)
        assert torch.equal(names["posterior"].mean("canvas")[0], answer.mean)
    assert session.picture().startswith(b"\x89PNG")
    whole = session.picture(depth=rnp.config.depth or None)
    assert (session.picture(steps=0) == whole) == (rnp.config.depth == 0)


def test_the_code_of_what_the_kept_parts_tell_gives_the_same(session):
    session.keep("a/0")
    session.move("a/0", ACTION)
    session.hide(RIGHT)
    with pytest.raises(ValueError, match="No part is kept"):
        Session(session.rnp).question(others=True)
    question = session.question(others=True)
    assert not question.seen.any()
    assert question.methods == ("importance", "smc")
    answers = {}
    for others in (True, False):
        names = {"rnp": session.rnp}
        exec(session.code("smc", others=others, num_samples=10), names)
        answer = session.complete("smc", others=others, num_samples=10)
        assert torch.equal(names["posterior"].mean("canvas")[0], answer.mean)
        assert torch.equal(names["samples"], answer.samples)
        answers[others] = answer.mean
    assert not torch.equal(answers[True], answers[False])


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_a_picture_has_the_depth_and_the_steps_that_are_shown(session, kind):
    pictures = {
        session.picture(kind, depth=d, steps=k) for d, k in [(1, 0), (1, 1), (1, 2), (2, 3)]
    }
    assert len(pictures) == 4
    assert session.picture(kind, depth=2, steps=4) == session.picture(kind)
    one = session.picture("svg", depth=1, steps=1).decode()
    blue, orange = map(to_hex, COLOURS[:2])
    assert blue in one
    assert orange not in one
    whole = session.picture("svg", depth=1).decode()
    assert orange in whole


def test_steps_add_a_part_each(session):
    tree = session.tree
    shares = tree.contributions(1)[0]
    blank, first, second = session.steps()
    assert (blank.site, first.site, second.site) == ("", "a/0", "a/1")
    assert torch.allclose(first.canvas, shares[0], atol=1e-6)
    finer = session.steps(2)
    assert [step.site for step in finer] == ["", "a/0/0", "a/0/1", "a/1/0", "a/1/1"]
    added = finer[3].canvas - finer[2].canvas
    assert torch.allclose(added, tree.contributions(2)[0, 2], atol=1e-5)


def test_json_keeps_everything(session, rnp):
    session.move("a/1", ACTION)
    session.keep("a/0")
    session.hide(RIGHT)
    other = Session(rnp)
    other.from_json(session.to_json())
    assert torch.equal(other.image, session.image)
    assert torch.equal(other.mask, session.mask)
    assert other.kept == ["a/0"]
    assert other.undo()
    assert other.image is None


def missing_a_pixel(rnp):
    session, image = Session(rnp), torch.rand(1, 8, 8)
    image[0, 2, 3] = math.nan
    session.draw(image)
    return session


def test_json_keeps_missing_pixels(rnp):
    session, other = missing_a_pixel(rnp), Session(rnp)
    session.hide(RIGHT)
    other.from_json(session.to_json())
    assert torch.equal(other.mask, session.mask)
    other.hide(None)
    assert other.mask.sum() == 63
    assert not other.mask[2, 3]


def test_what_is_drawn_further_hides_the_same_pixels(rnp):
    session = missing_a_pixel(rnp)
    session.hide(RIGHT)
    mask = session.mask
    session.draw(torch.rand(1, 8, 8), further=True)
    assert torch.equal(session.mask, mask)
    session.hide(None)
    assert session.mask.sum() == 63
    session.draw(torch.rand(1, 8, 8))
    assert session.mask.all()


def test_json_of_another_model_is_not_taken_for_that_of_this_one(rnp):
    session = Session(rnp, name="runs/one")
    session.draw(torch.rand(1, 8, 8))
    text, other = session.to_json(), Session(rnp, name="runs/two")
    with pytest.raises(OtherModel, match="parse of the model runs/one") as error:
        other.from_json(text)
    assert error.value.name == "runs/one"
    assert other.image is None
    for name in ("runs/one", "runs/../runs/one", None):
        assert same(Session(rnp, name=name).from_json(text), session.tree)
    assert same(other.from_json(begun(rnp).to_json()), other.tree)


def test_json_is_that_of_the_command(session, rnp):
    found = json.loads(session.to_json())
    assert found["tree"] == session.tree.to_dict(0)
    assert found["parts"] == COUNTING
    other = Session(rnp)
    tree = other.from_json(json.dumps({"file": "a.png", "tree": session.tree.to_dict(0)}))
    assert same(tree, session.tree)
    assert torch.allclose(other.image, tree.canvas[0].clamp(0, 1), atol=0.5 / 255 + 1e-6)


def test_numbers_of_double_precision_are_kept(double):
    session = begun(RNP(tiny()).eval())
    session.set("z/0", [0.1, 0.2, 0.3])
    other = Session(session.rnp)
    assert same(other.from_json(session.to_json()), session.tree)
    names = {"rnp": session.rnp}
    exec(session.code(), names)
    assert same(names["tree"], session.tree)


def with_program(program):
    return lambda j: {**j, "tree": {**j["tree"], "program": program}}


def with_action(field, value):
    def change(j):
        first, *rest = j["tree"]["parts"]
        first = {**first, "action": {**first["action"], field: value}}
        return {**j, "tree": {**j["tree"], "parts": [first, *rest]}}

    return change


def nested(tree):
    for _ in range(200):
        tree = {**tree, "parts": [tree]}
    return tree


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda j: "", "not the JSON of a parse"),
        (lambda j: "[1, 2]", "not the JSON of a parse"),
        (lambda j: "[" * 10**5, "not the JSON of a parse"),
        (lambda j: {"image": j["image"]}, "not the JSON of a parse"),
        (lambda j: {**j, "model": 3}, "not the JSON of a parse"),
        (lambda j: {**j, "missing": ["1"]}, "of another size"),
        (lambda j: {**j, "image": 3}, "not the JSON of a parse"),
        (lambda j: {**j, "image": "aaaa"}, "not an image that can be read"),
        (lambda j: {**j, "seen": ["1"]}, "of another size"),
        (lambda j: {**j, "seen": [["1"], []]}, "not the JSON of a parse"),
        (lambda j: {**j, "kept": ["a/9"]}, "no site 'a/9'"),
        (lambda j: {**j, "tree": {**j["tree"], "parts": []}}, "with other parts"),
        (lambda j: {**j, "tree": {**j["tree"], "program": [1.0]}}, r"z is a program.*got \(1,\)"),
        (lambda j: {**j, "tree": {**j["tree"], "program": [1e99] * 3}}, "z must be finite"),
        (lambda j: {**j, "tree": {**j["tree"], "program": "z"}}, "not the JSON of a parse"),
        (with_program([10**400, 0, 0]), "not the JSON of a parse"),
        (with_program([10**40, 0, 0]), "z must be finite"),
        (with_program([math.nan, 0, 0]), "z must be finite"),
        (with_program([-math.inf, 0, 0]), "z must be finite"),
        (with_program([[0.1], [0.2], [0.3]]), "not the JSON of a parse"),
        (with_program([True, False, True]), "not the JSON of a parse"),
        (with_program(["1", "2", "3"]), "not the JSON of a parse"),
        (with_program({"0": 1}), "not the JSON of a parse"),
        (with_program(None), "not the JSON of a parse"),
        (with_action("x", 10**400), "not the JSON of a parse"),
        (with_action("x", math.nan), "a/0 must be finite"),
        (with_action("x", True), "not the JSON of a parse"),
        (with_action("x", [0.1]), "not the JSON of a parse"),
        (with_action("x", 3e38), "too large or too small to be drawn"),
        (with_action("scale_x", 0), "scales must be positive"),
        (with_action("scale_x", 1e-44), "too large or too small to be drawn"),
        (lambda j: {**j, "tree": {**j["tree"], "parts": 10**400}}, "not the JSON of a parse"),
        (lambda j: {**j, "tree": [j["tree"]]}, "not the JSON of a parse"),
        (lambda j: {**j, "tree": nested(j["tree"])}, "not the JSON of a parse"),
        (lambda j: {**j, "seen": 10**400}, "not the JSON of a parse"),
        (lambda j: {**j, "seen": True}, "not the JSON of a parse"),
        (lambda j: {**j, "seen": [[["1"]] * 8] * 8}, "not the JSON of a parse"),
        (lambda j: {**j, "seen": ["1" * 10**4] * 10**3}, "of another size"),
        (lambda j: {**j, "kept": True}, "not the JSON of a parse"),
        (lambda j: {**j, "kept": [["a/0"]]}, "not the JSON of a parse"),
        (lambda j: {**j, "kept": "a/0"}, "not the JSON of a parse"),
        (lambda j: {**j, "image": True}, "not the JSON of a parse"),
        (lambda j: {**j, "image": ["a"]}, "not the JSON of a parse"),
    ],
)
def test_bad_json_gets_one_sentence_and_changes_nothing(change, sentence, session, unchecked):
    tree, changed = session.tree, change(json.loads(session.to_json()))
    text = changed if isinstance(changed, str) else json.dumps(changed)
    with pytest.raises(ValueError, match=sentence) as error:
        session.from_json(text)
    assert "\n" not in str(error.value)
    assert session.tree is tree


def test_pictures_leave_the_backend_alone(session):
    backend = matplotlib.get_backend()
    assert Image.open(io.BytesIO(session.picture("png"))).format == "PNG"
    assert b"<svg" in session.picture("svg", palette=["#123456"])
    assert b"#123456" in session.picture("svg", palette=["#123456"])
    assert session.picture("pdf").startswith(b"%PDF")
    assert matplotlib.get_backend() == backend


def test_the_code_of_a_pretrained_model_runs_by_itself(unchecked):
    rnp = open_model("mnist")
    session = Session(rnp, name="mnist")
    session.draw(torch.rand(1, 28, 28) * half_mask("right", 28))
    session.react = True
    session.move("a/1", ACTION)
    session.keep("a/0")
    session.hide(~half_mask("right", 28))
    names = {}
    exec(session.code("importance", num_samples=10), names)
    assert same(names["tree"], session.tree)
    answer = session.complete("importance", num_samples=10)
    assert torch.equal(names["posterior"].mean("canvas")[0], answer.mean)


def test_a_part_that_was_removed_is_kept_no_more(session):
    for site in ("a/0", "z/1", "a/1/0"):
        session.keep(site)
    session.remove("1")
    assert session.kept == ["a/0"]
    assert session.question().given.keys() == {"a/0"}
    assert session.complete("importance", others=True, num_samples=10).mean.isfinite().all()
    with pytest.raises(ValueError, match="Part 1 was removed; undo that"):
        session.keep("a/1")
    session.remove("0")
    with pytest.raises(ValueError, match="No part is kept"):
        session.question(others=True)
    session.undo()
    session.undo()
    assert session.kept == ["a/0", "a/1/0", "z/1"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_within_a_part_keeps_the_shades_of_the_whole(kind):
    session = begun(RNP(tiny(**{"steps": (2, 3), **KINDS[kind]})).eval())
    tree = session.tree
    for depth in range(2, tree.level + 1):
        colours = [to_hex(colour) for colour in shades(tree, depth)]
        for k in range(1, len(colours)):
            drawn = session.picture("svg", depth=depth, steps=k).decode()
            assert set(colours[:k]) <= set(re.findall("#[0-9a-f]{6}", drawn))


def test_the_code_has_samples_walks_and_nearest_parts(session, rnp):
    session.move("a/1", ACTION)
    images = load_data("strokes", size=8).test[:6].images
    other = rounded(images[3])
    session.sample(3)
    drawn, walk = session.sample(3), session.walk(other)
    near = session.nearest("z/1", images)
    names = {"rnp": rnp, "images": images}
    exec(session.code(samples=3, walk=other, nearest="z/1"), names)
    assert same(names["prior"], drawn)
    assert same(names["walk"], walk)
    assert [found[:3] for found in names["near"]] == [found[:3] for found in near]
    more = session.code(nearest="z/1", images={"data": "strokes"})
    assert "\nimages = images_for(rnp, data='strokes')\n" in more
    assert torch.equal(images_for(rnp, data="strokes")[:6], images)


def test_a_picture_shows_what_is_hidden_in_a_colour_of_its_own(session):
    def marked():
        drawn = Image.open(io.BytesIO(session.picture())).convert("RGB")
        wanted = np.array([176, 196, 222])  # light steel blue
        return (np.asarray(drawn) == wanted).all(-1).sum()

    assert not marked()
    session.hide(torch.ones(8, 8).bool())
    assert marked() > 1000
