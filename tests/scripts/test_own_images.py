"""From files of one's own to a model, a picture, a query and scores, by commands alone."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from inference import fit
from inference.data import load_data
from inference.run import Run
from pyro_rnp import RNPConfig, load
from tests.inference.data.test_datasets import idx
from tests.scripts.helpers import SMALL, call

pytestmark = pytest.mark.usefixtures("brief")
FEW = ["--epochs=1", "--batch_size=64", *SMALL[:2], *SMALL[3:]]
QUICK = ("--num_samples=4", "--steps=2")


def refused(monkeypatch, capsys, name, *args):
    """The sentence with which a call ends, after what was said of the images."""
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, name, *args)
    assert ended.value.code == 2
    *_, said = capsys.readouterr().err.splitlines()
    assert said.startswith("error: ")
    return said


def squares(count, size, seed=0):
    """Light squares on a dark ground, each another."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, size, size), np.uint8)
    for image in images:
        side = size // 3
        y, x = random.integers(2, size - side - 2, 2)
        image[y : y + side, x : x + side] = random.integers(120, 256, (side, side))
    return images


def files(folder, images):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03d}.png")
    return folder


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """A folder of 200 files of 40x40 pixels, dark ink on light paper."""
    return files(tmp_path_factory.mktemp("files") / "drawings", 255 - squares(200, 40))


@pytest.fixture(scope="module")
def of_drawings(drawings, tmp_path_factory):
    """A run that learned from them; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        call(patch, "train.py", "--data", drawings, "--out", folder, *FEW)
    return folder


def colour(folder):
    """An .npz of 64x64 pixels in colour."""
    tints = np.random.default_rng(1).random((60, 1, 1, 3)) + 0.2
    images = np.minimum(squares(60, 64)[..., None] * tints, 255).astype(np.uint8)
    np.savez(folder / "colour.npz", images=images, labels=np.arange(60) % 3)
    return str(folder / "colour.npz"), []


def kmnist(folder):
    """KMNIST's files, as torchvision keeps them."""
    raw = folder / "data" / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 80), ("t10k", 20)):
        images = squares(count, 28, seed=count)
        idx(raw / f"{name}-images-idx3-ubyte", images)
        idx(raw / f"{name}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    return "torchvision:KMNIST", ["--data-root", folder / "data"]


def scores(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("made", "shape"), [(colour, (3, 64, 64)), (kmnist, (1, 28, 28))])
def test_from_files_to_answers(made, shape, tmp_path, monkeypatch, capsys):
    source, root = made(tmp_path)
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "train.py", "--data", source, *root, "--out=run", *FEW)
    assert (tmp_path / "run" / "parse.png").exists()
    assert Run("run").images["shape"] == list(shape)
    answers(tmp_path, monkeypatch, capsys)
    wanted = RNPConfig.for_images(shape[1], shape[0], steps=(2, 2))
    found = Run("run").model_config
    assert (found.max_scale, found.patch_size) == (wanted.max_scale, wanted.patch_size)


def answers(folder, monkeypatch, capsys):
    """The other commands, with no more said than where the run is."""
    shape = Run(folder / "run").images["shape"]
    capsys.readouterr()
    call(monkeypatch, "evaluate.py", folder / "run")
    found = scores(capsys)
    assert np.isfinite(found["test_elbo"])
    assert found["num"] == Run(folder / "run").images["counts"]["test"]
    image = Run(folder / "run").data().test.pixels[0].permute(1, 2, 0).squeeze(-1).numpy()
    Image.fromarray(image).save(folder / "one.png")
    call(monkeypatch, "parse.py", folder / "run", folder / "one.png", "--out", folder / "parses")
    data = Run(folder / "run").data_name
    call(monkeypatch, "query.py", folder / "run", "--data", data, "--num=2", "--hide=right",
         *QUICK, "--out", folder / "answers")  # fmt: skip
    with np.load(folder / "answers" / "samples.npz") as kept:
        assert kept["canvas"].shape == (4, 2, *shape)
    call(monkeypatch, "query.py", folder / "run", "--images", folder / "one.png", *QUICK,
         "--out", folder / "more")  # fmt: skip
    call(monkeypatch, "sample.py", folder / "run", "--num=2", "--out", folder / "samples.png")
    assert (folder / "parses" / "one.png").exists()
    assert (folder / "samples.png").exists()
    assert "not those" not in (said := capsys.readouterr().err)
    assert "changed" not in said


def test_a_folder_of_drawings(of_drawings, drawings, tmp_path, monkeypatch, capsys):
    shutil.copytree(of_drawings, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.data_name == str(drawings.absolute())
    assert sum(run.images["counts"].values()) == 200
    assert len(run.images["fingerprint"]) == 12
    assert run.model_config.max_scale == RNPConfig.for_images(40, steps=(2, 2)).max_scale
    answers(tmp_path, monkeypatch, capsys)
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "edit.py", "run", "--data", drawings, "--num=2", "--remove=1")
    call(monkeypatch, "dictionary.py", "run", "--data", drawings, "--num=9", "--count=2")
    call(monkeypatch, "figures.py", "run", "--only=3", "--data=digits")
    assert load("run").sample(1).canvas.shape == (1, 1, 40, 40)


def test_the_folder_may_be_elsewhere_and_its_change_is_told(
    of_drawings, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    shutil.copytree(of_drawings, run)
    there = Run(run).data_name
    new = shutil.copytree(there, tmp_path / "moved")
    config = json.loads((run / "config.json").read_text())
    config["training"]["data"] = str(tmp_path / "gone")
    (run / "config.json").write_text(json.dumps(config))
    assert "gone" in refused(monkeypatch, capsys, "evaluate.py", run)
    call(monkeypatch, "evaluate.py", run, "--data", new)
    first, said = capsys.readouterr()
    assert "note" not in said
    call(monkeypatch, "train.py", "--resume", run, "--data", new, "--epochs=2")
    assert Run(run).data_name == str(new)
    capsys.readouterr()
    Image.fromarray(255 - squares(1, 40, seed=9)[0]).save(new / "one more.png")
    call(monkeypatch, "evaluate.py", run)
    again, said = capsys.readouterr()
    assert "have changed since" in said
    assert "200 images then, 201 now" in said
    assert json.loads(first)["num"] <= json.loads(again)["num"]
    before = (run / "config.json").read_bytes()
    wrong = refused(monkeypatch, capsys, "train.py", "--resume", run, "--epochs=3")
    assert "not those that" in wrong
    assert f"--start {run}" in wrong
    assert (run / "config.json").read_bytes() == before
    call(monkeypatch, "evaluate.py", run, "--data=digits")
    assert "changed" not in capsys.readouterr().err


def test_a_size_that_is_not_the_data_s_is_refused_with_the_way_out(
    drawings, of_drawings, tmp_path, monkeypatch, capsys
):
    flags = ["--data", drawings, *FEW, "--out", tmp_path / "x"]
    wrong = refused(monkeypatch, capsys, "train.py", *flags, "--image_size=28")
    assert "40 x 40 pixels" in wrong
    assert "--size 28" in wrong
    wrong = refused(monkeypatch, capsys, "train.py", *flags, "--model.channels=3")
    assert "--channels 3" in wrong
    wrong = refused(monkeypatch, capsys, "train.py", *FEW, "--start", of_drawings, "--data=digits")
    assert "--size 40" in wrong
    for flag, said in (
        ("--size=0", "size must be at least 1 pixel"),
        ("--channels=2", "1 or 3"),
    ):
        assert said in refused(monkeypatch, capsys, "train.py", *flags, flag)
    assert not (tmp_path / "x").exists()


def test_images_of_other_sizes_are_scaled_where_a_size_is_given(tmp_path, monkeypatch, capsys):
    folder = files(tmp_path / "mixed", [*squares(30, 40), *squares(30, 52)])
    flags = ["--data", folder, "--out", tmp_path / "run", *FEW]
    assert "--size" in refused(monkeypatch, capsys, "train.py", *flags)
    call(monkeypatch, "train.py", *flags, "--size=20", "--channels=3", "--invert=false")
    run = Run(tmp_path / "run")
    assert run.images["shape"] == [3, 20, 20]
    assert (run.config.size, run.config.channels, run.config.invert) == (20, 3, False)
    answers(tmp_path, monkeypatch, capsys)


def test_images_from_memory_are_given_again_by_path_or_in_python(tmp_path, monkeypatch, capsys):
    images = squares(40, 16)
    run = fit(images, steps=(2,), program_size=4, out=tmp_path / "run", epochs=1, progress=False)
    assert run.data_name == "memory"
    assert torch.equal(run.data(images).test.pixels, load_data(images).test.pixels)
    assert "--data PATH" in refused(monkeypatch, capsys, "evaluate.py", run.path)
    np.save(tmp_path / "images.npy", images)
    file = tmp_path / "images.npy"
    call(monkeypatch, "train.py", "--resume", run.path, "--data", file, "--epochs=2")
    assert run.data_name == str(file)
    with pytest.raises(ValueError, match="not those that .* has learned from"):
        fit(255 - images, resume=run, epochs=3, progress=False)


def test_some_classes_are_learned_and_all_are_kept_in_the_record(tmp_path):
    images = squares(60, 16)
    np.savez(tmp_path / "own.npz", images=images, labels=np.arange(60) % 2)
    run = fit(
        tmp_path / "own.npz", classes=[1], steps=(2,), program_size=4, out=tmp_path / "run",
        epochs=1, progress=False,
    )  # fmt: skip
    learned = int(run.data().train.labels.sum())
    assert run.metrics["images_seen"] == learned < run.images["counts"]["train"]


def test_files_are_read_as_those_of_training(tmp_path, monkeypatch, capsys):
    """Photographs of a light sky stay, and files are scaled where those of training were."""
    light = np.random.default_rng(0).integers(130, 256, (40, 24, 24, 3)).astype(np.uint8)
    folder = files(tmp_path / "photographs", light)
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, "train.py", "--data", folder, "--size=16", "--out=run", *FEW)
    assert Run("run").inverted is False
    capsys.readouterr()
    Image.fromarray(light[0]).resize((60, 50)).save("other.png")
    call(monkeypatch, "parse.py", "run", "other.png", "--out=one")
    assert "swapped" not in capsys.readouterr().err
    call(monkeypatch, "parse.py", "run", "other.png", "--invert=auto", "--out=two")
    said = capsys.readouterr().err
    assert "swapped" in said
    assert "16 x 16" in refused(
        monkeypatch, capsys, "parse.py", "run", "other.png", "--resize=false", "--out=x"
    )
    call(monkeypatch, "parse.py", "run", folder, "--out=all")
    assert len(list((tmp_path / "all").glob("*.json"))) == 40
    capsys.readouterr()
    for i, words in enumerate((["--data", folder, "--num=2"], ["--images", "other.png"])):
        call(monkeypatch, "query.py", "run", *words, *QUICK, "--out", f"query-{i}")
        call(monkeypatch, "edit.py", "run", *words, "--remove=1", "--out", f"edit-{i}")
        said = capsys.readouterr().err.splitlines()
        assert sum("explains less than half" in line for line in said) == 2, said
        assert all(f"image 0 of {folder}" in line or i for line in said if "explains" in line)


def test_a_run_that_starts_from_another_reads_its_images_unless_others_are_named(
    tmp_path, monkeypatch, capsys
):
    folder = files(tmp_path / "mixed", [*squares(30, 40), *squares(30, 52)])
    first, again, other = (tmp_path / name for name in ("first", "again", "other"))
    call(monkeypatch, "train.py", "--data", folder, "--size=20", *FEW, "--out", first)
    call(monkeypatch, "train.py", "--start", first, *FEW, "--out", again)
    assert Run(again).images == Run(first).images
    assert (Run(again).data_name, Run(again).config.size) == (str(folder), 20)
    new = files(tmp_path / "new", squares(40, 52, seed=3))
    call(monkeypatch, "train.py", "--start", first, "--data", new, *FEW, "--out", other)
    assert (Run(other).data_name, Run(other).config.size) == (str(new), 20)


def test_the_ground_of_other_images_is_looked_at_also_by_a_run_in_colour(
    drawings, tmp_path, monkeypatch, capsys
):
    random = np.random.default_rng(1)
    colours = (squares(60, 40)[..., None] * random.random((60, 1, 1, 3))).astype(np.uint8)
    np.save(tmp_path / "colours.npy", colours)
    run = tmp_path / "run"
    call(monkeypatch, "train.py", "--data", tmp_path / "colours.npy", *FEW, "--out", run)
    assert Run(run).inverted is False
    capsys.readouterr()
    call(monkeypatch, "evaluate.py", run, "--data", drawings)
    said = capsys.readouterr()
    assert "200 of 200 images" in said.err
    assert json.loads(said.out)["test_sse_blank"] < 1000
