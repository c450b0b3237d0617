"""The guide that has seen masks, as a part of a model."""

from dataclasses import replace

import pytest
import torch

from pyro_rnp import RNP, RNPConfig, load, save
from pyro_rnp.checkpoint import MASKED as MASKED_FILE
from pyro_rnp.checkpoint import SHIPPED, WEIGHTS, load_config, load_weights, save_masked_guide
from tests.conftest import tiny

MASKED = "flow:layers=2,units=5"


@pytest.fixture
def halves(images):
    """Images without their right halves."""
    return images.where(torch.arange(8) < 4, torch.nan)


def test_all_else_begins_as_it_does_without_it():
    torch.manual_seed(0)
    without = RNP(tiny(stochastic="both")).state_dict()
    torch.manual_seed(0)
    state = RNP(tiny(stochastic="both", masked_guide=MASKED)).state_dict()
    assert all(torch.equal(state[name], value) for name, value in without.items())
    assert all(name.startswith("guide.masked.") for name in state.keys() - without.keys())


@pytest.mark.parametrize("name", ["diagonal", "full", "lowrank", "flow"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_guide_that_reads_images_alone_may_be_the_masked_one(name, channels):
    rnp = RNP(tiny(masked_guide=name, channels=channels, encoder_colour=channels > 1))
    images = torch.rand(4, channels, 8, 8)
    images[1:, :, :, 4:] = torch.nan
    q = rnp.guide.seen_posterior(images)
    z = q.sample((5,))
    assert z.shape == (5, 4, 3)
    assert q.log_prob(z).isfinite().all()


def test_it_tells_a_hidden_pixel_from_a_dark_one(images, halves):
    masked = RNP(tiny(masked_guide="diagonal")).guide.masked
    dark = masked.posterior(halves.nan_to_num()).mean
    assert not torch.allclose(masked.posterior(halves).mean, dark)
    torch.testing.assert_close(masked.posterior(halves).mean, masked.posterior(halves).mean)


def test_whole_images_keep_their_posterior_beside_hidden_ones(images, halves):
    rnp = RNP(tiny(masked_guide=MASKED))
    z = torch.randn(4, 3)
    whole, hidden = rnp.guide.posterior(images), rnp.guide.seen_posterior(halves)
    both = rnp.guide.seen_posterior(torch.cat([images[:2], halves[2:]])).log_prob(z)
    torch.testing.assert_close(both[:2], whole.log_prob(z)[:2])
    torch.testing.assert_close(both[2:], hidden.log_prob(z)[2:])


def test_parsing_and_encoding_do_not_ask_it(halves):
    torch.manual_seed(0)
    with_, without = RNP(tiny(masked_guide=MASKED)), RNP(tiny())
    without.load_state_dict(with_.state_dict(), strict=False)
    assert torch.equal(with_.parse(halves).program, without.parse(halves).program)
    assert torch.equal(with_.encode(halves).mean, without.encode(halves).mean)


def test_a_model_without_one_says_how_to_get_it(rnp, halves):
    with pytest.raises(ValueError, match="--mask_training"):
        rnp.guide.seen_posterior(halves)


def test_a_guide_that_runs_the_model_or_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="masked_guide must be one that reads images alone"):
        RNP(tiny(masked_guide="refined"))
    with pytest.raises(ValueError, match="must have a density, which map has not"):
        RNP(tiny(masked_guide="map"))
    with pytest.raises(ValueError, match="There is no guide 'flaw'"):
        tiny(masked_guide="flaw")


def test_a_saved_model_comes_back_with_it_and_former_ones_without(tmp_path, halves):
    rnp = RNP(tiny(masked_guide=MASKED))
    save(rnp, tmp_path)
    again, z = load(tmp_path), torch.randn(4, 3)
    assert torch.equal(
        again.guide.seen_posterior(halves).log_prob(z), rnp.guide.seen_posterior(halves).log_prob(z)
    )
    former = tiny().to_dict()
    del former["masked_guide"]
    assert RNPConfig.from_dict(former) == replace(load_config(tmp_path)[0], masked_guide=None)


@pytest.fixture
def beside(tmp_path):
    """A folder of a model whose masked guide was trained afterwards, and the two together."""
    save(RNP(tiny()), tmp_path)
    rnp = RNP(tiny(masked_guide=MASKED))
    load_weights(rnp, tmp_path / WEIGHTS, partial=True)
    before = (tmp_path / WEIGHTS).read_bytes()
    save_masked_guide(rnp, tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == before
    return tmp_path, rnp


def test_one_that_lies_beside_the_weights_is_taken_where_it_is_wanted(beside, halves):
    folder, rnp = beside
    without, again, z = load(folder), load(folder, masked_guide=True), torch.randn(4, 3)
    assert without.guide.masked is None
    assert without.config == replace(again.config, masked_guide=None)
    assert again.config == rnp.config
    state = rnp.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in again.state_dict().items())
    q, same = (model.guide.seen_posterior(halves) for model in (again, rnp))
    assert torch.equal(q.log_prob(z), same.log_prob(z))


def test_one_of_other_weights_or_none_or_a_damaged_one_is_refused(beside, rnp, tmp_path):
    folder, with_ = beside
    with pytest.raises(ValueError, match="has no guide that has seen masks to save"):
        save_masked_guide(rnp, folder)
    save(RNP(tiny()), folder)
    with pytest.raises(ValueError, match="was trained for other weights"):
        load(folder, masked_guide=True)
    with pytest.raises(ValueError, match="holds the weights of another model"):
        save_masked_guide(with_, folder)
    (folder / MASKED_FILE).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        load(folder, masked_guide=True)
    (folder / MASKED_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="train one with --mask_training"):
        load(folder, masked_guide=True)


def test_the_shipped_one_leaves_all_else_as_it_is_and_is_small():
    without, with_ = load("mnist"), load("mnist", masked_guide=True)
    state = with_.state_dict()
    assert all(torch.equal(v, state[n]) for n, v in without.state_dict().items())
    images = without.sample(3).canvas.clamp(0, 1)
    assert torch.equal(without.parse(images).canvas, with_.parse(images).canvas)
    halves = images.where(torch.arange(28) < 14, torch.nan)
    z = without.encode(images).sample((20,))
    assert (
        with_.guide.seen_posterior(halves).log_prob(z).mean()
        > without.model.prior().log_prob(z).mean() + 5
    ), "it knows more than the prior"
    assert (SHIPPED / "mnist" / MASKED_FILE).stat().st_size < 3_000_000
