"""What is compared does the same thing, and its cost is counted rightly."""

import math
from dataclasses import replace

import pyro
import pytest
import torch

from inference.evaluation import benchmark
from inference.evaluation.benchmark import (
    Subject,
    build,
    compare,
    flop,
    peak_memory,
    product,
    ready,
    subjects,
    sweeps,
)
from pyro_rnp import RNP, RNPConfig
from tests.conftest import tiny


def test_the_rows_name_what_was_timed():
    whats = subjects(["mnist"])
    rows = compare(whats, [2], repeats=1, memory=False)
    names = [
        *("literal port", "mnist", "fast, random levels"),
        *("flat VAE of mnist", "flat VAE of fast", "encoder alone"),
    ]
    loops = ["SVI, flat VAE of fast", "Pyro's examples/vae", "Pyro's examples/air"]
    assert [(r["what"], r["task"]) for r in rows] == [
        (name, task)
        for task in ("train", "parse", "sample")
        for name in (names + loops if task == "train" else names)
        if (name, task) != ("encoder alone", "sample")
    ]
    for row in rows:
        assert row["step_ms"] == pytest.approx(2000 / row["images_per_second"])
        assert (row["to_flat"] is None) == ("examples" in row["what"])
        assert "flat VAE of" not in row["what"] or "SVI" in row["what"] or row["to_flat"] == 1
        speed, work = row["images_per_second"], row["gflop_per_image"]
        assert row["roofline"] == pytest.approx(speed * work / row["product"])
        assert row["what"] != "literal port" or row["ratio"] == 1


def test_times_are_compared_with_those_of_the_flat_vae_of_the_same_configuration(monkeypatch):
    fast, mnist = (RNPConfig.preset(name) for name in ("fast", "mnist"))
    whats = [
        Subject("literal", mnist, "literal"),
        Subject("fast", fast),
        Subject("random", replace(fast, stochastic="both")),
        Subject("compiled", replace(fast, stochastic="both"), compile=True),
        Subject("flat", replace(fast, program="flat")),
    ]
    seconds = [[8.0, 8.0, 8.0], [2.0, 2.0, 4.0], [3.0, 3.0, 3.0], [2.0] * 3, [1.0, 1.0, 4.0], [1.0]]
    monkeypatch.setattr(benchmark, "interleaved", lambda *_: seconds)
    monkeypatch.setattr(benchmark, "ready", lambda *_: None)
    monkeypatch.setattr(benchmark, "flop", lambda _: 10)
    rows = compare(whats, [4], memory=False, tasks=["train"])
    assert [row["ratio"] for row in rows] == [1, 4, pytest.approx(8 / 3), 4, 8]
    assert [row["to_flat"] for row in rows] == [None, 2, 3, 2, 1]
    assert [row["to_deterministic"] for row in rows] == [None, None, 1.5, None, None]
    assert [row["step_ms"] for row in rows] == [8000, 2000, 3000, 2000, 1000]


def test_every_subject_has_a_name_and_learns():
    whats = subjects(["fast", "fast"])
    assert len({s.name for s in whats}) == len(whats)
    for subject in (s for s in whats if not s.compile):
        model = build(subject)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        step = ready(subject, "train", 2, model)
        losses = [float(step()) for _ in range(3)]  # some layers begin at 0
        assert all(map(math.isfinite, losses)), subject.name
        changed = [name for name, p in model.named_parameters() if not p.equal(before[name])]
        part = [name for name in before if subject.kind != "encoder" or name.startswith("guide")]
        assert changed == part, subject.name
    assert not pyro.get_param_store()


def test_what_a_subject_lacks_is_refused():
    with pytest.raises(ValueError, match="no task parse"):
        ready(Subject("loop", tiny(), "svi"), "parse", 2)


def test_a_subject_can_be_compiled(monkeypatch):
    called = []
    monkeypatch.setattr(RNP, "compile", lambda rnp: called.append(rnp))
    assert [s.name for s in subjects(["mnist"], ["fast"]) if s.compile] == ["fast, compiled"]
    assert not [s for s in subjects(["mnist"]) if s.compile]
    assert build(Subject("", tiny(), compile=True)) is called[0]
    build(Subject("", tiny()))
    assert len(called) == 1


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
