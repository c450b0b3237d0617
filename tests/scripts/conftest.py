"""A small run folder and image files for the scripts."""

import functools

import pytest
from PIL import Image

from inference.cli import train_config
from inference.data import load_data
from inference.evaluation import sample_quality
from inference.training import train
from tests.scripts.helpers import SMALL


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory):
    """A run of two steps on the embedded digits; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("scripts") / "run"
    return train(train_config(["--out", str(folder), "--epochs=1", "--batch_size=600", *SMALL]))


@pytest.fixture
def digits(tmp_path):
    """Two test digits as image files."""
    images = load_data("digits").test.images[:2, 0]
    files = [tmp_path / "a.png", tmp_path / "other" / "a.png"]
    files[1].parent.mkdir()
    for file, image in zip(files, images, strict=True):
        Image.fromarray((image * 255).round().byte().numpy()).save(file)
    return files


@pytest.fixture
def quick_classifier(monkeypatch):
    """The classifier of figure 5 learns for two epochs, where its accuracy does not matter."""
    quick = functools.partial(sample_quality.train_feature_classifier, epochs=2)
    monkeypatch.setattr(sample_quality, "train_feature_classifier", quick)
