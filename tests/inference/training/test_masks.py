"""Training a guide that has seen masks."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import Timer

from inference import Run, fit
from inference.cli import train_config
from inference.config import MASKED_GUIDE, MASKS, TrainConfig
from inference.objectives import masked_loss
from inference.training import train
from inference.training.module import Training
from pyro_rnp import RNP, load
from tests.conftest import tiny
from tests.inference.training.conftest import CONFIG, config

MASKED = "mask_training"
SMALL = {"masked_guide": "flow:layers=2,units=6"}


def weights(folder):
    """Those of the masked guide, and all others."""
    state = load(folder).state_dict()
    masked = {n: v for n, v in state.items() if n.startswith("guide.masked.")}
    return masked, {n: v for n, v in state.items() if n not in masked}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[n]) for n, v in a.items())


def certain(rnp):
    """The model, with a guide that is sure of each whole image, so that there is more to learn."""
    with torch.no_grad():
        rnp.guide.top.encoder[-1].bias[3:] = -3.0
    return rnp


def test_either_field_brings_the_other():
    assert TrainConfig().mask_training is None
    assert TrainConfig(mask_training=["halves"]).model.masked_guide == MASKED_GUIDE
    assert TrainConfig(model=tiny(masked_guide="full")).mask_training == list(MASKS)
    both = TrainConfig(mask_training=["none"], model=tiny(masked_guide="full"))
    assert (both.mask_training, both.model.masked_guide) == (["none"], "full")
    with pytest.raises(ValueError, match="mask_training must name one or more"):
        TrainConfig(mask_training=[])


@pytest.mark.parametrize("kinds", ["none", "halves", "halves,blocks"])
def test_the_command_line_takes_kinds_of_masks(kinds):
    found = train_config(["--mask_training", kinds])
    assert (found.mask_training, found.model.masked_guide) == (kinds.split(","), MASKED_GUIDE)


def test_all_else_learns_as_without_it_to_the_last_bit(few, tmp_path):
    without = train(config(tmp_path / "without", clip=0.5))
    with_ = train(config(tmp_path / "with", clip=0.5, mask_training=["halves", "pixels"]))
    masked, others = weights(with_)
    assert equal(others, weights(without)[1])
    torch.manual_seed(0)
    first = RNP(load(with_).config).state_dict()
    assert not any(
        torch.equal(v, first[n]) for n, v in masked.items() if n.endswith("encoder.0.conv1.weight")
    )
    curve = Run(with_).curve[-1]
    assert curve["val_masked_nll"] > 0
    assert {n: v for n, v in curve.items() if n.startswith("val_") and "masked" not in n} == {
        n: v for n, v in Run(without).curve[-1].items() if n.startswith("val_")
    }


def test_it_is_added_to_a_trained_model_which_stays_and_need_not_run(few, tmp_path, monkeypatch):
    first = train(config(tmp_path / "first"))
    Run(first).save(certain(load(first)), Run(first).config)
    monkeypatch.setattr("inference.training.module.loss", None)  # of the model
    how = {"start": str(first), "learn": "new", MASKED: ["halves"], "learning_rate": 1e-2}
    more = {"schedule": "constant", "epochs": 8, "patience": 8}
    folder = train(config(tmp_path / "more", **how, **more))
    assert "New: masked guide." in (folder / "log.txt").read_text()
    masked, others = weights(folder)
    assert equal(others, load(first).state_dict())
    curve = [row["val_masked_nll"] for row in Run(folder).curve]
    assert min(curve) < curve[0] - 0.5, "the guide of whole images is learned from"
    assert (Run(folder).metrics or {})["best_epoch"] == 1 + curve.index(min(curve))
    stopped = train(config(tmp_path / "stopped", **how, **{**more, "epochs": 3}))
    train(config(None, resume=str(stopped), **how, **more))
    assert equal(masked, weights(stopped)[0]), "as if it had never stopped"


def test_the_masked_guide_learns_what_whole_images_say_of_halves(few):
    rnp = certain(RNP(replace(CONFIG, **SMALL)))
    images = few.train.images
    seen = (torch.arange(28) < 14).expand(len(images), 1, 28, 28)
    adam = torch.optim.Adam(rnp.guide.masked.parameters(), 1e-2)
    before = masked_loss(rnp, images, seen).item()
    for _ in range(60):
        adam.zero_grad()
        masked_loss(rnp, images, seen).backward()
        adam.step()
    assert masked_loss(rnp, images, seen).item() < before - len(images)
    assert all(p.grad is None for p in [*rnp.model.parameters(), *rnp.guide.top.parameters()])


def test_missing_pixels_stay_missing(few):
    rnp = RNP(tiny(**SMALL))
    images = torch.rand(4, 1, 8, 8)
    images[:, :, 0] = torch.nan
    shown = []
    rnp.guide.masked.register_module("top", Shown(rnp.guide.masked.top, shown))
    seen = torch.arange(8).expand(4, 1, 8, 8) < 4
    assert masked_loss(rnp, images, seen).isfinite()
    pixels, mask = shown[0].unbind(1)
    assert torch.equal(mask == 1, (seen & ~images.isnan())[:, 0])
    assert (pixels[mask == 0] == 0).all()


class Shown(torch.nn.Module):
    """A guide that keeps what it is shown."""

    def __init__(self, top, shown):
        super().__init__()
        self.top, self.shown = top, shown

    def posterior(self, images):
        self.shown.append(images)
        return self.top.posterior(images)


def test_a_model_that_has_one_keeps_it_current(few, tmp_path):
    first = train(config(tmp_path / "first", mask_training=["halves"]))
    again = fit(few, start=first, out=tmp_path / "again", epochs=1, progress=False)
    assert again.config.mask_training == list(MASKS)
    assert not equal(weights(again.path)[0], weights(first)[0])
    guide = fit(few, start=first, out=tmp_path / "guide", epochs=1, learn="guide", progress=False)
    assert not equal(weights(guide.path)[0], weights(first)[0])


def test_masks_are_drawn_of_the_kinds_that_are_named(few, tmp_path):
    rnp = RNP(tiny(image_size=28, patch_size=6, **SMALL))
    found = TrainConfig(mask_training=["none"], model=rnp.config)
    module = Training(rnp, found, few, Timer(), Run(tmp_path, shipped=False))
    assert module.masked_learns
    assert not module.masked_alone
    shown = []
    rnp.guide.masked.top = Shown(rnp.guide.masked.top, shown)
    module.masked_loss_per_image(few.train[:8].images)
    assert (shown[0][:, 1] == 1).all()
