"""Numbers of the paper's figures, where they are known."""

from dataclasses import replace

import pytest
import torch

import inference.evaluation.sample_quality
import inference.reproduction.figures
from inference.data import ImageSet, Splits
from inference.evaluation.latent_space import clusters, collect_programs
from inference.evaluation.sample_quality import Classifier, FeatureClassifier
from inference.reproduction.figures import FigureInputs, figure_3, figure_4, figure_5, figure_6


def some(count):
    return ImageSet(torch.rand(count, 1, 8, 8), torch.arange(count) % 3)


def test_how_evenly_paths_change_is_their_mean(monkeypatch, rnp, tmp_path):
    found = {2: iter([1.0, 5.0]), 1: iter([2.0, 3.0])}

    def interpolate(rnp, first, last, count, level):
        return torch.zeros(count, 1, 8, 8), next(found[level])

    monkeypatch.setattr(inference.reproduction.figures, "interpolate", interpolate)
    data = some(40)
    numbers = figure_4(FigureInputs(rnp, Splits(data, data, data), tmp_path, num=40, clusters=3))
    assert numbers["largest_over_mean_change_z2"] == 3
    assert numbers["largest_over_mean_change_z1"] == 2.5


def test_pictures_of_the_plane_are_numbered_as_the_rows_of_their_clusters(
    monkeypatch, rnp, tmp_path
):
    drawn = {}

    def space_figure(plane, colours, names, shown, path):
        drawn.update(shown=shown, names=names, colours=colours)

    monkeypatch.setattr(inference.reproduction.figures, "space_figure", space_figure)
    data = some(40)
    figure_4(FigureInputs(rnp, Splits(data, data, data), tmp_path, num=40, clusters=2))
    programs = collect_programs(rnp, data)
    wanted = [g.nearest for k in (2, 1) for g in clusters(programs, 2, k)]
    assert [number for number, _, _ in drawn["shown"]] == wanted
    assert [name for _, name, _ in drawn["shown"]] == ["1", "2", "1", "2"]
    assert [drawn["names"][drawn["colours"][i]] for i in wanted] == ["z^2", "z^2", "z^1", "z^1"]
    for number, _, image in drawn["shown"]:
        assert torch.equal(image, programs.canvases[number])


def test_each_figure_says_how_many_images_its_numbers_are_of(monkeypatch, rnp, tmp_path):
    seen = {}

    def numbers(*args, **_):
        seen["3"] = len(args[1])
        return {}

    def sample_scores(_, data, drawn):
        seen["5"] = len(data), len(drawn)
        return {}

    monkeypatch.setattr(inference.reproduction.figures, "reconstruction_metrics", numbers)
    monkeypatch.setattr(inference.evaluation.sample_quality, "sample_scores", sample_scores)
    judge = FeatureClassifier(Classifier(1, 3), 0.5)
    monkeypatch.setattr(
        inference.evaluation.sample_quality, "train_feature_classifier", lambda *_, **__: judge
    )
    for name in ("parse_figure", "space_figure", "grid_figure"):
        monkeypatch.setattr(inference.reproduction.figures, name, lambda *_, **__: None)
    splits, other = Splits(some(200), some(24), some(50)), some(60)
    asked = FigureInputs(rnp, splits, tmp_path, clusters=1, across={"x": other})
    for num, fourth, learned, fifth in ((16, 16, 80, 16), (2000, 50, 200, 25)):
        now = replace(asked, num=num)
        assert figure_3(now)["images"] == seen["3"] == 50, "all"
        of = figure_4(now)
        assert (of["images"], of["images_learned_from"]) == (fourth, learned)
        assert figure_5(now)["images"] == fifth
        assert seen["5"] == (fifth, fifth)
    assert figure_6(asked)["x_images"] == 60


def test_what_takes_no_model_is_beside_each_other_data_set(rnp, tmp_path):
    data, train = some(12), some(7)
    train = ImageSet(train.images / 2, train.labels)
    numbers = figure_6(FigureInputs(rnp, Splits(train, data, data), tmp_path, across={"x": data}))
    mean = (data.images - train.images.mean(0)).square().sum().item() / 12
    assert numbers["x_mean_image"] == pytest.approx(mean, rel=1e-5)
    ink = sum(float(image.pow(2).sum()) for image in data.images)
    assert numbers["x_blank"] == pytest.approx(ink / 12, rel=1e-5)
