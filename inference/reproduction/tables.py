"""The tables of results, as Markdown, from the artifacts of runs and commands.

A result that is not there yet has no row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from inference.config import TrainConfig
from inference.outputs import markdown, with_error
from inference.reproduction.artifacts import (
    SETS,
    ended_runs,
    figure_results,
    score_results,
    tested_on,
    transfer_results,
)
from inference.reproduction.recipes import in_configs, to_flags
from inference.run import Run
from pyro_rnp.config import RNPConfig

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

NAMES = rf"({'|'.join(SETS)})(-flat|-random)?(-\d+-epochs)?(-seed-\d+)?"
"""Names of the runs whose results stand in the README."""
BASELINES = {"of the mean image": "test_sse_mean_image", "of a blank": "test_sse_blank"}
"""Columns of squared error that takes no model, which runs of earlier versions do not have."""
Shown = Callable[[str, str], str]
"""From the name of a picture and its title to that picture in the page, if it is there."""


def _run(folder: Path) -> Run:
    return Run(folder, shipped=False)


def trainings(artifacts: Path) -> str:
    """Return a table of all runs, a row each, and the list of their commands.

    Args:
        artifacts: folder of artifacts.
    """
    head = ["run", "epochs", "images seen", "`test_sse`", "at the mean", *BASELINES, "KL", "ELBO",
            "parameters", "minutes", "images/s", "on", "skipped"]  # fmt: skip
    rows, commands = [], []
    for name, found in ended_runs(artifacts):
        config = _run(artifacts / name).config
        names = ("test_sse", "test_sse_mean", *BASELINES.values(), "test_kl", "test_elbo")
        ends = [with_error(found, n, ".2f") for n in names]
        minutes, steps = f"{found['seconds'] / 60:.0f}", str(found["skipped_steps"])
        size = f"{found['parameters']:,}"
        on = found.get("hardware", "")
        seen = f"{found['images_seen']:,}"
        rate = f"{found['images_per_second']:.0f}"
        rows.append([name, _epochs(artifacts / name), seen, *ends, size, minutes, rate, on, steps])
        commands.append(f"- {name}: `pyro-rnp train {' '.join(to_flags(config))} --data-root DIR`")
    return _table(head, rows) + "\n\n" + "\n".join(commands)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, without columns of baselines that no row has."""
    optional = (*BASELINES, "`sse_mean_image`", "`sse_blank`", "`explained_mean_image`")
    used = [i for i, h in enumerate(head) if h not in optional or any(row[i] for row in rows)]
    return markdown([head[i] for i in used], [[row[i] for i in used] for row in rows])


def _epochs(run: Path) -> str:
    """The number of epochs done, by the images seen where training went by the clock."""
    if (epochs := _run(run).config.epochs) is not None:
        return str(epochs)
    points = _run(run).curve
    return f"{_done(points[-1], points):.1f}" if len(points) > 1 else ""


def _done(point: dict[str, Any], points: Sequence[dict[str, Any]]) -> float:
    """Epochs done at a point of a curve, the last of which may be a part of one."""
    first = points[0]
    return point["images_seen"] / first["images_seen"] * first["epoch"]


def learned(artifacts: Path) -> dict[str, dict[float, float]]:
    """Return the squared error on MNIST by epochs done, for the authors' log and each like run.

    Args:
        artifacts: folder of artifacts.

    Returns:
        A dictionary from epochs to squared error for each row's name, the authors' first. An epoch
        may be a fraction where training went by the clock.
    """
    found = {"authors, test": {float(epoch): sse for epoch, sse in AUTHORS.items()}}
    for name, _ in _like_for_like(artifacts, "mnist"):
        points = _run(artifacts / name).curve
        done = {_done(row, points): row["val_sse"] for row in points}
        found[f"{_named(artifacts, name)}, validation"] = done
    return found


def curves(artifacts: Path) -> str:
    """Return a table of each run's squared error on MNIST after each epoch, beside the authors'.

    Args:
        artifacts: folder of artifacts.
    """
    head = ["after epoch", *map(str, AUTHORS), "at the end, test"]
    runs = dict(_like_for_like(artifacts, "mnist"))
    ends = [f"{[*AUTHORS.values()][-1]:.1f}"]
    ends += [with_error(found, "test_sse", ".2f") for found in runs.values()]
    rows = []
    for (name, points), end in zip(learned(artifacts).items(), ends, strict=True):
        rows.append([name, *(f"{points[e]:.1f}" if e in points else "" for e in AUTHORS), end])
    again = [[*_scored(artifacts, name)] for name in runs]
    rows += [[title, *[""] * len(AUTHORS), sse] for some in again for title, sse, _ in some]
    commands = "\n".join(command for some in again for _, _, command in some)
    return f"{markdown(head, rows)}{_over_seeds(artifacts, 'mnist')}\n\n{commands}".strip()


def characters(artifacts: Path) -> str:
    """Return a table of each run's squared error on Omniglot, beside the authors'.

    Args:
        artifacts: folder of artifacts.
    """
    theirs = AUTHORS_OMNIGLOT
    ends = [f"{theirs[which]:.1f}" for which in ("seen", "unseen")]
    commands: list[str] = []
    rows = [["authors", f"{theirs['epochs']}", "", ends[0], "", ends[1]]]
    for name, found in _like_for_like(artifacts, "omniglot"):
        validated = f"{_run(artifacts / name).curve[-1]['val_sse']:.2f}"
        held = _run(artifacts / name).config.data == "omniglot-alphabets"
        seen, unseen = (
            ["", validated] if held else [validated, ""],
            with_error(found, "test_sse", ".2f"),
        )
        images = f"{found['images_seen']:,}"
        rows.append([_named(artifacts, name), _epochs(artifacts / name), images, *seen, unseen])
        for title, sse, command in _scored(artifacts, name):
            rows.append([title, "", "", "", "", sse])
            commands.append(command)
    head = ["run", "epochs", "images seen", "characters learned from", "held-out alphabets",
            "unseen characters"]  # fmt: skip
    return "\n\n".join(
        [markdown(head, rows) + _over_seeds(artifacts, "omniglot"), "\n".join(commands)]
    )


def _scored(artifacts: Path, name: str) -> Iterator[tuple[str, str, str]]:
    """The title, squared error and command of each evaluation of a run after its training."""
    for run, options, score in score_results(artifacts):
        if run == name and "particles" not in options:
            of = f"{int(options['num']):,} of the" if "num" in options else "all"
            guide = f", {options['guide']}" if "guide" in options else ""
            title = f"{name}{guide}, {of} test images"
            flags = " ".join(score["made"]["asked"])
            command = f"pyro-rnp evaluate {name} {flags} --data-root DIR"
            sse = with_error(score, "test_sse", ".2f")
            yield title, sse, f"- {title}: `{command}`, {_took(score['made'])}"


def _over_seeds(artifacts: Path, data: str) -> str:
    """Means of runs that differ in their seeds alone, where there are some."""
    groups: dict[tuple[str, ...], dict[str, float]] = {}
    for name, found in _like_for_like(artifacts, data):
        same = tuple(to_flags(replace(_run(artifacts / name).config, seed=0)))
        groups.setdefault(same, {})[name] = found["test_sse"]
    sentences = [
        f"Mean of {', '.join(own)}: {mean(own.values()):.2f}, standard deviation of a run "
        f"{stdev(own.values()):.2f}."
        for own in groups.values() if len(own) > 1
    ]  # fmt: skip
    return "".join(f"\n\n{sentence}" for sentence in sentences)


def _like_for_like(artifacts: Path, data: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ended runs on a data set in the authors' setting and under their objective."""
    size, steps = LIKE_FOR_LIKE[data]
    wanted = TrainConfig(model=RNPConfig.preset("fast", program_size=size, steps=steps))
    model = ("program_size", "steps", "likelihood", "sigma", "prior", "guide")
    training = ("classes", "start", "batch_size", "kl_weight", "elbo")
    for name, found in ended_runs(artifacts):
        config = _run(artifacts / name).config
        pairs = [(config.model, wanted.model, model), (config, wanted, training)]
        same = all(getattr(a, n) == getattr(b, n) for a, b, names in pairs for n in names)
        if same and tested_on(_run(artifacts / name)) == data:
            yield name, found


def _named(artifacts: Path, name: str) -> str:
    config = _run(artifacts / name).config
    variations = {
        "flat VAE": config.model.program != "recursive",
        "with random levels": config.model.stochastic != "none",
        "by Muon": config.optimizer == "Muon",
        "with a KL that warms up": config.kl_warmup > 0,
        "with rotated images": config.rotated_classes,
        "jittered": config.jitter > 0,
    }
    present = ", ".join(variation for variation, there in variations.items() if there)
    return f"{name} ({present})" if present else name


def results_table(artifacts: Path) -> str:
    """The results in short, for the README: the RNP beside a flat VAE and the authors' own.

    Runs that differ in their seeds alone share a row, with a value for each seed. Binarised
    images, and runs under other names than `reproduction.txt` has, are left out.

    Args:
        artifacts: folder of artifacts.

    Returns:
        A caption and a table, as Markdown.
    """
    theirs = {
        "mnist": [max(AUTHORS), AUTHORS[max(AUTHORS)]],
        "omniglot": [AUTHORS_OMNIGLOT["epochs"], AUTHORS_OMNIGLOT["unseen"]],
    }
    sampled, rows = dict(figure_results(artifacts)), []
    for data, title in SETS.items():
        groups: dict[tuple[str, ...], list[tuple[str, dict[str, Any]]]] = {}
        for name, found in ended_runs(artifacts):
            config, on = _run(artifacts / name).config, tested_on(_run(artifacts / name))
            if on == data and not config.binarize and re.fullmatch(NAMES, name):
                same = tuple(to_flags(replace(config, seed=0)))
                groups.setdefault(same, []).append((name, found))
        for group in groups.values():
            config = _run(artifacts / group[0][0]).config
            distances = [sampled.get(name, {}).get("5", {}).get("frechet") for name, _ in group]
            cells = [
                ", ".join(f"{found['test_sse']:.2f}" for _, found in group),
                ", ".join(f"{found['test_elbo']:.1f}" for _, found in group),
                ", ".join(f"{d:.0f}" for d in distances if d is not None),
            ]
            model = f"RNP, {_epochs(artifacts / group[0][0])} epochs"
            if config.model.program != "recursive":
                model = "flat VAE, equal time"
            if config.model.stochastic != "none":
                model += ", random levels"
            if config.optimizer != "Adam":
                model += f", by {config.optimizer}"
            if config.rotated_classes:
                model += ", rotated characters as further classes"
            what = f"{title}, unseen characters" if data == "omniglot" else title
            rows.append([what, model, *cells, str(len(group))])
        if groups and data in theirs:
            epochs, sse = theirs[data]
            rows.append([rows[-1][0], f"authors' log, {epochs} epochs", f"{sse:.1f}", "", "", ""])
    caption = (
        "*Test images, a value for each seed: squared error summed over an image's 784 pixels, one "
        "posterior sample; ELBO in nats; Fréchet "
        "distance of samples of the prior in the features of a small classifier. A flat VAE has as "
        "many parameters as the RNP or more and learned for about as many minutes. Models learned "
        "by Adam where no other optimizer is named; a flat VAE gains by Muon as well ([results]"
        "(docs/results.md#random-levels)). Commands: "
        "`pyro-rnp reproduce --data-root DIR` makes all, [the reproduction]"
        "(docs/reproduction/index.md) lists the flags of each run.*"
    )
    head = ["data", "model", "squared error", "ELBO", "Fréchet distance", "seeds"]
    return f"{caption}\n\n{markdown(head, rows)}"


def figure_numbers(artifacts: Path, figure: str) -> str:
    """Return a table of the numbers that belong to a figure, a row for each run.

    Args:
        artifacts: folder of artifacts.
        figure: the figure or its panel, as 3 or 4c-z2.

    Returns:
        The table; an empty string where no run has such numbers.
    """
    columns = {
        "3": ("sse_level_0", "sse_level_1", "sse_level_2", "sse_mean_image", "sse_blank",
              "explained_by_step", "explained_mean_image", "overlap"),
        "4a": ("silhouette_of_levels", "level_probe", "class_probe"),
        "4c-z2": tuple(f"largest_over_mean_change_z{k}" for k in (2, 1, 0)),
        "5": (*(f"{n}{floor}" for floor in ("", "_floor") for n in ("frechet", "precision",
              "recall")), "classifier_accuracy"),
    }.get(figure, ())  # fmt: skip
    rows = []
    for name, read in figure_results(artifacts):
        found = read.get(figure[0], {})
        if any(column in found for column in columns):
            rows.append(
                [_named(artifacts, name), *(_cell(found.get(column)) for column in columns)]
            )
    return _table(["run", *(f"`{column}`" for column in columns)], rows) if rows else ""


def figure_costs(artifacts: Path) -> str:
    """Return a table of the images, seed, minutes and machine behind each run's figures.

    Args:
        artifacts: folder of artifacts.

    Returns:
        The table; an empty string where no run has figures.
    """
    rows = []
    for name, read in figure_results(artifacts):
        made = read["made"]
        minutes = f"{made['seconds'] / 60:.1f}"
        of = {read[f]["images"] for f in ("4", "5") if "images" in read.get(f, {})}
        if "num" in made:  # of older files, which say it once
            of.add(made["num"])
        images = ", ".join(f"{count:,}" for count in sorted(of))
        rows.append([name, images, str(made["seed"]), minutes, made["hardware"]])
    head = ["run", "test images (figures 4 and 5)", "seed", "minutes", "on"]
    return markdown(head, rows) if rows else ""


def _cell(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    values = value if isinstance(value, Sequence) else [value]
    return ", ".join(f"{v:.4g}" for v in values)


def tuned(artifacts: Path, shown: Shown) -> list[str]:
    """Return tables of the squared error of unseen images before and after tuning, and pictures.

    Args:
        artifacts: folder of artifacts.
        shown: function from the name of a picture and its title to the picture in the page.

    Returns:
        Paragraphs: a caption, and a table and pictures for each case of `pyro-rnp transfer`.
    """
    parts: list[str] = []
    for run, found in transfer_results(artifacts):
        parts = parts or [
            "Squared error before and after the encoder is tuned, summed over an image's pixels: "
            "of test images of the classes or the data set that training left out (`unseen`), of "
            "validation images of the others (`seen`), and of test images of further data sets. "
            "`without`: trained on the others; `tuned`: its encoder then trained on the "
            "training images left out; `all`: trained on everything; `blank`: a blank canvas; "
            "`mean image`, in newer files: the mean training image of `without`. Each row is one "
            "run, of seed 0 where its command names none."
        ]
        parts.append(
            f"{run}, by `pyro-rnp transfer {in_configs(found['flags'])} --data-root DIR`, "
            f"{_took(found['made'])}:"
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
                parts.append(shown(f"{run}/{name}.png", f"{run}, {name}"))
    return parts


def other_sets(artifacts: Path, shown: Shown) -> list[str]:
    """Return a table and pictures of test images of other data sets, by models as trained.

    Args:
        artifacts: folder of artifacts.
        shown: function from the name of a picture and its title to the picture in the page.

    Returns:
        Paragraphs: a caption, the table and the pictures; none where no run has such numbers.
    """
    rows, parts, metrics = [], [], dict(ended_runs(artifacts))
    for name, read in figure_results(artifacts):
        found, own = read.get("6", {}), tested_on(_run(artifacts / name))
        if not found:
            continue
        cells = {own: with_error(metrics[name], "test_sse", ".1f")}
        for data in (data for data in SETS if data in found):
            beside = f"blank {found[f'{data}_blank']:.1f}"
            if f"{data}_mean_image" in found:
                beside += f", mean image {found[f'{data}_mean_image']:.1f}"
            cells[data] = f"{with_error(found, data, '.1f')} ({beside})"
            title = f"{SETS[data]}, by the model of {SETS.get(name)}"
            picture = shown(f"{name}-figures/figure-6-{data}.png", title)
            if name in SETS and picture:
                parts += [f"{title}:", picture]
        rows.append([_named(artifacts, name), *(cells.get(data, "") for data in SETS)])
    if not rows:
        return []
    how = (
        "Squared error of all test images of each data set, summed over an image's pixels, by "
        "models that were not tuned to it; the column of a model's own set has its `test_sse`. One "
        "run a row, with the seed of the table above. Command: `pyro-rnp figures RUN --only 6 "
        "--across '[mnist,omniglot,fashion]' --data-root DIR`."
    )
    return [how, markdown(["run", *SETS.values()], rows), *parts]


def _took(made: dict[str, Any]) -> str:
    return f"{_hours(made['seconds'])} on {made['hardware']}"


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"


def bounds(artifacts: Path) -> str:
    """Return a table of negative log-likelihoods by the importance-weighted bound.

    Args:
        artifacts: folder of artifacts.

    Returns:
        A caption and the table, with published results; an empty string where no run has a bound.
    """
    rows, metrics = [], dict(ended_runs(artifacts))
    for name, published in PUBLISHED.items():
        own = []
        for run, options, found in score_results(artifacts):
            if not run.startswith(name) or "particles" not in options:
                continue
            ends = [f"{-found[f'test_{k}']:.1f} ± {found[f'test_{k}_error']:.1f}" for k in
                    ("elbo", "iw_bound")]  # fmt: skip
            every = f"{-metrics[run]['test_elbo']:.1f}"
            sizes = [
                f"{int(options[n]):,}" if n in options else "all" for n in ("particles", "num")
            ]
            z = str(_run(artifacts / run).config.model.program_size)
            own.append([_named(artifacts, run), z, *sizes, *ends, every, _took(found["made"])])
        if own:
            rows += own
            rows += [[f"{model} (published)", "", "", "", "", f"{nats:.1f}", "", ""]
                     for model, nats in published.items()]  # fmt: skip
    if not rows:
        return ""
    how = (
        "Binarised MNIST and Omniglot, test split, in nats an image: the negative ELBO and the "
        "negative importance-weighted bound with k particles, of the first IMAGES test images, and "
        "the negative ELBO of all test images at the end of training. One run a row; its command "
        "above has the seed. Command: `pyro-rnp evaluate RUN --particles K --num IMAGES "
        "--data-root DIR`. The published rows are of all test images and of other binarisations; "
        "those of Omniglot are also of another reduction to 28x28 and another split. Our Omniglot "
        "runs learned, like the published ones, from other drawings of the characters that they "
        "are tested on."
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
