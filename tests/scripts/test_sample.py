"""Samples of the prior."""

import numpy as np
from PIL import Image

from tests.scripts.helpers import call


def test_sample(monkeypatch, run_folder, tmp_path):
    for name, seed in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        call(
            monkeypatch,
            "sample.py",
            run_folder,
            "--num=3",
            f"--seed={seed}",
            "--out",
            tmp_path / name,
        )
    a, b, c = (np.asarray(Image.open(tmp_path / n)) for n in ("a.png", "b.png", "c.png"))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
