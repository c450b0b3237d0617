"""The experiments of the reproduction, and the page of results."""

import functools
import itertools
import json
import os
import shlex
import shutil
import signal
from pathlib import Path

import pytest

import inference.reproduction.experiments
from inference.cli import CONFIGS, train_config
from inference.data import load_data
from inference.evaluation.sample_quality import read_feature_classifier
from inference.reproduction.artifacts import collect_artifacts
from inference.reproduction.experiments import Reproduction, read_experiments, with_minutes
from inference.reproduction.figures import make_figures
from inference.reproduction.recipes import trained
from inference.reproduction.report import CURVES, report
from inference.reproduction.tables import results_table
from inference.reproduction.transfer import compare_transfer
from inference.run import Run
from inference.training.fit import Training
from pyro_rnp.checkpoint import SHIPPED, shipped
from tests.scripts.helpers import SCRIPTS, SMALL, call, refused


def test_the_page_says_what_comes_along(tmp_path):
    collect_artifacts(SHIPPED, tmp_path)
    page = SCRIPTS.parent / "docs" / "reproduction" / "index.md"
    here, there = report(tmp_path, ""), page.read_text()
    for name in shipped():
        rows = [row for row in here.splitlines() if row.startswith(f"| {name} |")]
        assert rows
        for row in rows:
            assert row in there


def test_reproduce(monkeypatch, capsys, run_folder, quick_classifier, tmp_path):
    few = functools.partial(make_figures, num=60, clusters=3)
    monkeypatch.setattr(inference.reproduction.experiments, "make_figures", few)
    out, lines = tmp_path / "out", tmp_path / "runs.txt"
    shutil.copytree(run_folder, out / "mnist")
    small = " ".join(["--epochs=1", "--batch_size=600", *SMALL])
    lines.write_text(
        f"# two\nmnist: {small}\nmnist-binary: {small} --likelihood=bernoulli --binarize=true\n"
        "score-it: mnist-binary --particles=3 --num=20\n"
    )
    page, readme = tmp_path / "page" / "index.md", tmp_path / "README.md"
    readme.write_text("# Mine\n<!-- results -->\nold\n<!-- /results -->\nmore\n")
    (out / "mnist-figures.part").mkdir()  # of an attempt that did not end
    kept = page.parent / "classifier-digits.safetensors"
    how = ("--runs", lines, "--out", out, "--page", page, "--readme", readme)
    call(monkeypatch, "reproduce.py", *how)
    assert read_feature_classifier(kept, load_data("digits").train, 0) is not None
    text = page.read_text()
    metrics = Run(run_folder).metrics
    assert f"| mnist | 1 | {metrics['images_seen']:,} | {metrics['test_sse']:.2f} ± " in text
    for name in ("3", "4a", "5"):
        picture = f"mnist-figures/figure-{name}.png"
        assert f"]({picture})" in text
        assert (page.parent / picture).exists()
    assert f"]({CURVES})" in text
    assert (kept.parent / CURVES).exists()
    assert "| mnist-binary (by Muon) | 4 | 3 | 20 |" in text[text.index("-IW bound") :]
    results = results_table(page.parent)
    assert readme.read_text() == (f"# Mine\n<!-- results -->\n{results}\n<!-- /results -->\nmore\n")
    page.unlink()
    call(monkeypatch, "reproduce.py", *how, "--only_page=true")
    assert page.read_text() == text
    lines.write_text(lines.read_text().replace("particles=3", "particles=4"))
    call(monkeypatch, "reproduce.py", *how)
    assert "| mnist-binary (by Muon) | 4 | 4 | 20 |" in page.read_text()
    assert not (out / "mnist-figures.part").exists()
    lines.write_text(f"mnist: {small} --seed=1\nmnist-binary: {small} --likelihood=bernoulli "
                     "--binarize=true\nscore-it: mnist-binary --num=9\n")  # fmt: skip
    (out / "score-it" / "score.json").unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit):
        call(monkeypatch, "reproduce.py", *how)
    err = capsys.readouterr().err
    assert "made with other flags" in err
    assert "Not made, for what is said above: mnist.\n" in err
    assert (out / "score-it" / "score.json").exists(), "the next lines"
    lines.write_text("mnist: --epochs=0\n")
    assert "epochs" in refused(monkeypatch, capsys, "reproduce.py", *how)
    lines.write_text("mnist --epochs=1\n")
    assert "no name and colon" in refused(monkeypatch, capsys, "reproduce.py", *how)
    for wrong in ("mnist --nums=9", "mnist --num 9", "score-it --num=9", ""):
        lines.write_text(f"mnist: {small}\nscore-it: {wrong}\n")
        said = "name a run that" if "mnist" not in wrong else "takes --particles=VALUE"
        assert said in refused(monkeypatch, capsys, "reproduce.py", *how)
    lines.write_text("flat: --minutes as:flat\n")
    assert "flat, which must stand above" in refused(monkeypatch, capsys, "reproduce.py", *how)
    lines.write_text("flat: --minutes as:mnist\nmnist: --epochs=1\n")
    assert "mnist, which must stand above" in refused(monkeypatch, capsys, "reproduce.py", *how)


def test_what_is_there_is_not_made_again_unless_weights_are_others(
    monkeypatch, run_folder, tmp_path
):
    called, folder = [], tmp_path / "mnist"
    shutil.copytree(run_folder, folder)

    def make_figures(run, out, **options):
        called.append({"run": run, "out": out, **options})
        Path(out).mkdir()
        made = {"weights": Run(folder).fingerprint}
        (Path(out) / "figures.json").write_text(json.dumps({"made": made}))

    monkeypatch.setattr(inference.reproduction.experiments, "trained", lambda *_: None)
    monkeypatch.setattr(inference.reproduction.experiments, "make_figures", make_figures)
    for _ in range(2):
        Reproduction().make(folder, [])
    here = {"run": str(folder), "out": str(tmp_path / "mnist-figures.part")}
    own = str(tmp_path / "classifier-digits.safetensors")
    assert called == [{**here, "data": None, "across": (), "classifier": own}]
    shutil.copyfile(folder / "config.json", folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    across = {"data_root": "there", "across": ("mnist", "fashion")}
    for data, tested, compared in (
        ("omniglot-all", None, "omniglot-all"),
        ("omniglot-alphabets", "omniglot", "omniglot"),
    ):
        config["training"]["data"] = data
        (folder / "config.json").write_text(json.dumps(config))
        Reproduction("there", tmp_path / "kept").make(folder, [])
        shutil.rmtree(tmp_path / "mnist-figures")
        own = str(tmp_path / "kept" / f"classifier-{compared}.safetensors")
        assert called[-1] == {**here, **across, "data": tested, "classifier": own}


@pytest.fixture
def compared(monkeypatch):
    """The arguments of each comparison of transfer, which is not made."""
    called = []
    monkeypatch.setattr(
        inference.reproduction.experiments,
        "compare_transfer",
        functools.wraps(compare_transfer)(lambda **given: called.append(given)),
    )
    return called


def test_a_comparison_of_transfer_is_made_again_if_another_is_asked_for(compared, tmp_path):
    folder = tmp_path / "transfer-x"
    folder.mkdir()
    for flags in (["--unseen", "[7]"], ["--unseen", "[7]"], ["--unseen", "[8]"]):
        Reproduction().make(folder, flags)
    assert [given["unseen"] for given in compared] == [[7], [8]]
    assert {given["out"] for given in compared} == {str(folder)}


def test_runs_that_are_there_are_tuned(compared, run_folder, tmp_path):
    folder, flags = tmp_path / "transfer-x", ["one", "two", "--new", "strokes"]
    folder.mkdir()
    shutil.copytree(run_folder, tmp_path / "one")
    with pytest.raises(FileNotFoundError, match="two has not ended"):
        Reproduction().make(folder, flags)
    shutil.copytree(run_folder, tmp_path / "two")
    for weights in (b"", b"", b"others"):
        with (tmp_path / "two" / "model.safetensors").open("ab") as file:
            file.write(weights)
        Reproduction().make(folder, flags)
    assert len(compared) == 2, "again where a run has other weights"
    for given in compared:
        assert given["learned"] == [str(tmp_path / name) for name in ("one", "two")]
        assert (given["new"], given["out"]) == ("strokes", str(folder))
    lines = tmp_path / "lines.txt"
    lines.write_text("transfer-x: two --new strokes\n")
    with pytest.raises(ValueError, match="tunes two, which must stand above"):
        read_experiments(lines)


def test_the_runs_of_the_reproduction_can_be_read_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    found = read_experiments(CONFIGS / "reproduction.txt")
    assert train_config(found["mnist-binary"]).model.program_size == 16
    for name, flags in found.items():
        if name.startswith("score-"):
            assert flags[0] in found
            continue
        if not name.startswith("transfer-"):
            data = "omniglot" if name == "one-shot" else name.partition("-")[0]
            assert train_config(with_minutes(flags, ())).data.partition("-")[0] == data
            continue
        for run in itertools.takewhile(lambda word: not word.startswith("-"), flags):
            assert (
                train_config(with_minutes(found[run], ())).data == flags[flags.index("--data") + 1]
            )
        if "--flags" in flags:
            nested = shlex.split(flags[flags.index("--flags") + 1])
            assert train_config(nested).epochs < 28


def test_a_run_can_take_as_long_as_another(tmp_path):
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "metrics.json").write_text('{"seconds": 90.0}')
    flags = ["--minutes", "as:long", "--seed=1"]
    assert with_minutes(flags, [tmp_path / "none", tmp_path]) == ["--minutes", "1.5", "--seed=1"]
    assert with_minutes(flags, ()) == ["--minutes", "1.0", "--seed=1"]
    with pytest.raises(FileNotFoundError, match="long has not ended"):
        with_minutes(flags, [tmp_path / "none"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("during", ["training", "figures"])
def test_a_signal_ends_the_whole_reproduction_and_it_goes_on_later(
    monkeypatch, capsys, run_folder, tmp_path, number, during
):
    out, lines = tmp_path / "out", tmp_path / "runs.txt"
    small = " ".join(["--batch_size=600", *SMALL])
    lines.write_text(f"one: --epochs=1 {small}\ntwo: --epochs=1 {small} --binarize=true\n")
    how = ("--runs", lines, "--out", out, "--page", tmp_path / "index.md",
           "--readme", tmp_path / "none")  # fmt: skip
    if during == "training":
        start = Training.on_train_batch_start

        def stop(self, *step):
            os.kill(os.getpid(), number)
            start(self, *step)

        monkeypatch.setattr(Training, "on_train_batch_start", stop)
    else:
        shutil.copytree(run_folder, out / "one")
        real = inference.reproduction.experiments.make_figures

        def make_figures(**given):
            os.kill(os.getpid(), number)
            return real(**given)

        monkeypatch.setattr(inference.reproduction.experiments, "make_figures", make_figures)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, "reproduce.py", *how)
    assert ended.value.code == 128 + number
    said = capsys.readouterr().err.splitlines()[-1]
    assert signal.getsignal(number) is before
    assert not (out / "two").exists(), "nor are the others made"
    if during == "training":
        assert said == f"Stopped; go on with --resume {out / 'one'}"
        assert (out / "one" / "last.ckpt").exists()
        monkeypatch.undo()
        metrics = trained(out / "one", ["--epochs=1", *small.split()])
        assert metrics["images_seen"] == 1200
    else:
        assert said == "Stopped."
        assert not (out / "one-figures").exists()
