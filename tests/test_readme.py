"""What the README says is so."""

import importlib
import json
import math
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_its_python_runs():
    space: dict = {}
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    questions = README.split("**What is hidden here?**")[1].split("| method")[0]
    for code in re.findall(r"```python\n(.*?)```", questions, re.S):
        assert len(code.splitlines()) <= 5, "five lines a question"
    for code in blocks:  # one after the other, as one would type them
        exec(code, space)
    assert space["tree"].canvas.shape == (64, 1, 28, 28)
    assert type(space["mine"].model.prior).__name__ == "LaplacePrior"
    assert type(space["mine"].guide.top).__name__ == "LinearGuide"
    assert space["mine_loss"] < 1e6
    assert space["half"].mean("canvas").shape == (4, 1, 28, 28)
    assert space["half"].part_probabilities(depth=1).shape == (4, 5, 28, 28)
    assert space["half"].samples["z/1"].shape == (200, 4, 16)
    assert space["held"].samples["a/1"].shape == (200, 4, 6)
    assert space["both"].canvas.shape == (200, 4, 1, 28, 28)
    assert space["segments"].shape == (4, 28, 28)
    assert space["finer"].shape == (4, 17, 28, 28)
    for piece in ("class LaplacePrior", "class LinearGuide"):
        text = blocks[1][blocks[1].index(piece) :].split("\n@")[0].split("\n\n\n")[0]
        lines = [line for line in text.splitlines() if line.strip()]
        assert 1 + len(lines) <= 10, "with its decorator it is ten lines or fewer"


def test_each_line_of_the_model_names_code_that_is_there():
    table = README.split("## The model")[1].split("## ")[0]
    names = re.findall(r"`(pyro_rnp\.[\w.]+)`", table)
    assert len(names) >= 11
    for name in names:
        module, found = name, None
        while found is None:
            module, _, _ = module.rpartition(".")
            assert module, name
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError:
                continue
        for attribute in name[len(module) + 1 :].split("."):
            found = getattr(found, attribute)


def test_its_pictures_files_and_targets_are_there():
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (ROOT / path).exists(), path
    for path in re.findall(r"(?:scripts|docs)/[\w./-]+\.(?:py|yaml|png)", README):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^make (\w+)", README, re.M)
    makefile = (ROOT / "Makefile").read_text()
    assert {"train", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_its_figures_of_the_reproduction_are_those_of_the_runs():
    def found(run, *names):
        value = json.loads((ROOT / "docs" / "reproduction" / run).read_text())
        for name in names:
            value = value[name]
        return value

    def said(pattern):
        return [*re.search(pattern, README, re.S).groups()]

    def of_test(digits, *names, key="test_sse"):
        return [f"{found(f'{name}.json', key):.{digits}f}" for name in names]

    sse = said(r"\| here, for as [^|]* \| ([\d.]+), ([\d.]+) \| ([\d.]+), ([\d.]+) \|")
    sse += said(r"\| here, from turned [^|]* \| \| ([\d.]+) \|")
    sse += said(r"\| a flat VAE [^|]* for equal time \| ([\d.]+) \| ([\d.]+) \(as ([\d.]+)\) \|")
    runs = ("mnist", "mnist-seed-1", "omniglot-29-epochs", "omniglot-29-epochs-seed-1")
    runs = (*runs, "omniglot", "mnist-flat", "omniglot-flat", "omniglot")
    assert sse == of_test(2, *(f"{run}/metrics" for run in runs))
    far = said(r"Fréchet distance \((\d+) against (\d+)\sand\s(\d+)\)")
    far += said(r"far from characters\s+\((\d+) against (\d+)\)")
    runs = ("mnist-flat", "mnist-seed-1", "mnist", "omniglot-flat", "omniglot")
    assert far == [f"{found(f'{r}-figures/figures.json', '5', 'frechet'):.0f}" for r in runs]
    sse = said(r"by most of all \(([\d.]+) against ([\d.]+)\)")
    runs = ("fashion-flat", "fashion")
    assert sse == of_test(2, *(f"{run}/metrics" for run in runs))
    read = [found(f"{run}-figures/figures.json", "5") for run in runs]
    far = said(r"nearer to clothes \((\d+) against (\d+)\)")
    assert far == [f"{of['frechet']:.0f}" for of in read]
    recall = said(r"\(recall ([\d.]+) against\s+([\d.]+)\)")
    assert recall == [f"{of['recall']:.2f}" for of in read]
    two = r"from ([\d.]+) to ([\d.]+)"
    runs = (f"{run}-{how}" for run in ("omniglot", "omniglot-flat") for how in ("some", "refined"))
    assert said(rf"bring it {two}, the flat VAE {two}") == of_test(
        2, *(f"score-{run}/score" for run in runs)
    )
    tables = found("transfer-mnist/transfer.json", "cases")
    rows = {row["model"]: row for row in tables[0]["rows"]}
    models = [f"recursive-{kind}" for kind in ("without", "tuned", "all")]
    sevens = said(r"of a 7 from ([\d.]+) to ([\d.]+), where that has ([\d.]+)\.")
    assert sevens == [f"{rows[model]['unseen']:.1f}" for model in models]
    rows = found("transfer-omniglot-long/transfer.json", "cases")[0]["rows"]
    errors = said(r"brings their squared\s+error from ([\d.]+) to (\d+\.\d)")
    assert errors == [f"{row['unseen']:.1f}" for row in rows[1:]]
    scores = [f"score-{run}/score" for run in ("mnist-binary", "mnist-binary-flat")]
    bounds = [f"-{nats}" for nats in said(r"bound,\s+([\d.]+) and ([\d.]+) nats")]
    assert bounds == of_test(1, *scores, key="test_iw_bound")
    elbos = said(r"ELBO is\sthe\slower\sone\s+\((-[\d.]+) against (-[\d.]+)\)")
    assert elbos == of_test(1, *scores, key="test_elbo")
    elbos = said(r"higher one, (-[\d.]+)\s+against (-[\d.]+)")
    runs = ("omniglot-binary", "omniglot-binary-flat")
    assert elbos == of_test(1, *(f"{run}/metrics" for run in runs), key="test_elbo")
    scores = [f"score-{run}/score" for run in runs]
    bounds = [f"-{nats}" for nats in said(r"bounds of ([\d.]+) and ([\d.]+) nats")]
    assert bounds == of_test(1, *scores, key="test_iw_bound")
    errors = of_test(9, *scores, key="test_iw_bound_error")
    assert said(r"error of (\d) between") == [f"{math.hypot(*map(float, errors)):.0f}"]


def test_every_dependency_has_a_reason():
    declared = (ROOT / "pyproject.toml").read_text().split("[tool.", 1)[0]
    table = README.split("## Dependencies")[1].split("## ")[0]
    for name in re.findall(r'"([a-zA-Z-]+)(?:\[\w+\])?>=', declared):
        if name != "setuptools":
            assert name in table, name
