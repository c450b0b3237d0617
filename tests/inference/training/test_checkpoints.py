"""Runs that are stopped, killed or damaged lose nothing, bit for bit."""

import hashlib
import io
import multiprocessing
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from inference.config import TrainConfig
from inference.data import Splits, load_data
from inference.run import Run
from inference.system import Interrupted
from inference.training import train
from inference.training.callbacks import Progress
from inference.training.checkpoints import Checkpoints, Damaged, newest_checkpoint, read
from inference.training.module import SkippedSteps
from pyro_rnp import load
from pyro_rnp.checkpoint import load_config
from tests.conftest import tiny

KILLED = 8
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STEPS = 8
"""Two epochs of four batches."""


def run(folder, trail, stop_at=None, **changes):
    """Train, or go on with, a tiny run; each step's loss is a line of the file `trail`."""
    data = load_data("digits")
    made = Splits(data.train[:64], data.validation[:8], data.test[:8])
    count = SkippedSteps.count

    def noted(skipped, bad, step):
        count(skipped, bad, step)
        if step + 1 == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    end = Progress.on_train_batch_end

    def ended(callback, trainer, module, *args):
        with open(trail, "a") as file:
            file.write(f"{module.batches_seen} {module.loss.item().hex()}\n")
        end(callback, trainer, module, *args)

    model = tiny(image_size=28, patch_size=6)
    where = {"resume": str(folder)} if Run(folder).has_checkpoint else {"out": str(folder)}
    values = {"epochs": 2, "batch_size": 16, "warmup": 3, "learning_rate": 1e-2, "model": model}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inference.config.load_data", lambda *_, **__: made)
        patch.setattr(SkippedSteps, "count", noted)
        patch.setattr(Progress, "on_train_batch_end", ended)
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
    """Real processes, eight of them ended at random moments by three signals."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.inference.training.test_checkpoints"])
    moments = random.Random(0)

    def start(folder, trail):
        if folder.exists() and not Run(folder).has_checkpoint:
            shutil.rmtree(folder)  # killed before the first step
        process = context.Process(target=_child, args=(folder, trail))
        process.start()
        return process

    first = start(tmp_path / "whole", tmp_path / "whole-trail")
    first.join(120)
    assert first.exitcode == 0
    expected = losses(tmp_path / "whole-trail"), load(tmp_path / "whole").state_dict()

    killed = finished = 0
    while killed < KILLED or not finished:
        folder, trail = tmp_path / f"run-{finished}", tmp_path / f"trail-{finished}"
        process = start(folder, trail)
        if killed < KILLED:
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
    assert newest_checkpoint(Run(tmp_path)) == (tmp_path / "last.ckpt", "")
    names = {"last.ckpt", "previous.ckpt"}
    assert {p.name for p in tmp_path.iterdir()} == names | {f"{name}.sha256" for name in names}
    for name in names:
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert (tmp_path / f"{name}.sha256").read_text() == f"{digest}  {name}\n"
    if shutil.which("sha256sum"):
        sums = sorted(tmp_path.glob("*.sha256"))
        subprocess.run(["sha256sum", "-c", *sums], cwd=tmp_path, check=True, capture_output=True)


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
    path, sentence = newest_checkpoint(Run(tmp_path))
    assert path == tmp_path / "previous.ckpt"
    assert str(last) in sentence
    assert f"the older {path}, step 3, which works" in sentence
    path.write_bytes(b"")
    with pytest.raises(Damaged, match="no older checkpoint works"):
        newest_checkpoint(Run(tmp_path))


@pytest.mark.parametrize("checksum", [b"", b"\xff\x00", b"0123  last.ckpt\n"])
def test_a_checkpoint_with_another_checksum_is_damaged(tmp_path, checksum):
    checkpoints(tmp_path, [3, 5])
    (tmp_path / "last.ckpt.sha256").write_bytes(checksum)
    with pytest.raises(Damaged, match="its checksum is not that of what was written"):
        read(tmp_path / "last.ckpt")
    assert newest_checkpoint(Run(tmp_path))[0] == tmp_path / "previous.ckpt"


def former(content):
    """A checkpoint as earlier versions wrote it: its checksum is the comment of the archive."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()[:-2] + struct.pack("<H", 71)
    return body + b"sha256:" + hashlib.sha256(body).hexdigest().encode()


def test_a_checkpoint_without_a_checksum_is_read_as_it_is(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    last.write_bytes(former({"global_step": 5}))
    previous.write_bytes(former({"global_step": 3}))
    assert newest_checkpoint(Run(tmp_path)) == (last, "")
    for harm in (last.read_bytes()[:-200], b"", b"PK", b"text"):
        last.write_bytes(harm)
        with pytest.raises(Damaged, match=r"last\.ckpt is damaged: \w[^\n]*$"):
            read(last)
        path, sentence = newest_checkpoint(Run(tmp_path))
        assert path == previous
        assert "\n" not in sentence
    last.write_bytes(former({"global_step": 5}))
    checkpoints(tmp_path, [7])
    assert read(previous)["global_step"] == 5
    assert not (tmp_path / "previous.ckpt.sha256").exists(), "nobody has seen its checksum"
    checkpoints(tmp_path, [9])
    assert [read(path)["global_step"] for path in (last, previous)] == [9, 7]
    assert (tmp_path / "previous.ckpt.sha256").exists()


def test_a_flipped_byte_of_a_checkpoint_of_an_earlier_version_is_damage(tmp_path):
    last, previous = tmp_path / "last.ckpt", tmp_path / "previous.ckpt"
    weights = torch.zeros(1000)
    data = bytearray(former({"global_step": 5, "weights": weights}))
    previous.write_bytes(former({"global_step": 3, "weights": weights}))
    at = data.index(bytes(1000)) + 500  # a weight, which torch would read without a word
    data[at] ^= 1
    last.write_bytes(data)
    with pytest.raises(Damaged, match="its checksum is not that of what was written"):
        read(last)
    path, sentence = newest_checkpoint(Run(tmp_path))
    assert path == previous
    assert "step 3, which works" in sentence


def test_a_run_of_an_earlier_version_goes_on_as_if_it_had_not_stopped(whole, tmp_path):
    folder, trail = tmp_path / "run", tmp_path / "trail"
    with pytest.raises(Interrupted):
        run(folder, trail, stop_at=3)
    content = torch.load(folder / "last.ckpt", weights_only=True)
    keys = {"batches_seen", "images_seen", "images_per_batch", "skips", "watch", "threads"}
    assert keys <= content.keys()
    del content["threads"]  # which the earliest did not have
    for file in folder.glob("*.ckpt*"):
        file.unlink()
    (folder / "last.ckpt").write_bytes(former(content))
    run(folder, trail)
    same(whole, folder, trail)


@pytest.mark.parametrize("former_ones", [False, True])
def test_at_every_moment_one_of_two_checkpoints_is_whole(tmp_path, monkeypatch, former_ones):
    """A crash before each change to the folder, of which there are five in a save."""

    class Crash(BaseException):
        pass

    for crash_at in range(6):
        folder = tmp_path / str(crash_at)
        folder.mkdir()
        checkpoints(folder, [3, 5])
        if former_ones:
            for file in folder.glob("*.sha256"):
                file.unlink()
        left = [crash_at]

        def crash(change, left=left):
            def changed(*args, **kwargs):
                if not left[0]:
                    raise Crash
                left[0] -= 1
                return change(*args, **kwargs)

            return changed

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", crash(os.replace))
            patch.setattr(Path, "unlink", crash(Path.unlink))
            if crash_at < 5:
                with pytest.raises(Crash):
                    checkpoints(folder, [7])
            else:
                checkpoints(folder, [7])
        path, _ = newest_checkpoint(Run(folder))
        step = read(path)["global_step"]
        assert step == (7 if crash_at == 5 else 5)
        again = Checkpoints()
        again.keep = path == folder / "last.ckpt"
        again.save_checkpoint({"global_step": 9}, folder / "last.ckpt")
        assert read(folder / "last.ckpt")["global_step"] == 9
        assert read(folder / "previous.ckpt")["global_step"] == step


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
