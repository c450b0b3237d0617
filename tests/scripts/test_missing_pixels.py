"""From a file of images with missing pixels to a model, its scores, parses and queries."""

import json

import numpy as np
import pytest

from inference.run import Run
from tests.scripts.helpers import SMALL, call

FEW = ["--epochs=2", "--batch_size=16", *SMALL]
QUICK = ("--num_samples=4", "--steps=2")


def images():
    """Squares on a blank ground, of which a third of the pixels is missing."""
    random = np.random.default_rng(0)
    images = np.zeros((60, 20, 20), np.float32)
    for image in images:
        y, x = random.integers(1, 12, 2)
        image[y : y + 7, x : x + 7] = random.uniform(0.4, 1)
    images[random.random(images.shape) < 1 / 3] = np.nan
    return images


def plain(text):
    """JSON without NaN or Infinity, which Python alone reads."""

    def refuse(constant):
        raise AssertionError(f"{constant} in {text}")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_commands_take_missing_pixels(monkeypatch, tmp_path, capsys, kind):
    data, file = images(), tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(file, data)
    else:
        np.savez(file, images=(255 * np.nan_to_num(data)).astype("uint8"), masks=~np.isnan(data))
    run = tmp_path / "run"
    call(monkeypatch, "train.py", "--data", file, "--out", run, *FEW)
    assert "% of the training images' pixels are missing, in " in capsys.readouterr().out
    metrics = plain((run / "metrics.json").read_text())
    assert metrics["test_mse"] < 1
    assert all(np.isfinite(row["val_sse"]) for row in Run(run).curve)

    table = tmp_path / "each.csv"
    call(monkeypatch, "evaluate.py", run, "--particles=5", "--hide=left", "--methods=[guide]",
         f"--per_image={table}")  # fmt: skip
    found = plain(capsys.readouterr().out)
    assert found["test_sse"] == pytest.approx(metrics["test_sse"])
    assert "nan" not in table.read_text()
    call(
        monkeypatch, "query.py", run, "--data", file, "--num=3", "--out", tmp_path / "query", *QUICK
    )
    assert any((tmp_path / "query").glob("*.png"))
    for text in (tmp_path / "query").glob("*.json"):
        plain(text.read_text())
