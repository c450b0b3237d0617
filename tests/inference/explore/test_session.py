"""The state of one visitor, and what it gives away."""

import json

import pytest
import torch

from inference.explore import Session, parts
from pyro_rnp import RNP, RNPConfig

CONFIG = RNPConfig(image_size=8, patch_size=4, steps=(3, 2), program_size=3)


@pytest.fixture
def rnp():
    torch.manual_seed(0)
    return RNP(CONFIG)


@pytest.fixture
def session(rnp):
    session = Session(rnp)
    session.draw((torch.rand(1, 8, 8) * 255).round() / 255)
    return session


def test_an_edit_is_undone_and_taken_again(session):
    before = session.tree
    after = session.move("a/1", [0.3, 0.3, 0.0, 0.0, 0.5, 0.0])
    assert not torch.equal(after.canvas, before.canvas)
    assert session.undo()
    assert session.tree is before
    assert session.redo()
    assert session.tree is after
    assert not session.redo()


def test_json_and_back(session, rnp):
    session.move("a/1", [0.3, 0.3, 0.0, 0.0, 0.5, 0.0])
    session.keep("a/0")
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[:, 4:] = True
    session.hide(hidden)
    other = Session(rnp)
    other.from_json(session.to_json())
    assert torch.equal(other.tree.canvas, session.tree.canvas)
    assert torch.equal(other.image, session.image)
    assert torch.equal(other.mask, session.mask)
    assert other.kept == ["a/0"]
    assert json.loads(session.to_json())["tree"] == session.tree.to_dict(0)


def test_the_code_gives_the_same_tree_and_answer(session, rnp):
    session.react = True
    session.move("a/1", [0.3, 0.3, 0.0, 0.0, 0.5, 0.0])
    session.react = False
    session.set("z/0", [0.1, 0.2, 0.3])
    hidden = torch.zeros(8, 8, dtype=torch.bool)
    hidden[:, 4:] = True
    session.hide(hidden)
    names = {"rnp": rnp}
    exec(session.code("importance"), names)
    assert torch.equal(names["tree"].canvas, session.tree.canvas)
    answer = session.complete("importance")
    assert torch.equal(names["posterior"].mean("canvas")[0], answer.mean)


def test_parts_to_every_depth(session):
    found = parts(session.tree, CONFIG)
    assert [part.site for part in found[:4]] == ["a/0", "a/1", "a/2", "a/0/0"]
    assert len(found) == 9
