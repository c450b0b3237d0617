"""A prior, a guide and a likelihood as objects: trained, and loaded in another process."""

import os
import subprocess
import sys
from pathlib import Path

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from inference import fit
from inference.posterior import half_mask, query
from pyro_rnp import check, load
from tests.conftest import tiny


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(3))

    def forward(self):
        return dist.Laplace(0.0, self.log_scale.exp()).to_event(1)


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 6)

    def posterior(self, images):
        loc, log_scale = self.layer(images.flatten(1)).chunk(2, -1)
        return dist.Normal(loc, log_scale.clamp(-5, 2).exp()).to_event(1)


class Heavy(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, canvas):
        return dist.StudentT(4.0, canvas, self.log_scale.exp()).to_event(3)


def own():
    return {"prior": Sparse(), "guide": Linear(), "likelihood": Heavy()}


ELSEWHERE = """
import sys, torch
from inference.posterior import half_mask, query
from inference.run import Run
from tests.inference.training.test_own_pieces import own
run = Run(sys.argv[1])
try:
    run.load()
except ValueError as error:
    print(error)
rnp, images = run.load(**own()), torch.load(sys.argv[2])
torch.manual_seed(0)
sample = rnp.sample(3).canvas
found = query(rnp, images[:2], mask=half_mask("right", 8), num_samples=20, steps=2, progress=False)
torch.save([rnp.parse(images).canvas, sample, found.mean("canvas")], sys.argv[3])
"""


@pytest.mark.usefixtures("unchecked")
def test_objects_train_save_load_sample_and_answer_in_another_process(tmp_path):
    config, images = tiny(), torch.rand(40, 1, 8, 8)
    pieces = own()
    before = {k: v.clone() for piece in pieces.values() for k, v in piece.state_dict().items()}
    for piece in pieces.values():
        check(piece, config)
    run = fit(
        images, config, out=tmp_path / "run", epochs=2, learning_rate=1e-2, progress=False, **pieces
    )
    rnp = run.load()
    for field, piece in rnp.pieces().items():
        if field in pieces:
            assert type(piece) is type(pieces[field])
            was = pieces[field].state_dict()
            assert all(not torch.equal(v, was[k]) for k, v in piece.state_dict().items()), field
    after = {k: v for piece in pieces.values() for k, v in piece.state_dict().items()}
    assert all(torch.equal(after[k], before[k]) for k in after), "fit trains copies"
    torch.save(images, tmp_path / "images.pt")
    files = [tmp_path / "run", tmp_path / "images.pt", tmp_path / "found.pt"]
    root = Path(__file__).parents[3]
    told = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, *map(str, files)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "prior was given as an object of tests.inference.training.test_own_pieces.Sparse" in told
    canvas, sample, mean = torch.load(tmp_path / "found.pt")
    torch.testing.assert_close(canvas, rnp.parse(images).canvas)
    torch.manual_seed(0)
    torch.testing.assert_close(sample, rnp.sample(3).canvas)
    mask = half_mask("right", 8)
    here = query(rnp, images[:2], mask=mask, num_samples=20, steps=2, progress=False)
    torch.testing.assert_close(mean, here.mean("canvas"), rtol=1e-3, atol=1e-3)
    again = load(tmp_path / "run", **own())
    torch.testing.assert_close(again.parse(images).canvas, canvas)


def test_fit_refuses_a_piece_of_wrong_shapes_before_it_makes_a_folder(tmp_path):
    class Short(Sparse):
        def forward(self):
            return dist.Laplace(torch.zeros(2), 1.0).to_event(1)

    with pytest.raises(ValueError, match=r"event shape \(3,\) and batch shape \(\), got \(2,\)"):
        fit(torch.rand(40, 1, 8, 8), tiny(), out=tmp_path / "run", epochs=1, prior=Short())
    assert not (tmp_path / "run").exists()
