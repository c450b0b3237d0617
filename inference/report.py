"""The paper's figures and tables as one page, from what runs and commands left.

Every number is read from their JSON files; what is not there yet has no row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from inference.outputs import markdown, with_error
from inference.provenance import fingerprint
from inference.recipe import curve, flags, in_configs, training_of
from pyro_rnp.checkpoint import SHIPPED, shipped
from pyro_rnp.config import RNPConfig

Shown = Callable[[str, str], str]
"""From the name of a picture and its title to that picture in the page, if it is there."""

SETS = {"mnist": "MNIST", "omniglot": "Omniglot", "fashion": "Fashion-MNIST"}
"""Names of runs, those with `-flat` behind are of the flat VAE, and what they learned from."""
AUTHORS = {1: 47.9, 2: 24.3, 3: 16.2, 5: 12.4, 10: 9.4, 20: 7.3, 28: 7.2}
"""Squared error of an image on MNIST after so many epochs, in the authors' published logs."""
AUTHORS_OMNIGLOT = {"epochs": 29, "seen": 12.5, "unseen": 15.9}
"""The same of Omniglot: of the characters learned from, and of unseen ones."""
LIKE_FOR_LIKE = {"mnist": (16, (4, 4)), "omniglot": (64, (5, 5))}
"""Numbers a program and steps in those logs; all with batches of 64."""
PUBLISHED = {
    "mnist-binary": {"VAE, one layer": 88.7, "IWAE, k = 50": 87.1},
    "omniglot-binary": {"VAE": 106.3, "IWAE": 103.4, "DRAW, at most": 96.5},
}
"""Published negative log-likelihoods of 28x28 images, in nats."""
FIGURES = {
    "3": "Figure 3: images taken apart",
    "4a": "Figure 4a: the space of programs",
    "4b-z2": "Figure 4b: samples of clusters of image programs",
    "4b-z1": "Figure 4b: samples of clusters of part programs",
    "4c-z2": "Figure 4c: from one cluster of image programs to another",
    "4c-z1": "Figure 4c: from one cluster of part programs to another",
    "5": "Figure 5: samples of the prior",
}

LEGENDS = {
    "3": "Squared error by the whole program (`sse_level_2`; of a flat VAE `sse_level_0`), and by "
    "what the top program expects of its parts, without running them (`sse_level_1`); the share of "
    "the images' squared intensity that each step of the top program adds; the share of ink that "
    "lies where another part has more (`overlap`). Of all test images.",
    "4a": "Silhouette of images' and parts' programs as two clusters, from -1 to 1; accuracy of a "
    "linear probe that tells one from the other (five folds), and of one that tells the class from "
    "an image's program, learned from training images.",
    "4c-z2": "Largest change from one image to the next along a path over the mean one, mean of "
    "the paths: 1 where all steps are alike, 9 where everything happens at once. z2: images' "
    "programs; z1: parts'; z0: those of a flat VAE.",
    "5": "Fréchet distance, precision and recall of as many samples as test images, in the last "
    "hidden layer of a small classifier, and its accuracy on validation images. `_floor`: the "
    "same of other test images, instead of samples. With `--classifier "
    "docs/reproduction/classifier-SET.safetensors` all runs are held against the same features. "
    "A model that learned from turned images is held against turned test images.",
}
"""What the numbers of a figure are."""


def report(kept: Path, pictures: str, remarks: str) -> str:
    """The page, as Markdown.

    Args:
        kept: what `inference.kept.keep` left.
        pictures: where that lies, seen from the page.
        remarks: what is to be said at the end.
    """
    shown = partial(_shown, kept, pictures)
    parts = [
        "# Reproduction",
        "What is in the paper (Fisher and Rao, arXiv 2206.08462), made again by commands, with "
        "numbers; `scripts/reproduce.py --data-root DIR` makes all. Every measured number is read "
        "from what the runs left. Squared error is summed over an image's pixels, of one posterior "
        "sample unless said; KL and bounds are in nats; ± standard errors over images, of one run "
        "each. DIR is a folder of data sets as `--data-root` takes it.",
        come_along(kept),
        "## Runs",
        trainings(kept),
        "## Beside the authors' published logs",
        "MNIST, 16 numbers a program, 4 by 4 parts, squared error plus 0.2 KL, batches of 64: "
        "squared error after each epoch, of test images theirs, of 1,000 validation images ours; "
        "and of all test images at the end. A flat VAE learns for as many minutes as a recursion "
        "beside it on the same machine (see above), so for more epochs.",
        curves(kept),
        "Omniglot, 64 numbers a program, 5 by 5 parts: squared error at the end, of characters "
        "learned from (theirs in training, of ours 1,000 drawings that were held out) and of "
        "unseen ones. An epoch of turned images too is four epochs of the drawings.",
        characters(kept),
    ]
    current = {run for run, _ in _figures(kept)}
    parts += ["## What the figures took", costs] if (costs := figure_costs(kept)) else []
    for figure, headline in FIGURES.items():
        drawn: list[str] = []
        for name, data in SETS.items():
            flat = {f"{name}-flat": f"{data}, by the flat VAE"} if figure == "5" else {}
            for run, title in {name: data, **flat}.items():
                picture = shown(f"{run}-figures/figure-{figure}.png", title) * (run in current)
                drawn += [f"{title}:", picture] if picture else []
        numbers = figure_numbers(kept, figure)
        if drawn or numbers:
            command = f"scripts/figures.py RUN --only {figure[0]} --data-root DIR"
            parts += [f"## {headline}", f"By `{command}`.", *drawn]
            parts += [LEGENDS[figure], numbers] if numbers else []
    unseen = [*elsewhere(kept, shown), *transfers(kept, shown)]
    likelihoods = bounds(kept)
    parts += ["## Figure 6: images unlike those learned from", *unseen] if unseen else []
    parts += ["## Likelihood of binarised images", likelihoods] if likelihoods else []
    parts += ["## Where this differs from the paper, and why", remarks.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(kept: Path, pictures: str, name: str, title: str) -> str:
    """A picture, if it is there."""
    return f"![{title}]({pictures}/{name})" if (kept / name).exists() else ""


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _ended(runs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs with their metrics, by likelihood, then data set and name, flat VAEs last."""

    def order(run: Path) -> tuple[Any, ...]:
        config = training_of(run)
        kinds = (config.binarize, list(SETS).index(config.data) if config.data in SETS else -1)
        return *kinds, config.model.program != "recursive", run.name

    for run in sorted((file.parent for file in runs.glob("*/metrics.json")), key=order):
        yield run.name, _read(run / "metrics.json")


def come_along(runs: Path) -> str:
    """Which of the runs' models come along."""
    ended = dict(_ended(runs))
    names = [n for n in shipped() if ended.get(n, {}).get("weights") == fingerprint(SHIPPED / n)]
    links = ", ".join(f"[`{name}`](pyro_rnp/weights/{name}/README.md)" for name in names)
    how = "`pyro_rnp.load` and every command, in the place of RUN, take them by name"
    return f"Trained models that come with the project: {links}; {how}." if names else ""


def trainings(runs: Path) -> str:
    """A row for each run: what made it, and what came out."""
    head = ["run", "epochs", "images seen", "`test_sse`", "at the mean", "KL", "ELBO",
            "parameters", "minutes", "images/s", "on", "skipped"]  # fmt: skip
    rows, commands = [], []
    for name, found in _ended(runs):
        config = training_of(runs / name)
        names = ("test_sse", "test_sse_mean", "test_kl", "test_elbo")
        scores = [with_error(found, n, ".2f") for n in names]
        minutes, steps = f"{found['seconds'] / 60:.0f}", str(found["skipped_steps"])
        size = f"{found['parameters']:,}"
        on = found.get("hardware", "")
        seen = f"{found['images_seen']:,}"
        rate = f"{found['images_per_second']:.0f}"
        rows.append([name, _epochs(runs / name), seen, *scores, size, minutes, rate, on, steps])
        commands.append(f"- {name}: `scripts/train.py {' '.join(flags(config))} --data-root DIR`")
    return markdown(head, rows) + "\n\n" + "\n".join(commands)


def _epochs(run: Path) -> str:
    """How many were done, by the images seen where training went by the clock."""
    if (asked := training_of(run).epochs) is not None:
        return str(asked)
    points = curve(run)
    whole = points[0]["images_seen"] / points[0]["epoch"] if len(points) > 1 else 0
    return f"{points[-1]['images_seen'] / whole:.1f}" if whole else ""


def curves(runs: Path) -> str:
    """The squared error of each run on MNIST after each epoch, beside the authors'."""
    head = ["after epoch", *map(str, AUTHORS), "at the end, test"]
    theirs = [f"{value:.1f}" for value in AUTHORS.values()]
    rows = [["authors, test", *theirs, theirs[-1]]]
    for name, found in _like_for_like(runs, "mnist"):
        points = {row["epoch"]: row["val_sse"] for row in curve(runs / name)}
        cells = [f"{points[e]:.1f}" if e in points else "" for e in AUTHORS]
        rows.append(
            [f"{_named(runs, name)}, validation", *cells, with_error(found, "test_sse", ".2f")]
        )
    return markdown(head, rows) + _over_seeds(runs, "mnist")


def characters(runs: Path) -> str:
    """The squared error of each run on Omniglot, beside the authors'."""
    theirs = AUTHORS_OMNIGLOT
    ends = [f"{theirs[which]:.1f}" for which in ("seen", "unseen")]
    commands: list[str] = []
    rows = [["authors", f"{theirs['epochs']}", "", *ends]]
    for name, found in _like_for_like(runs, "omniglot"):
        seen, unseen = curve(runs / name)[-1]["val_sse"], with_error(found, "test_sse", ".2f")
        images = f"{found['images_seen']:,}"
        rows.append([_named(runs, name), _epochs(runs / name), images, f"{seen:.2f}", unseen])
        for run, asked, score in _scores(runs):
            if run == name and "particles" not in asked:
                of = f"{int(asked['num']):,} of the" if "num" in asked else "all"
                what = f"{name}{', refined' * ('guide' in asked)}, {of} test images"
                rows.append([what, "", "", "", with_error(score, "test_sse", ".2f")])
                commands.append(
                    f"- {what}: `scripts/evaluate.py {name} {' '.join(score['made']['asked'])} "
                    f"--data-root DIR`, {_took(score['made'])}"
                )
    head = ["run", "epochs", "images seen", "characters learned from", "unseen characters"]
    return "\n\n".join([markdown(head, rows) + _over_seeds(runs, "omniglot"), "\n".join(commands)])


def _over_seeds(runs: Path, data: str) -> str:
    """Means of runs that differ in their seeds alone, where there are some."""
    groups: dict[tuple[str, ...], dict[str, float]] = {}
    for name, found in _like_for_like(runs, data):
        same = tuple(flags(replace(training_of(runs / name), seed=0)))
        groups.setdefault(same, {})[name] = found["test_sse"]
    said = [
        f"Mean of {', '.join(own)}: {mean(own.values()):.2f}, standard deviation of a run "
        f"{stdev(own.values()):.2f}."
        for own in groups.values() if len(own) > 1
    ]  # fmt: skip
    return "".join(f"\n\n{line}" for line in said)


def _like_for_like(runs: Path, data: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ended runs on a data set in the authors' setting and under their objective."""
    plain = RNPConfig.preset("fast")
    for name, found in _ended(runs):
        config = training_of(runs / name)
        own = (config.model.program_size, config.model.steps)
        same = (config.model.likelihood, config.model.sigma) == (plain.likelihood, plain.sigma)
        objective = same and (config.kl_weight, config.batch_size) == (1, 64)
        if config.data == data and own == LIKE_FOR_LIKE[data] and objective:
            yield name, found


def _named(runs: Path, name: str) -> str:
    config = training_of(runs / name)
    what = {
        "flat VAE": config.model.program != "recursive",
        "of turned images too": config.turned,
        "of moved images": config.jitter > 0,
    }
    said = ", ".join(name for name, so in what.items() if so)
    return f"{name} ({said})" if said else name


def figure_numbers(runs: Path, figure: str) -> str:
    """The numbers that belong to a figure, a row a run, the flat VAE's below."""
    columns = {
        "3": ("sse_level_0", "sse_level_1", "sse_level_2", "explained_by_step", "overlap"),
        "4a": ("silhouette_of_levels", "level_probe", "class_probe"),
        "4c-z2": tuple(f"largest_over_mean_change_z{k}" for k in (2, 1, 0)),
        "5": (*(f"{n}{floor}" for floor in ("", "_floor") for n in ("frechet", "precision",
              "recall")), "classifier_accuracy"),
    }.get(figure, ())  # fmt: skip
    rows = []
    for name, read in _figures(runs):
        found = read.get(figure[0], {})
        if any(column in found for column in columns):
            rows.append([_named(runs, name), *(_cell(found.get(column)) for column in columns)])
    return markdown(["run", *(f"`{column}`" for column in columns)], rows) if rows else ""


def figure_costs(runs: Path) -> str:
    """What the numbers of figures are of, and what they took."""
    rows = []
    for name, read in _figures(runs):
        made = read["made"]
        minutes = f"{made['seconds'] / 60:.1f}"
        rows.append([name, f"{made['num']:,}", str(made["seed"]), minutes, made["hardware"]])
    head = ["run", "test images (figures 4 and 5)", "seed", "minutes", "on"]
    return markdown(head, rows) if rows else ""


def _figures(runs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs and the numbers of their figures, but those of other weights."""
    for name, metrics in _ended(runs):
        found = _read(runs / f"{name}-figures" / "figures.json")
        if found is not None and found["made"]["weights"] == metrics["weights"]:
            yield name, found


def _cell(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    values = value if isinstance(value, Sequence) else [value]
    return ", ".join(f"{v:.4g}" for v in values)


def transfers(runs: Path, shown: Shown) -> list[str]:
    """Squared error of unseen images, a table for each case that `scripts/transfer.py` left."""
    parts = []
    for file in sorted(runs.glob("transfer-*/transfer.json")):
        found = _read(file)
        made, run = found["made"], file.parent
        parts.append(
            f"{run.name}, by `scripts/transfer.py {in_configs(found['flags'])} --data-root DIR`, "
            f"{_took(made)}:"
        )
        for case in found["cases"]:
            names = [name for name in case["rows"][0] if not name.endswith("_error")][1:]
            rows = []
            for row in case["rows"]:
                seen = f"{row['images_seen']:,}" if "images_seen" in row else ""
                rows.append([row["model"], seen, *(with_error(row, n, ".1f") for n in names)])
            parts.append(f"Unseen: {case['unseen']}, {case['images']:,} images.")
            parts.append(markdown(["model", "images learned from", *names], rows))
            for kind in ("", "-parts"):
                name = f"{case['unseen']}{kind}"
                parts.append(shown(f"{run.name}/{name}.png", f"{run.name}, {name}"))
    return parts


def elsewhere(runs: Path, shown: Shown) -> list[str]:
    """Squared error of other data sets, by models that nothing was tuned of."""
    rows, parts = [], []
    for name, read in _figures(runs):
        found, own = read.get("6", {}), str(training_of(runs / name).data)
        if not found:
            continue
        cells = {own: with_error(_read(runs / name / "metrics.json"), "test_sse", ".1f")}
        for data in (data for data in SETS if data in found):
            blank = found[f"{data}_blank"]
            cells[data] = f"{with_error(found, data, '.1f')} (blank {blank:.1f})"
            title = f"{SETS[data]}, by what was learned from {SETS.get(name)}"
            picture = shown(f"{name}-figures/figure-6-{data}.png", title)
            if name in SETS and picture:
                parts += [f"{title}:", picture]
        rows.append([_named(runs, name), *(cells.get(data, "") for data in SETS)])
    if not rows:
        return []
    how = (
        "Nothing tuned, by `scripts/figures.py RUN --only 6 --across '[mnist,omniglot,fashion]' "
        "--data-root DIR`: squared error of test images, those of a model's own set among them."
    )
    return [how, markdown(["run", *SETS.values()], rows), *parts]


def _scores(runs: Path) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Runs with what was asked about each and found; what is of other weights is left out."""
    files = [_read(path) for path in sorted(runs.glob("score-*/score.json"))]
    for name, metrics in _ended(runs):
        for found in files:
            made = found["made"]
            if (made["of"], made["weights"]) == (name, metrics["weights"]):
                pairs = (flag.removeprefix("--").partition("=") for flag in made["asked"])
                yield name, {key: value for key, _, value in pairs}, found


def _took(made: dict[str, Any]) -> str:
    return f"{_hours(made['seconds'])} on {made['hardware']}"


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"


def bounds(runs: Path) -> str:
    """Negative log-likelihoods by the importance-weighted bound, beside published ones."""
    rows = []
    for name, published in PUBLISHED.items():
        own = []
        for run, asked, found in _scores(runs):
            if run.removesuffix("-flat") != name or "particles" not in asked:
                continue
            ends = [f"{-found[f'test_{k}']:.1f} ± {found[f'test_{k}_error']:.1f}" for k in
                    ("elbo", "iw_bound")]  # fmt: skip
            every = f"{-_read(runs / run / 'metrics.json')['test_elbo']:.1f}"
            sizes = [f"{int(asked[n]):,}" if n in asked else "all" for n in ("particles", "num")]
            z = str(training_of(runs / run).model.program_size)
            own.append([_named(runs, run), z, *sizes, *ends, every, _took(found["made"])])
        if own:
            rows += own
            rows += [[f"{what} (published)", "", "", "", "", f"{nats:.1f}", "", ""]
                     for what, nats in published.items()]  # fmt: skip
    if not rows:
        return ""
    how = (
        "By `scripts/evaluate.py RUN --particles K --num IMAGES --data-root DIR`. The published "
        "rows are of all test images and of other binarisations, those of Omniglot also of another "
        "reduction to 28x28 and another split. As there, ours of Omniglot learned from the "
        "characters that they are tested on, in other drawings."
    )
    head = [
        "model",
        "&#124;z&#124;",
        "k",
        "images",
        "-ELBO",
        "-IW bound",
        "-ELBO, all test images",
        "time",
    ]
    return f"{how}\n\n{markdown(head, rows)}"
