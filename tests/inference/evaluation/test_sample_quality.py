"""Distances of samples from data, where they are known."""

from types import SimpleNamespace

import pytest
import torch

import inference.evaluation.sample_quality
from inference.data import ImageSet, Splits, load_data
from inference.data.augmentation import rotate_at_random
from inference.evaluation.sample_quality import (
    features,
    frechet_distance,
    precision_recall,
    read_feature_classifier,
    sample_quality_metrics,
    sample_scores,
    train_feature_classifier,
)
from pyro_rnp import RNP, RNPConfig


def test_the_frechet_distance_of_normals_is_the_formula_s():
    torch.manual_seed(0)
    x = torch.randn(4000, 5).double()
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    shift = torch.tensor([1.0, -2, 0, 0, 0.5]).double()
    assert frechet_distance(x, x + shift) == pytest.approx(shift.square().sum().item(), rel=1e-6)
    scales = torch.tensor([2.0, 1, 0.5, 1, 3]).double()
    turn = torch.linalg.qr(torch.randn(5, 5).double())[0]
    a, b = x @ turn, (x * scales) @ turn  # standard, and scaled along the same axes
    wanted = (x.T.cov() + (x * scales).T.cov()).trace()
    ca, cb = x.T.cov(), (x * scales).T.cov()
    roots = torch.linalg.eigvals(ca @ cb).real.clamp(min=0).sqrt().sum()
    apart = (x.mean(0) * (scales - 1)).square().sum()
    assert frechet_distance(a, b) == pytest.approx((apart + wanted - 2 * roots).item(), rel=1e-6)


def test_precision_and_recall():
    line = torch.arange(10.0).view(-1, 1).double()
    whole = precision_recall(line, line)
    assert (whole.precision, whole.recall) == (1, 1)
    far = precision_recall(line, line + 100)
    assert (far.precision, far.recall) == (0, 0)
    narrow = precision_recall(
        line, 4.5 + 0.01 * line
    )  # among the data, and of a small part of them
    assert (narrow.precision, narrow.recall) == (1, 0)
    with pytest.raises(ValueError, match="more than 3"):
        precision_recall(line[:3], line)


def test_in_its_features_noise_is_farther_from_digits_than_digits_are():
    data, held = load_data("digits").train, load_data("digits").validation
    judge = train_feature_classifier(data, held)
    model = judge.model
    right = model(held.images).argmax(1) == held.labels
    assert right.double().mean().item() == judge.accuracy > 0.9
    assert features(model, data.images[:5]).shape == (5, 64)
    other = sample_scores(model, data.images[:400], data.images[400:800])
    noise = sample_scores(model, data.images[:400], torch.rand(400, 1, 28, 28))
    assert other["frechet"] < 0.2 * noise["frechet"]
    assert other["precision"] > 0.5 > noise["recall"]
    bright = data.images[400:800] * (1 + 100 * (data.images[400:800] == 1))
    assert sample_scores(model, data.images[:400], bright) == other, "no ink beyond 1"


def test_samples_of_turned_images_are_held_against_turned_ones(monkeypatch, rnp, tmp_path):
    splits = load_data("digits")

    def sample(self, count):
        return SimpleNamespace(canvas=rotate_at_random(splits.train.images[:count]))

    monkeypatch.setattr(RNP, "sample", sample)
    found = {
        turned: sample_quality_metrics(rnp, splits, 180, 0, turned, tmp_path / "classifier")
        for turned in (True, False)
    }
    assert found[True]["frechet"] < 0.5 * found[False]["frechet"]


def test_it_learns_until_validation_stops_and_keeps_the_best():
    data = load_data("digits").train[:300]
    seen = []

    def accuracy(model, validation, classes):
        seen.append(model.last.weight.clone())
        return [0.5, 0.75, 0.25, 0.75][len(seen) - 1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference.evaluation.sample_quality, "_accuracy", accuracy)
        judge = train_feature_classifier(data, data, patience=2)
    assert (len(seen), judge.accuracy) == (4, 0.75)
    assert torch.equal(judge.model.last.weight, seen[1])


def test_a_classifier_is_kept_and_is_of_its_images_and_seed_alone(tmp_path, monkeypatch):
    splits, file = load_data("digits"), tmp_path / "kept.safetensors"
    few = Splits(splits.train[:200], splits.validation, splits.test[:40])
    rnp = RNP(RNPConfig.preset("fast")).eval()
    learned = []

    def train(data, validation, seed):
        learned.append(seed)
        return train_feature_classifier(data, validation, epochs=1, seed=seed)

    monkeypatch.setattr(inference.evaluation.sample_quality, "train_feature_classifier", train)
    first, again = (sample_quality_metrics(rnp, few, 10, 3, False, file) for _ in range(2))
    assert first["classifier_accuracy"] == again["classifier_accuracy"] > 0
    assert first["frechet_floor"] == again["frechet_floor"]
    assert learned == [3]
    judge = read_feature_classifier(file, few.train, 3)
    x = few.test.images
    assert torch.equal(
        judge.model(x), train_feature_classifier(few.train, few.validation, 1, seed=3).model(x)
    )
    for data, seed in ((few.train, 4), (splits.train, 3)):
        with pytest.raises(ValueError, match="name another --classifier"):
            read_feature_classifier(file, data, seed)
    with monkeypatch.context() as patch:  # of code that has another one
        patch.setattr(torch.nn.MaxPool2d, "extra_repr", lambda self: "other")
        with pytest.raises(ValueError, match="name another --classifier"):
            read_feature_classifier(file, few.train, 3)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="delete it to learn anew"):
        read_feature_classifier(file, few.train, 3)
    assert read_feature_classifier(tmp_path / "none", few.train, 3) is None
    with pytest.raises(FileNotFoundError, match="make it to keep"):
        read_feature_classifier(tmp_path / "no" / "folder", few.train, 3)


def test_classes_need_not_be_numbered_from_zero():
    data = load_data("digits").train[:64]
    odd = ImageSet(data.images, data.labels * 7 + 3)
    judge, same = (
        train_feature_classifier(odd, odd, epochs=1),
        train_feature_classifier(data, data, epochs=1),
    )
    assert judge.model.last.out_features == len(data.labels.unique())
    assert torch.equal(judge.model.last.weight, same.model.last.weight)
    assert judge.accuracy == same.accuracy
