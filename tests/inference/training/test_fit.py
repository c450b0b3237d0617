"""Training: what a run leaves, that it learns, resumes, skips what is not finite, and stops."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import inference.training.fit
from inference.cli import train_config
from inference.config import TrainConfig
from inference.data import ImageSet, Splits, load_data
from inference.run import Run
from inference.training import TrainingFailed, train
from inference.training.callbacks import Progress
from inference.training.module import MAX_SKIPS, Training
from inference.training.schedules import schedule
from inference.training.threads import Threads
from pyro_rnp import RNP, RNPConfig, load
from pyro_rnp.checkpoint import load_config
from tests.conftest import tiny

METRICS = {
    "test_sse", "test_sse_mean", "test_mse", "test_kl", "test_elbo", "test_elbo_error",
    "test_sse_error", "test_explained", "test_sse_blank", "test_sse_mean_image",
    "test_explained_mean_image", "test_canvas_variance_ratio",
    "images_seen", "seconds", "images_per_second", "skipped_steps", "parameters",
    "hardware",
}  # fmt: skip
CONFIG = tiny(image_size=28, patch_size=6)


def splits(n=64):
    """A few digits."""
    data = load_data("digits")
    return Splits(data.train[:n], data.validation[:8], data.test[:8])


@pytest.fixture
def few(monkeypatch):
    """Train on a few digits."""
    made = splits()
    monkeypatch.setattr(inference.training.fit, "load_data", lambda *_: made)
    return made


def config(folder, **changes):
    out = None if folder is None else str(folder)
    values = {"epochs": 1, "batch_size": 16, "out": out, "model": CONFIG}
    return TrainConfig(**{**values, **changes})


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


def overflowing(images):
    """Images whose squared error is infinite in float32."""
    return ImageSet(torch.full_like(images.images, 1e30), images.labels)


def test_a_step_that_is_not_finite_is_counted_reported_and_not_applied(
    monkeypatch, tmp_path, capsys
):
    data = splits(16)
    bad = overflowing(data.train[:4])
    together = ImageSet(
        torch.cat([data.train.images[:4], bad.images]), torch.zeros(8, dtype=torch.long)
    )
    mixed = Splits(together, data.validation, data.test)
    monkeypatch.setattr(inference.training.fit, "load_data", lambda *_: mixed)
    monkeypatch.setattr(RNP, "check", lambda _, images: images)
    folder = train(config(tmp_path / "run", batch_size=1, epochs=2))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["skipped_steps"] == 8
    said = capsys.readouterr().out.count("the loss or gradient is not finite")
    assert said == (folder / "log.txt").read_text().count("the loss or gradient is not finite") == 2
    assert all(t.isfinite().all() for t in load(folder).state_dict().values())


def test_training_that_cannot_recover_stops_with_the_last_good_weights(monkeypatch, tmp_path):
    data = splits(100)
    hopeless = Splits(overflowing(data.train), data.validation, data.test)
    monkeypatch.setattr(inference.training.fit, "load_data", lambda *_: hopeless)
    monkeypatch.setattr(RNP, "check", lambda _, images: images)
    with pytest.raises(TrainingFailed, match=f"last {MAX_SKIPS} steps had .* first of them step"):
        train(config(tmp_path / "run", batch_size=1, epochs=1, seed=3))
    torch.manual_seed(0)
    saved = load(tmp_path / "run").state_dict()
    import lightning

    lightning.seed_everything(3, workers=True, verbose=False)
    fresh = RNP(CONFIG).state_dict()
    assert all(torch.equal(saved[k], fresh[k]) for k in fresh)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_weights_that_an_update_broke_are_not_the_ones_kept(few, tmp_path):
    with pytest.raises(TrainingFailed, match="no finite loss and gradient"):
        train(config(tmp_path / "run", batch_size=2, learning_rate=1e25, warmup=0))
    kept = load(tmp_path / "run").state_dict()
    import lightning

    lightning.seed_everything(0, workers=True, verbose=False)
    fresh = RNP(CONFIG).state_dict()
    assert all(torch.equal(kept[k], fresh[k]) for k in fresh), "the weights before that update"


def test_weights_that_broke_shortly_before_the_end_are_not_the_ones_kept(few, tmp_path):
    with pytest.raises(TrainingFailed, match="last 3 steps had no finite loss"):
        train(config(tmp_path / "run", learning_rate=1e25, warmup=0))
    assert all(p.isfinite().all() for p in load(tmp_path / "run").parameters())
    assert not (tmp_path / "run" / "metrics.json").exists()


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


def test_fewer_threads_are_taken_said_and_given_back(few, tmp_path, monkeypatch, capsys):
    """By times that say that one thread is faster; the machine's own do not matter."""
    used = [4]
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(Training, "time_step", lambda self, batch: 1e-9 * used[-1])
    folder = train(config(tmp_path / "run", epochs=2))
    said = "After 3 steps training goes on with 1 thread instead of 4"
    assert said in capsys.readouterr().out
    assert said in (folder / "log.txt").read_text()
    assert json.loads((folder / "metrics.json").read_text())["hardware"].endswith(", 1 core")
    assert used[-1] == 4
    seen = used[:]
    monkeypatch.setattr(Training, "time_step", lambda self, batch: pytest.fail("measured again"))
    train(config(None, resume=str(folder), epochs=3))
    assert used[len(seen) :] == [1, 4], "it goes on with the one thread that it had"


def test_measuring_threads_changes_nothing_that_is_learned(few, tmp_path, monkeypatch):
    plain = load(train(config(tmp_path / "plain"))).state_dict()
    monkeypatch.setattr(
        Threads, "step", lambda self, seconds, trial: "" if trial() > 0 else "never"
    )
    measured = load(train(config(tmp_path / "measured"))).state_dict()
    assert all(torch.equal(plain[name], measured[name]) for name in plain)


def test_the_error_while_training_stands_beside_that_of_no_model(few, tmp_path, capsys):
    folder = train(config(tmp_path / "run"))
    images = few.validation.images
    mean = (images - few.train.images.mean(0)).square().flatten(1).sum(1).mean()
    blank = images.square().flatten(1).sum(1).mean()
    said = f"val_sse is {mean:.1f} by the mean training image and {blank:.1f} by a blank canvas"
    assert said in capsys.readouterr().out
    assert (folder / "log.txt").read_text().count(said) == 1


def test_minutes_end_training(few, tmp_path):
    folder = train(config(tmp_path / "run", epochs=None, minutes=0.03))
    assert 1.8 <= json.loads((folder / "metrics.json").read_text())["seconds"] < 30


@pytest.mark.parametrize("minutes", [1e-9, 1e-300])
def test_a_moment_of_training_is_one_step(few, tmp_path, minutes):
    folder = train(config(tmp_path / "run", epochs=None, minutes=minutes))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["images_seen"] == 16
    assert metrics["images_per_second"] > 0


def test_the_learning_rate_can_stay_constant(few, tmp_path, monkeypatch):
    assert [schedule(s, 2, s / 4, "constant") for s in range(5)] == [0.5, 1, 1, 1, 1]
    seen = []
    start = Training.on_train_batch_start

    def note(self, batch, batch_idx):
        start(self, batch, batch_idx)
        seen.append(self.optimizers().param_groups[0]["lr"])

    monkeypatch.setattr(Training, "on_train_batch_start", note)
    how = {"learning_rate": 4e-5, "warmup": 0, "schedule": "constant"}
    folder = train(config(tmp_path / "run", epochs=2, **how))
    train(train_config(["--resume", str(folder), "--epochs=3"]))
    assert seen == [4e-5] * 12
    assert load_config(folder)[1]["training"]["schedule"] == "constant"


def test_the_learning_rate_rises_and_falls():
    assert [schedule(s, 4, 0.0) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    falling = [schedule(100, 4, p / 10) for p in range(11)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0)
    assert schedule(100, 4, 1.5) == pytest.approx(0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epochs": 0}, "epochs must be positive, got 0"),
        ({"epochs": None, "minutes": -1.0}, "minutes must be positive"),
        ({"epochs": None, "minutes": float("nan")}, "minutes must be positive"),
        ({"minutes": 1.0}, "epochs and minutes exclude each other"),
        ({"resume": "there"}, "out and resume exclude each other"),
        ({"batch_size": 0}, "batch_size must be positive"),
        ({"warmup": -1}, "warmup must not be negative"),
    ],
)
def test_values_out_of_range(tmp_path, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        config(tmp_path, **changes)


def test_the_default_trains_the_fast_preset_for_four_minutes():
    default = TrainConfig()
    assert default.model == RNPConfig.preset("fast")
    assert default.duration.total_seconds() == 240


def test_devices_that_are_no_number_are_refused(few, tmp_path):
    with pytest.raises(ValueError, match="devices"):
        train(config(tmp_path / "run", accelerator="cpu", devices="abc"))


def test_another_batch_size_goes_on_at_the_same_image(few, tmp_path):
    folder = train(config(tmp_path / "run", epochs=2, batch_size=16))
    train(config(None, resume=str(folder), epochs=3, batch_size=8))
    assert json.loads((folder / "metrics.json").read_text())["images_seen"] == 3 * 64
    notes = json.loads((folder / "config.json").read_text())["training"]
    assert (notes["epochs"], notes["batch_size"]) == (3, 8)


def test_the_kl_s_weight_and_the_depth_grow_with_training(few, tmp_path, monkeypatch):
    seen = []
    step = Training.training_step

    def note(self, batch, batch_idx):
        seen.append((self.kl_weight, self.rnp.model.recursion.levels))
        return step(self, batch, batch_idx)

    monkeypatch.setattr(Training, "training_step", note)
    folder = train(
        config(
            tmp_path / "run",
            epochs=2,  # of 4 steps
            kl_weight=2.0,
            kl_warmup=0.5,
            depth_growth=0.75,
            model=replace(CONFIG, steps=(2, 1, 1)),
        )
    )
    weights, levels = zip(*seen, strict=True)
    assert weights[0] == pytest.approx(0, abs=1e-3)
    assert weights[1:] == pytest.approx((0.5, 1.0, 1.5, 2, 2, 2, 2))
    assert levels == (1, 1, 1, 2, 2, 2, 3, 3)
    assert load(folder).sample(1).level == 3


def test_all_processes_tell_what_validation_gives_in_one_order(monkeypatch):
    told = []
    process = SimpleNamespace(
        rnp=None,
        images_seen=3,
        timer=SimpleNamespace(time_elapsed=lambda: 1.0),
        log=lambda name, *_, **__: told.append(name),
    )
    for names in (("sse", "kl", "elbo", "sse_mean"), ("elbo", "sse_mean", "sse", "kl")):
        scores = dict.fromkeys(names, 1.0)
        monkeypatch.setattr(inference.training.module, "evaluate", lambda *_, found=scores: found)
        Training.validation_step(process, torch.zeros(2, 1, 8, 8), 0)
    assert len(told) == 12
    assert told[:6] == told[6:]


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


def test_some_classes_are_learned_from(tmp_path, monkeypatch):
    seen = []

    def note(callback, trainer, module):
        seen.append(module.splits.train.labels.unique().tolist())

    monkeypatch.setattr(Progress, "on_train_start", note)
    train(config(tmp_path / "run", classes=[1, 7], batch_size=200))
    assert seen == [[1, 7]]


def test_a_run_does_not_write_into_a_folder_that_another_made_meanwhile(few, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "create", lambda *_, **__: Run(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"of another")
    with pytest.raises(FileExistsError, match="exists already"):
        train(config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == b"of another"
