"""The flat program: a VAE of the same size in the recursion's place."""

import pytest
import torch
from pyro import poutine

from inference.plotting import parse_figure
from inference.posterior import query
from inference.training.diagnostics import problems
from pyro_rnp import RNP, RNPConfig, load, save
from tests.conftest import tiny


@pytest.mark.parametrize("preset", ["fast", "mnist", "omniglot"])
def test_it_has_about_as_many_parameters_and_the_same_encoder(preset):
    sizes, encoders = [], []
    for program in ("recursive", "flat"):
        rnp = RNP(RNPConfig.preset(preset, program=program))
        sizes.append(sum(p.numel() for p in rnp.parameters()))
        encoders.append({n: p.shape for n, p in rnp.guide.named_parameters()})
    assert 1 <= sizes[1] / sizes[0] < 1.01
    assert encoders[0] == encoders[1]


def test_it_is_a_vae_with_the_same_sites_above(images, tmp_path):
    rnp = RNP(tiny(program="flat:units=5")).eval()
    assert rnp.model.recursion.layers[0].out_features == 5
    nodes = poutine.trace(rnp.model).get_trace(images).nodes
    assert [n for n in nodes if nodes[n]["type"] == "sample" and n != "images"] == [
        "z", "canvas", "x"
    ]  # fmt: skip
    tree = rnp.parse(images)
    assert (tree.level, tree.canvas.shape) == (0, images.shape)
    assert tree.canvas.mean() < 0.2, "it starts near blank"
    save(rnp, tmp_path)
    assert torch.equal(load(tmp_path).parse(images).canvas, tree.canvas)
    parse_figure(tree, tmp_path / "parse.png", images)
    assert "part 0" not in problems(rnp, images)
    assert query(rnp, images, method="importance", num_samples=5).samples.keys() == {"z", "canvas"}


def test_of_binary_images_it_is_the_usual_vae():
    rnp = RNP(tiny(program="flat", likelihood="bernoulli"))
    z = 30 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    said = rnp.model.likelihood(rnp.model.recursion(z).canvas).base_dist.logits
    wanted = rnp.model.recursion.layers(z).view_as(said)
    assert wanted.min() < -5 < 5 < wanted.max()
    above = wanted > -9  # a pixel has ink once in 10,000 at least
    torch.testing.assert_close(said[above], wanted[above], atol=1e-2, rtol=1e-3)


def test_nothing_below_it_can_be_random():
    with pytest.raises(ValueError, match="no levels below"):
        tiny(program="flat", stochastic="actions")


def test_a_decoder_has_a_hidden_layer_even_where_the_encoder_has_none():
    rnp = RNP(tiny(program="flat", encoder_layers=1))
    assert len([m for m in rnp.model.recursion.layers if isinstance(m, torch.nn.Linear)]) == 2
