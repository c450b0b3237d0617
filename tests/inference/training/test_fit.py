"""Training: what a run leaves, that it learns, goes on, and what it refuses."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from inference.cli import train_config
from inference.run import Run
from inference.training import train
from pyro_rnp import load
from pyro_rnp.checkpoint import load_config
from tests.conftest import tiny
from tests.inference.training.conftest import CONFIG, config

METRICS = {
    "test_sse", "test_sse_mean", "test_mse", "test_kl", "test_elbo", "test_elbo_error",
    "test_sse_error", "test_explained", "test_sse_blank", "test_sse_mean_image",
    "test_explained_mean_image", "test_canvas_variance_ratio", "test_action_spread",
    "images_seen", "seconds", "images_per_second", "skipped_steps", "parameters",
    "hardware",
}  # fmt: skip


@pytest.mark.parametrize("elbo", ["Trace_ELBO", "TraceMeanField_ELBO"])
def test_a_run_leaves_what_the_readme_says(few, tmp_path, elbo):
    folder = train(config(tmp_path / "run", elbo=elbo, epochs=2))
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "previous.safetensors", "metrics.json", "parse.png",
        "last.ckpt", "previous.ckpt", "last.ckpt.sha256", "previous.ckpt.sha256",
        "curves", "log.txt",
    }  # fmt: skip
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() == METRICS
    assert metrics["images_seen"] == 128
    assert metrics["skipped_steps"] == 0
    rnp = load(folder)
    assert metrics["parameters"] == sum(p.numel() for p in rnp.parameters())
    assert rnp.config == CONFIG
    notes = json.loads((folder / "config.json").read_text())
    assert notes["training"]["elbo"] == elbo
    with (folder / "curves" / "metrics.csv").open() as file:
        curve = [row for row in csv.DictReader(file) if row["val_sse"]]
    assert [float(row["images_seen"]) for row in curve] == [64, 128]
    assert any(p.name.startswith("events") for p in (folder / "curves").iterdir())
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8


def test_it_learns_and_the_same_seed_learns_the_same(few, tmp_path):
    runs = [
        train(config(tmp_path / str(i), epochs=10, seed=5, learning_rate=1e-2, warmup=5))
        for i in (0, 1)
    ]
    first, second = (load(run).state_dict() for run in runs)
    assert all(torch.equal(first[k], second[k]) for k in first)
    with (runs[0] / "curves" / "metrics.csv").open() as file:
        sse = [float(row["val_sse"]) for row in csv.DictReader(file) if row["val_sse"]]
    assert sse[-1] < sse[0] - 10


def test_a_run_goes_on_where_it_stopped(few, tmp_path):
    folder = train(config(tmp_path / "run"))
    before = load(folder).state_dict()
    train(config(None, resume=str(folder), epochs=3))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images_seen"] == 3 * 64
    curves = [
        [row["epoch"] for row in csv.DictReader(file.read_text().splitlines()) if row["val_sse"]]
        for file in (folder / "curves" / "metrics.csv", folder / "curves-2" / "metrics.csv")
    ]
    assert curves == [["0"], ["1", "2"]], "the first curve is kept"
    moments = torch.load(folder / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert moments[0]["step"] == 12, "the optimiser went on, and did not start again"
    assert any(not torch.equal(before[k], v) for k, v in load(folder).state_dict().items())


def test_a_run_of_another_architecture_is_not_resumed(few, tmp_path):
    folder = train(config(tmp_path / "run"))
    before = files(folder)
    with pytest.raises(ValueError, match="was trained with patch_size 6, not 5: .* --patch_size"):
        train(config(None, resume=str(folder), model=tiny(image_size=28)))
    assert files(folder) == before


def files(folder):
    """What a folder holds."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_that_has_ended_says_so_and_stays_as_it_is(few, tmp_path):
    folder = train(config(tmp_path / "run"))
    before, seconds = files(folder), json.loads((folder / "metrics.json").read_text())["seconds"]
    again = {"resume": str(folder)}
    for more in ({}, {"epochs": None, "minutes": 0.99 * seconds / 60}, {"batch_size": 8}):
        with pytest.raises(
            ValueError,
            match=r"has gone through 1 epochs already in .* minutes, and has ended; give more --ep",
        ):
            train(config(None, **again, **more))
        assert files(folder) == before
    train(config(None, **again, epochs=None, minutes=(seconds + 0.5) / 60))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images_seen"] > 64
    assert metrics["seconds"] >= seconds + 0.5
    with pytest.raises(ValueError, match="and has ended"):
        train(train_config(["--resume", str(folder)]))
    (folder / "metrics.json").unlink()  # as if it had been killed before it wrote them
    train(train_config(["--resume", str(folder)]))
    assert (folder / "metrics.json").exists()


def test_nothing_to_resume(few, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
        train(config(None, resume=str(tmp_path / "nowhere")))
    folder = train(config(tmp_path / "run"))
    (folder / "last.ckpt").unlink()
    (folder / "previous.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no last\.ckpt"):
        train(config(None, resume=str(folder)))


def test_a_damaged_checkpoint_is_named(few, tmp_path):
    folder = train(config(tmp_path / "run"))
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged.* no older checkpoint works"):
        train(config(None, resume=str(folder), epochs=2))


def test_a_folder_that_exists_is_not_touched(few, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine").write_text("x")
    with pytest.raises(FileExistsError, match="exists already; name another with --out"):
        train(config(tmp_path / "run"))
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine"]


def test_data_that_do_not_fit_the_model_leave_no_folder(few, tmp_path):
    with pytest.raises(ValueError, match=r"must have shape \(N, 1, 8, 8\)"):
        train(config(tmp_path / "run", model=tiny()))
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_leaves_no_folder(few, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match=r"(?i)accelerator|cuda|gpu"):
        train(config(tmp_path / "run", accelerator="gpu"))
    assert not (tmp_path / "run").exists()


def test_fewer_epochs_than_are_done_are_refused(few, tmp_path):
    folder = train(config(tmp_path / "run", epochs=2))
    for _ in range(2):
        before = files(folder)
        with pytest.raises(ValueError, match="has gone through 2 epochs already"):
            train(config(None, resume=str(folder), epochs=1))
        assert files(folder) == before
        (folder / "metrics.json").unlink(missing_ok=True)  # the same if it has not ended


def test_minutes_end_training(few, tmp_path):
    folder = train(config(tmp_path / "run", epochs=None, minutes=0.03))
    assert 1.8 <= json.loads((folder / "metrics.json").read_text())["seconds"] < 30


@pytest.mark.parametrize("minutes", [1e-9, 1e-300])
def test_a_moment_of_training_is_one_step(few, tmp_path, minutes):
    folder = train(config(tmp_path / "run", epochs=None, minutes=minutes))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images_seen"] == 16
    assert metrics["images_per_second"] > 0


def test_devices_that_are_no_number_are_refused(few, tmp_path):
    with pytest.raises(ValueError, match="devices"):
        train(config(tmp_path / "run", accelerator="cpu", devices="abc"))


def test_another_batch_size_goes_on_at_the_same_image(few, tmp_path):
    folder = train(config(tmp_path / "run", epochs=2, batch_size=16))
    train(config(None, resume=str(folder), epochs=3, batch_size=8))
    assert json.loads((folder / "metrics.json").read_text())["images_seen"] == 3 * 64
    notes = json.loads((folder / "config.json").read_text())["training"]
    assert (notes["epochs"], notes["batch_size"]) == (3, 8)


@pytest.mark.parametrize("elbo", ["FreeBits_ELBO:nats=2", "RenyiELBO:num_particles=3"])
def test_other_objectives_train(few, tmp_path, elbo):
    folder = train(config(tmp_path / "run", elbo=elbo))
    assert json.loads((folder / "metrics.json").read_text())["skipped_steps"] == 0


def test_a_guide_that_is_a_point_trains_and_has_no_bound(few, tmp_path):
    folder = train(config(tmp_path / "run", model=replace(CONFIG, guide="map")))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == METRICS - {"test_kl", "test_elbo", "test_elbo_error"}


def test_images_that_the_likelihood_cannot_give_are_refused_before_anything_is_made(few, tmp_path):
    with pytest.raises(ValueError, match="--binarize true makes them so"):
        train(config(tmp_path / "run", model=replace(CONFIG, likelihood="bernoulli")))
    assert not (tmp_path / "run").exists()


def test_a_guide_learns_alone_from_where_a_run_ended(few, tmp_path):
    first = train(config(tmp_path / "first"))
    second = train(config(tmp_path / "second", start=str(first), learn="guide"))
    before, after = load(first), load(second)
    for name, value in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], value), name
    moved = [
        not torch.equal(value, after.guide.state_dict()[name])
        for name, value in before.guide.state_dict().items()
    ]
    assert all(moved)
    error = [json.loads((f / "metrics.json").read_text())["test_sse"] for f in (first, second)]
    assert abs(error[0] - error[1]) < 0.5 * error[0], "it went on and did not begin again"
    again = train_config(["--resume", str(second), "--epochs=2"])
    for folder in (second, train(again)):
        assert load_config(folder)[1]["started"] == Run(first).fingerprint


def test_a_run_does_not_write_into_a_folder_that_another_made_meanwhile(few, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "create", lambda *_, **__: Run(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"of another")
    with pytest.raises(FileExistsError, match="exists already"):
        train(config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"of another"
