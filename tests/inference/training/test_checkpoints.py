"""Runs that are stopped, killed or damaged lose nothing, bit for bit."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

import inference.training.fit
from inference.config import TrainConfig
from inference.data import Splits, load_data
from inference.run import Run
from inference.system import Interrupted
from inference.training.checkpoints import Checkpoints, Damaged, newest, read
from inference.training.fit import Training, train
from inference.training.schedules import Skips
from pyro_rnp import load
from pyro_rnp.checkpoint import load_config
from tests.conftest import tiny

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STEPS = 8
"""Two epochs of four batches."""


def run(folder, trail, stop_at=None, **changes):
    """Train, or go on with, a tiny run; each step's loss is a line of the file `trail`."""
    data = load_data("digits")
    made = Splits(data.train[:64], data.validation[:8], data.test[:8])
    count = Skips.count

    def noted(skips, bad, step):
        count(skips, bad, step)
        if step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    end = Training.on_train_batch_end

    def ended(module, *args):
        with open(trail, "a") as file:
            file.write(f"{module.batches_seen} {module.loss.item().hex()}\n")
        end(module, *args)

    model = tiny(image_size=28, patch_size=6)
    where = {"resume": str(folder)} if Path(folder, "last.ckpt").exists() else {"out": str(folder)}
    values = {"epochs": 2, "batch_size": 16, "warmup": 3, "learning_rate": 1e-2, "model": model}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference.training.fit, "load_data", lambda *_: made)
        patch.setattr(Skips, "count", noted)
        patch.setattr(Training, "on_train_batch_end", ended)
        train(TrainConfig(**{**values, **where, **changes}))


def losses(trail):
    """Each step's loss; a step that was run twice had the same loss both times."""
    found = {}
    for line in trail.read_text().splitlines():
        step, loss = line.split()
        assert found.setdefault(int(step), loss) == loss, f"step {step}"
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing stopped: its losses and its weights."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "run", folder / "trail")
    return losses(folder / "trail"), load(folder / "run").state_dict()


def same(whole, folder, trail):
    expected, weights = whole
    assert losses(trail) == expected
    assert sorted(expected) == list(range(STEPS))
    found = load(folder).state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_run_that_is_asked_to_stop_goes_on_as_if_it_had_not(whole, capsys, tmp_path, step):
    with pytest.raises(Interrupted, match="go on with --resume"):
        run(tmp_path / "run", tmp_path / "trail", stop_at=step)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"Stopped by SIGTERM after step {step}." in log
    capsys.readouterr()
    run(tmp_path / "run", tmp_path / "trail")
    bar = capsys.readouterr().out
    assert step % 4 == 0 or f"{step % 4}/4 [00:00<?" in bar
    same(whole, tmp_path / "run", tmp_path / "trail")


def _child(folder, trail):
    os.setsid()  # a signal to this process is its alone
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
    torch.set_num_threads(1)
    try:
        run(folder, trail, checkpoint_minutes=1e-4)
    except (Interrupted, KeyboardInterrupt):  # the second once training is over
        os._exit(3)
    os._exit(0)


def test_a_run_that_is_killed_at_random_goes_on_as_if_it_had_not(tmp_path):
    """Real processes, at least twenty of them ended at random moments by three signals."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.inference.training.test_checkpoints"])
    moments = random.Random(0)

    def start(folder, trail):
        if folder.exists() and not (folder / "last.ckpt").exists():
            shutil.rmtree(folder)  # killed before the first step
        process = context.Process(target=_child, args=(folder, trail))
        process.start()
        return process

    first = start(tmp_path / "whole", tmp_path / "whole-trail")
    first.join(120)
    assert first.exitcode == 0
    expected = losses(tmp_path / "whole-trail"), load(tmp_path / "whole").state_dict()

    killed = finished = 0
    while killed < 20 or not finished:
        folder, trail = tmp_path / f"run-{finished}", tmp_path / f"trail-{finished}"
        process = start(folder, trail)
        if killed < 20:
            until = len(trail.read_text().splitlines()) if trail.exists() else 0
            until += moments.randint(0, 2)  # this many more steps, and a moment
            began = time.monotonic()
            while (
                (len(trail.read_text().splitlines()) if trail.exists() else 0) <= until
                and process.is_alive()
                and time.monotonic() - began < 60
            ):
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.05))
            with suppress(ProcessLookupError):  # it has finished
                os.kill(process.pid, moments.choice(SIGNALS))
        process.join(120)
        assert process.exitcode in (0, 3, *(-number for number in SIGNALS))
        if (folder / "metrics.json").exists():  # the run has ended, if killed right after
            same(expected, folder, trail)
            finished += 1
        else:
            killed += 1


def checkpoints(tmp_path, steps):
    io = Checkpoints()
    for step in steps:
        io.save_checkpoint({"global_step": step, "x": torch.arange(step)}, tmp_path / "last.ckpt")


def test_a_checkpoint_is_an_ordinary_file_of_tensors(tmp_path):
    checkpoints(tmp_path, [3, 5])
    assert read(tmp_path / "last.ckpt")["x"].tolist() == [0, 1, 2, 3, 4]
    assert read(tmp_path / "previous.ckpt")["global_step"] == 3
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    assert newest(Run(tmp_path)) == (tmp_path / "last.ckpt", "")
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_what_needs_unpickling_is_refused(tmp_path):
    Checkpoints().save_checkpoint({"global_step": 1, "x": Path("x")}, tmp_path / "last.ckpt")
    with pytest.raises(Exception, match="[Ww]eights.only"):
        read(tmp_path / "last.ckpt")


@pytest.mark.parametrize("harm", ["cut", "bit", "empty", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_older_one_used(tmp_path, harm):
    checkpoints(tmp_path, [3, 5])
    last = tmp_path / "last.ckpt"
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes({"cut": data[:-100], "bit": data, "empty": b"", "gone": b""}[harm])
    if harm == "gone":
        last.unlink()
    path, sentence = newest(Run(tmp_path))
    assert path == tmp_path / "previous.ckpt"
    assert str(last) in sentence
    assert f"the older {path}, step 3, which works" in sentence
    path.write_bytes(b"")
    with pytest.raises(Damaged, match="no older checkpoint works"):
        newest(Run(tmp_path))


def test_a_run_goes_on_from_the_older_checkpoint(whole, tmp_path, capsys):
    folder, trail = tmp_path / "run", tmp_path / "trail"
    with pytest.raises(Interrupted):
        run(folder, trail, stop_at=6, checkpoint_minutes=1e-9)
    good = (folder / "previous.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(b"PK")
    with pytest.raises(Interrupted):
        run(folder, trail, stop_at=7)
    assert "last.ckpt is damaged" in capsys.readouterr().out
    assert (folder / "previous.ckpt").read_bytes() == good, "the damaged one did not replace it"
    run(folder, trail)
    same(whole, folder, trail)


def test_what_was_asked_for_on_resuming_outlives_a_stop(tmp_path):
    folder, trail = tmp_path / "run", tmp_path / "trail"
    run(folder, trail, epochs=1)
    with pytest.raises(Interrupted):
        run(folder, trail, epochs=2, stop_at=5)
    assert load_config(folder)[1]["training"]["epochs"] == 2
