"""One-shot classification and new exemplars."""

import json
import zipfile

import numpy as np
import torch
from PIL import Image

from pyro_rnp import load
from tests.scripts.helpers import SMALL, call, refused


def test_oneshot(monkeypatch, capsys, run_folder, tmp_path):
    assert "--prior types" in refused(monkeypatch, capsys, "oneshot.py", run_folder)
    folder = tmp_path / "types"
    classes = ("--prior=types", "--images_per_class=2", "--elbo=Trace_ELBO")
    call(monkeypatch, "train.py", *classes, "--epochs=1", "--batch_size=600", *SMALL,
         "--out", folder)  # fmt: skip
    start = torch.zeros(4)
    share = load(folder).model.prior.logit
    assert not torch.equal(share, start), "what classes share is learned"
    capsys.readouterr()
    image = Image.fromarray(np.full((105, 105), 255, np.uint8)).convert("1")
    with zipfile.ZipFile(tmp_path / "all_runs.zip", "w") as archive:
        labels = "run01/test/item01.png run01/training/class01.png\n"
        archive.writestr("run01/class_labels.txt", labels)
        for name in labels.split():
            with archive.open(name, "w") as file:
                image.save(file, "png")
    call(monkeypatch, "oneshot.py", folder, "--runs", tmp_path / "all_runs.zip")
    found = json.loads(capsys.readouterr().out)
    assert (found["accuracy"], found["split"], found["num"]) == (1, "test", 1)
    assert found["data"] == str(tmp_path / "all_runs.zip")
    picture = tmp_path / "more.png"
    call(monkeypatch, "oneshot.py", folder, "--data=digits", "--num=2", "--out", picture)
    with Image.open(picture) as opened:
        assert opened.size[0] > 2 * opened.size[1], "two rows of ten"
    picture = tmp_path / "varied.png"
    flags = ("--data=digits", "--num=2", "--variation=digits", "--out", picture)
    call(monkeypatch, "oneshot.py", run_folder, *flags)
    with Image.open(picture) as opened:
        assert opened.size[0] > 2 * opened.size[1], "two rows of ten"
    unlabelled = tmp_path / "unlabelled.npy"
    np.save(unlabelled, np.random.default_rng(0).random((30, 8, 8)))
    assert "labelled classes" in refused(
        monkeypatch, capsys, "oneshot.py", run_folder, "--data=digits", "--variation", unlabelled,
        "--out", tmp_path / "none.png",
    )  # fmt: skip
    assert not (tmp_path / "none.png").exists()
    assert "give --runs" in refused(monkeypatch, capsys, "oneshot.py", folder)
    assert "does not exist" in refused(
        monkeypatch, capsys, "oneshot.py", folder, "--runs", tmp_path / "no.zip"
    )
