"""What the page shows: pictures, and frames as SVG."""

import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.colors import to_rgb

from inference.data import load_data
from inference.explore import COLOUR_BLIND, HANDLES, Session, parts
from inference.explore.shelf import OWN, Shelf
from inference.explore.view import frames, ink, painted, spread, uri
from pyro_rnp import RNP, RNPConfig, save
from pyro_rnp.plotting import COLOURS, MISSING, coloured

SMALL = RNPConfig(image_size=8, patch_size=4, steps=(3, 2), program_size=3)


@pytest.fixture
def rnp():
    torch.manual_seed(0)
    return RNP(SMALL)


@pytest.fixture
def tree(rnp):
    with torch.no_grad():
        return rnp.parse(torch.rand(1, 1, 8, 8))


def test_a_parse_is_shown_in_the_colours_of_its_parts(tree):
    assert torch.equal(painted(tree), coloured(tree.contributions(1), COLOURS)[0])
    blind = painted(tree, palette=COLOUR_BLIND)
    assert torch.equal(blind, coloured(tree.contributions(1), COLOUR_BLIND)[0])
    assert not torch.equal(painted(tree, 2), painted(tree))


def test_steps_are_shown_one_after_another(tree):
    assert painted(tree, steps=0).min() == 1
    shown = [painted(tree, steps=k) for k in range(4)]
    for before, after in pairwise(shown):
        assert (after <= before + 1e-6).all()
    assert torch.equal(shown[-1], painted(tree))
    assert torch.equal(painted(tree, 2, 6), painted(tree, 2))
    assert torch.equal(painted(tree, 0), ink(tree.canvas[0]))


def test_later_sub_parts_cover_nothing_before_their_step():
    config = replace(SMALL, composition="over", channels=3)
    session = Session(RNP(config).eval())
    session.draw(torch.rand(3, 8, 8))
    for step, canvas in enumerate(session.steps(2)):
        shown = painted(session.tree, 2, step)
        torch.testing.assert_close(shown, canvas.canvas.clamp(0, 1).permute(1, 2, 0))


def test_images_in_colour_keep_their_colours():
    config = RNPConfig(image_size=8, patch_size=4, steps=(2, 2), program_size=3, channels=3)
    with torch.no_grad():
        tree = RNP(config).parse(torch.rand(1, 3, 8, 8))
    wanted = tree.canvas[0].clamp(0, 1).permute(1, 2, 0)
    torch.testing.assert_close(painted(tree), wanted)


def test_hidden_pixels_have_the_colour_of_missing_ones():
    seen = torch.ones(4, 4, dtype=torch.bool)
    seen[:, 2:] = False
    shown = ink(torch.zeros(1, 4, 4), seen)
    assert (shown[:, :2] == 1).all()
    assert torch.equal(shown[0, 3], torch.tensor(to_rgb(MISSING)))


def test_no_spread_is_white_and_much_is_dark():
    assert (spread(torch.zeros(1, 2, 2)) == 1).all()
    assert spread(torch.full((1, 2, 2), 0.5)).mean() < 0.3


def test_a_picture_is_an_address_of_its_own():
    assert uri(torch.rand(4, 4, 3)).startswith("data:image/png;base64,")


def test_frames_have_handles_where_they_can_be_taken(tree):
    found = parts(tree, SMALL)
    own = [part for part in found if part.depth == 1]
    text = frames(own, 8, "1", [])
    svg = ElementTree.fromstring(f"<svg>{text}</svg>")
    held = [e.get("data-handle") for e in svg.iter() if e.get("data-handle")]
    assert sorted(held[:3]) == ["0 move", "1 move", "2 move"]
    assert set(held[3:]) == {f"1 {name}" for name in HANDLES}
    assert len(re.findall("<title>", text)) == len(held), "each says what it does"
    small = [part for part in found if part.path.startswith("1/")]
    inner = frames(small, 8, None, [own[1]])
    assert inner.count("rnp-outer") == 2
    assert "rnp-grip" not in inner


def test_a_run_that_was_trained_anew_is_loaded_anew(rnp, tmp_path, monkeypatch):
    save(rnp, tmp_path, {"training": {"data": "digits", "size": 8}})
    shelf, name = Shelf(tmp_path), str(tmp_path)
    before = shelf.model(name)
    assert shelf.model(name) is before
    line = shelf.line(name)
    torch.manual_seed(1)
    save(RNP(SMALL), tmp_path, {"training": {"data": "digits", "size": 8}})
    after = shelf.model(name)
    assert after is not before
    assert shelf.model(name) is after
    own, old = (next(iter(m.parameters())) for m in (after, before))
    assert not torch.equal(own, old)
    assert shelf.line(name) > 0
    assert line > 0
    (tmp_path / "model.safetensors").unlink()
    assert shelf.model(name) is after, "of a run that is gone, what there was"


def test_a_shelf_has_models_and_images(rnp, tmp_path):
    images = load_data("digits", size=8).test.images[:5]
    own = Shelf(rnp, images)
    assert own.names()[0] == OWN
    assert own.model(OWN) is rnp
    assert torch.equal(own.images(OWN), images)
    assert 1 <= own.line(OWN) <= 6
    assert Shelf(rnp).images(OWN).shape[1:] == (1, 8, 8)
    save(rnp, tmp_path, {"training": {"data": "digits", "size": 8}})
    folder = Shelf(tmp_path)
    assert folder.names()[0] == str(tmp_path)
    assert folder.images(str(tmp_path)).shape[1:] == (1, 8, 8)
    with pytest.raises(ValueError, match="data set"):
        Shelf(tmp_path, data="nothing")


@pytest.mark.parametrize("training", [{}, {"data": "digits"}, {"data": "strokes", "size": 12}])
def test_images_have_the_size_that_the_model_reads_whatever_its_record_says(tmp_path, training):
    config = replace(SMALL, channels=3)
    save(RNP(config), tmp_path, {"training": training})
    shelf, name = Shelf(tmp_path), str(tmp_path)
    shelf.model(name).check(shelf.images(name))
