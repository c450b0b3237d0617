"""The page of the reproduction says what the files say, and no more."""

import json
from dataclasses import asdict

import pytest
from PIL import Image

from inference.report import report
from inference.settings import TrainConfig
from pyro_rnp import RNP, save
from tests.conftest import tiny


def made(folder, sse, points=(), **changes):
    """A run folder of a model that was never trained."""
    config = TrainConfig(model=tiny(), **changes)
    notes = asdict(config)
    del notes["model"]
    save(RNP(config.model), folder, {"training": notes})
    metrics = {"test_sse": sse, "seconds": 120.0, "skipped_steps": 0, "hardware": "an abacus"}
    metrics |= {"parameters": 1234}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "curves").mkdir()
    lines = [f"{e},{100 * (e + 1)},{sse}" for e, sse in enumerate(points)]
    text = "\n".join(["epoch,images_seen,val_sse", *lines])
    (folder / "curves" / "metrics.csv").write_text(text + "\n")


@pytest.fixture
def runs(tmp_path):
    out = tmp_path / "runs"
    made(out / "mnist", 6.54321, [30.0, 20.04], data="mnist", epochs=2)
    made(out / "omniglot", 13.5, [45.0, 40.0], data="omniglot", minutes=1.0)
    made(out / "mnist-binary", 7.5, [9.0], data="mnist", epochs=1, binarize=True)
    (out / "unfinished").mkdir()
    figures = out / "mnist-figures"
    figures.mkdir()
    Image.new("RGB", (30, 20), (200, 30, 40)).save(figures / "figure-3.png")
    numbers = {"3": {"sse_level_2": 6.543, "explained_by_step": [0.5, 0.25]}, "5": {"recall": 0.75}}
    (figures / "figures.json").write_text(json.dumps(numbers))
    (out / "transfer-x").mkdir()
    rows = [{"model": "without", "unseen": 17.25}, {"model": "all", "unseen": 9.5, "fashion": 60.0}]
    (out / "transfer-x" / "transfer.json").write_text(json.dumps({"flags": "--x=1", "rows": rows}))
    bound = {"test_elbo": -101.26, "test_elbo_error": 0.5, "particles": 70, "num": 80}
    bound |= {"test_iw_bound": -95.04, "test_iw_bound_error": 0.4}
    (out / "mnist-binary" / "bound.json").write_text(json.dumps(bound))
    return out


def test_the_page_has_what_the_files_say(runs, tmp_path):
    page = tmp_path / "PAGE.md"
    report(runs, page, tmp_path / "docs", "It *differs*.\n")
    text = page.read_text()
    assert "| mnist | 2 | 6.54 |" in text
    assert "| 1,234 | 2 | an abacus | 0 |" in text
    assert "- mnist: `scripts/train.py --data=mnist --epochs=2" in text
    assert "| mnist, validation | 30.0 | 20.0 |  |" in text
    assert "|  | 6.54 |\n" in text, "the test images' at the end of the curve"
    assert "omniglot, validation" not in text
    assert "| authors | 29 | 15.9 |\n| omniglot | 2 | 13.50 |" in text
    assert "![MNIST](docs/mnist-figure-3.png)" in text
    with Image.open(tmp_path / "docs" / "mnist-figure-3.png") as picture:
        assert picture.size == (30, 20)
        assert picture.convert("RGB").getpixel((5, 5)) == (200, 30, 40)
    assert "Figure 4a" not in text, "nothing of it is there"
    assert "| mnist |  |  | 6.54 | 0.5, 0.25 |  |" in text
    assert "| mnist |  |  |  | 0.75 |" in text
    assert "| without | 17.2 |  |" in text
    assert "| all | 9.5 | 60 |" in text
    assert "`scripts/transfer.py --x=1 --data-root DIR`" in text
    assert "| mnist-binary | 70 | 80 | 101.3 ± 0.5 | 95.0 ± 0.4 |" in text
    assert "| IWAE, k = 50 (published) |  |  |  | 87.1 |" in text
    assert "unfinished" not in text
    assert "silhouette" not in text
    assert "DRAW" not in text
    assert text.endswith("It *differs*.\n")


def test_of_nothing_there_is_a_page_too(tmp_path):
    (tmp_path / "runs").mkdir()
    report(tmp_path / "runs", tmp_path / "PAGE.md", tmp_path / "docs", "")
    text = (tmp_path / "PAGE.md").read_text()
    assert "| authors, test | 47.9 |" in text
    assert "Figure" not in text
    assert "Likelihood" not in text
