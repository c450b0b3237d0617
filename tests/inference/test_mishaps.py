"""What goes wrong at night, for real: a full disk, too little memory."""

import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from inference import cli
from inference.system import limit_memory
from inference.training.callbacks import KeepCheckpoints
from inference.training.checkpoints import read
from tests.inference.training.test_checkpoints import losses, run, same, whole  # noqa: F401

ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_a_run_that_goes_on_when_there_is_space(
    whole,  # noqa: F811
    small_disk,
    tmp_path,
    monkeypatch,
):
    filler, keep = small_disk / "filler", KeepCheckpoints.on_train_batch_end

    def fill(callback, trainer, module, *args):
        if module.batches_seen == 3:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:  # until there is no space
                    file.write(bytes(4096))
        keep(callback, trainer, module, *args)

    monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", fill)
    folder = small_disk / "run"
    with pytest.raises(OSError, match=r"disk is full.* go on with --resume"):
        run(folder, tmp_path / "trail", checkpoint_minutes=1e-9)
    assert read(folder / "last.ckpt")["batches_seen"] == 2
    assert not list(folder.glob("*.part"))
    monkeypatch.undo()
    filler.unlink()
    run(folder, tmp_path / "trail")
    same(whole, folder, tmp_path / "trail")


def test_too_large_a_batch_ends_with_one_sentence(tmp_path):
    def little_memory():
        resource.setrlimit(resource.RLIMIT_DATA, (3 * 2**30, 3 * 2**30))

    command = [
        *(sys.executable, str(ROOT / "scripts" / "train.py"), "--preset", "mnist"),
        *("--batch_size", "1000", "--accelerator", "cpu", "--out", str(tmp_path / "run")),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=little_memory
    )
    assert done.returncode == 2, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "Memory is not enough for batches of 1000: take a smaller --batch_size" in said
    assert "Traceback" not in done.stderr
    assert read(tmp_path / "run" / "last.ckpt")["batches_seen"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux grants more memory than there is")
def test_memory_that_is_not_there_is_refused_and_not_granted():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    cli.run(lambda: None)  # as each script does
    try:
        limit, _ = resource.getrlimit(resource.RLIMIT_DATA)
        assert 0 < limit < 2**50
        assert not limit_memory(), "a lower limit stays"
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
