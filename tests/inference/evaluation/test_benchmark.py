"""What is compared does the same thing, and its cost is counted rightly."""

import pytest
import torch

from inference.evaluation.benchmark import (
    Subject,
    compare,
    flop,
    peak_memory,
    product,
    ready,
    subjects,
    sweeps,
)
from pyro_rnp import RNPConfig
from tests.conftest import tiny


def test_the_rows_name_what_was_timed():
    rows = compare(subjects(["mnist"]), [2], repeats=1, memory=False)
    names = ["literal port", "mnist", "flat VAE", "encoder alone"]
    assert [(r["what"], r["task"]) for r in rows] == [
        (name, task)
        for task in ("train", "parse", "sample")
        for name in names
        if (name, task) != ("encoder alone", "sample")
    ]
    for row in rows:
        speed, work = row["images_per_second"], row["gflop_per_image"]
        assert row["roofline"] == pytest.approx(speed * work / row["product"])
        assert row["what"] != "literal port" or row["ratio"] == 1


def test_memory_is_that_of_the_work_and_not_of_the_caller():
    held = torch.ones(2**28)  # 1 GiB here
    small, large, *_ = (
        peak_memory(Subject("", RNPConfig.preset(name)), batch)
        for name, batch in (("fast", 2), ("mnist", 64))
    )
    assert small[0] <= small[1] < 1
    assert large[1] > small[1] + 0.3
    assert held.sum() == 2**28


def test_weights_that_are_written_again_take_less_memory():
    kept, again = (
        peak_memory(Subject("", RNPConfig.preset("mnist"), recompute_levels=n), 64)[1]
        for n in (0, 1)
    )
    assert again < kept - 0.05


def test_the_operations_of_a_program_are_those_of_the_papers_layers():
    config = tiny(steps=(3,), encoder_blocks=1, encoder_layers=1)
    c, n = config, 7
    r, u, z, pixels = c.hypernet_units, c.network_units, c.program_size, c.patch_size**2
    weights = 2 * pixels * u + 6 * u + 2 * u * u + 2 * (u + z) * z + 2 * (z * u + u * u) + u * 6
    trunk = z * r + r * r
    vectors = r * (6 * u + 2 * z + 6 + pixels + 2 * z + pixels + 6 + u)
    written = (1 + r) * weights
    applied = 3 * weights
    placed = 3 * 6 * 2 * c.image_size**2
    assert c.hypernet_layers == 2
    got = flop(ready(Subject("", config), "sample", n)) / n / 2
    assert got == trunk + vectors + written + applied + placed


def test_a_matrix_product_is_counted():
    assert flop(product()) == 2 * 1024**3


def test_nodes_are_counted_through_all_levels():
    assert Subject("", tiny(steps=(2, 3, 2))).nodes == 2 + 6 + 12
    assert {len(points) for points in sweeps("fast").values()} <= {4, 5}


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="no preset 'minst'"):
        subjects(["minst"])
