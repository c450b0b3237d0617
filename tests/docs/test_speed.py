"""The table of speed is made of what the benchmark writes."""

import json
import runpy

import pytest

from inference.evaluation.benchmark import subjects
from tests.docs.test_guides import DOCS


@pytest.fixture(scope="module")
def conf():
    return runpy.run_path(str(DOCS / "conf.py"))


def table(conf, rows):
    text = conf["_speed"]({(r["what"], r["task"], r["batch_size"]): r for r in rows})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [dict(zip(cells[0], line, strict=True)) for line in cells[2:]]


def test_what_was_not_measured_is_empty(conf):
    same = {"batch_size": 64, "gflop_per_image": 0.05, "roofline": 0.2, "peak_gib": 0.8}
    rows = [
        {"what": "fast", "task": "train", "images_per_second": 1230.0, "ratio": 7.0, **same,
         "to_flat": 2.71, "before": 6.5},
        {"what": "fast", "task": "parse", "images_per_second": 5000.0, "ratio": 3.0, **same},
        {"what": "vae", "task": "train", "images_per_second": 9999.0, "ratio": 70.0, **same,
         "to_flat": None, "before": None, "peak_gib": None},
    ]  # fmt: skip
    fast, vae = table(conf, rows)
    assert [fast[k] for k in ("", "training, images/s", "ratio")] == ["fast", "1,230", "7.00"]
    assert [fast[k] for k in ("before", "time over a flat VAE's")] == ["6.50", "2.71"]
    assert (fast["parse, images/s"], fast["sample, images/s"]) == ("5,000", "")
    assert (vae["before"], vae["time over a flat VAE's"], vae["peak GiB"]) == ("", "", "")
    assert "before" not in table(conf, rows[1:])[0]


def test_the_rows_of_the_page_are_subjects_of_the_benchmark(conf):
    rows = json.loads((DOCS / "benchmarks" / "speed.json").read_text())["rows"]
    names = {s.name for s in subjects(["mnist", "omniglot", "fast"]) if not s.compile}
    assert {row[""] for row in table(conf, rows)} <= names
    page = (DOCS / "benchmarks.md").read_text().split("(speed)=")[1]
    for name in names:
        told = "flat VAE of a preset" if name.startswith("flat VAE of") else name
        assert f"| {told} |" in page or f"`{told}`" in page, name
