"""Pieces by name, their options, and one sentence for a mistake."""

import pytest
import torch
from pyro.distributions import Laplace

from pyro_rnp import RNP, RNPConfig
from pyro_rnp.priors import StandardNormal
from pyro_rnp.registry import PRIORS, Registry
from tests.conftest import tiny


@pytest.fixture
def boxes():
    registry = Registry("box")

    @registry.add("cube")
    def cube(size, *, colour="red", edge=1.0, open=False, lid=None):
        return size, colour, edge, open, lid

    return registry


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("cube", (3, "red", 1.0, False, None)),
        ("cube:edge=2,colour=blue", (3, "blue", 2, False, None)),
        ("cube:open=true,edge=-1e-3", (3, "red", -1e-3, True, None)),
        ("cube:lid=[1,2]", (3, "red", 1.0, False, [1, 2])),
    ],
)
def test_text_becomes_a_piece(boxes, text, made):
    assert boxes.make(text, 3) == made


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cub", r"There is no box 'cub' \(did you mean cube\?\); choose from cube\."),
        ("", "There is no box ''; choose from cube"),
        ("cube:hue=1", "The box 'cube' has no option 'hue'; it has colour, edge, open, lid"),
        ("cube:size=1", "has no option 'size'"),
        ("cube:edge", "cannot be read; write name:option=value"),
        ("cube:edge=1)+f(", "cannot be read"),
        ("cube:edge=__import__('os')", "cannot be read"),
        ("cube:**{}", "cannot be read"),
        ("cube:edge=blue", "takes edge like 1.0, got 'blue'"),
        ("cube:open=1", "takes open like False, got 1"),
    ],
)
def test_a_mistake_gets_one_sentence(boxes, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        boxes.make(text, 3)


def test_a_piece_of_one_s_own_is_chosen_by_its_name(monkeypatch):
    monkeypatch.setattr(PRIORS, "pieces", dict(PRIORS.pieces))

    @PRIORS.add("mine")
    class Mine(torch.nn.Module):
        def __init__(self, config, *, width=1.0):
            super().__init__()
            self.width = torch.full((config.program_size,), width)

        def forward(self):
            return Laplace(0.0, self.width).to_event(1)

    rnp = RNP(tiny(prior="mine:width=2.0"))
    assert isinstance(rnp.model.prior, Mine)
    assert RNPConfig.from_dict(rnp.config.to_dict()) == rnp.config
    assert rnp.sample(3).canvas.shape == (3, 1, 8, 8)
    assert "mine:width=1.0" in PRIORS.describe()


def test_a_piece_that_comes_along_is_not_replaced():
    with pytest.raises(ValueError, match="There is a prior 'normal' already"):
        PRIORS.add("normal")(dict)
    assert PRIORS.pieces["normal"] is StandardNormal
