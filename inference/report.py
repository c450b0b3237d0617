"""The paper's figures and tables as one page, from what runs and commands left.

Every number is read from their JSON files; what is not there yet has no row.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from inference.outputs import markdown
from inference.recipe import curve, flags, training_of
from pyro_rnp.files import write

SETS = {"mnist": "MNIST", "omniglot": "Omniglot", "fashion": "Fashion-MNIST"}
"""Names of runs, those with `-flat` behind are of the flat VAE, and what they learned from."""
AUTHORS = {1: 47.9, 2: 24.3, 3: 16.2, 5: 12.4, 10: 9.4, 20: 7.3, 28: 7.2}
"""Squared error of an image on MNIST after so many epochs, in the authors' published logs."""
AUTHORS_OMNIGLOT = 15.9
"""The same of unseen characters of Omniglot, after 29 epochs."""
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


def report(runs: Path, page: Path, pictures: Path, remarks: str) -> None:
    """Write the page, and the pictures beside it.

    Args:
        runs: folder with a run folder for each name, `NAME-figures` of `scripts/figures.py` and
            `transfer-*` of `scripts/transfer.py`.
        pictures: folder for them, below that of the page.
        remarks: what is to be said at the end.
    """
    parts = [
        "# Reproduction",
        "What is in the paper (Fisher and Rao, arXiv 2206.08462), made again by commands, with "
        "numbers. Every measured number is read from what the runs left. Squared error is "
        "summed over an image's pixels, of one posterior sample unless said; KL and bounds are in "
        "nats.",
        "## Runs",
        trainings(runs),
        "## Beside the authors' published logs",
        "MNIST, 16 numbers a program, 4 by 4 parts, squared error plus 0.2 KL, batches of 64: "
        "squared error after each epoch, of test images theirs, of validation images ours; and of "
        "test images at the end.",
        curves(runs),
        "Omniglot, 64 numbers a program, 5 by 5 parts: squared error of unseen characters at the "
        "end.",
        unseen_characters(runs),
    ]
    pictures.mkdir(parents=True, exist_ok=True)
    for figure, title in FIGURES.items():
        shown = []
        for name, data in SETS.items():
            picture = runs / f"{name}-figures" / f"figure-{figure}.png"
            if picture.exists():
                copy = pictures / f"{name}-{picture.name}"
                _shrink(picture, copy)
                shown += [f"{data}:", f"![{data}]({copy.relative_to(page.parent).as_posix()})"]
        numbers = figure_numbers(runs, figure)
        if shown or numbers:
            command = f"By `scripts/figures.py RUN --only {figure[0]} --data-root DIR`."
            parts += [f"## {title}", command, *shown, numbers]
    for title, tables in (
        ("Figure 6: images unlike those learned from", transfers(runs)),
        ("Likelihood of binarised images", bounds(runs)),
    ):
        parts += [f"## {title}", tables] if tables else []
    parts += ["## Where this differs from the paper, and why", remarks.strip()]
    write(page, ("\n\n".join(part for part in parts if part) + "\n").encode())


def _shrink(picture: Path, to: Path) -> None:
    """A picture with a palette, a third of the size."""
    with Image.open(picture) as full:
        buffer = io.BytesIO()
        full.convert("RGB").quantize(128).save(buffer, "png", optimize=True)
    write(to, buffer.getvalue())


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _ended(runs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted(runs.glob("*/metrics.json")):
        yield file.parent.name, _read(file)


def trainings(runs: Path) -> str:
    """A row for each run: what made it, and what came out."""
    head = ["run", "epochs", "`test_sse`", "at the mean", "KL", "ELBO", "parameters", "minutes",
            "on", "skipped"]  # fmt: skip
    rows, commands = [], []
    for name, found in _ended(runs):
        config = training_of(runs / name)
        names = ("test_sse", "test_sse_mean", "test_kl", "test_elbo")
        scores = [f"{found[n]:.2f}" if n in found else "" for n in names]
        minutes, steps = f"{found['seconds'] / 60:.0f}", str(found["skipped_steps"])
        size = f"{found['parameters']:,}"
        on = found.get("hardware", "")
        rows.append([name, _epochs(runs / name), *scores, size, minutes, on, steps])
        commands.append(f"- {name}: `scripts/train.py {' '.join(flags(config))} --data-root DIR`")
    return markdown(head, rows) + "\n\n" + "\n".join(commands)


def _epochs(run: Path) -> str:
    """How many were done; where training went by the clock, the last is a part of one."""
    asked = training_of(run).epochs
    return str(len(curve(run)) if asked is None else asked)


def curves(runs: Path) -> str:
    """The squared error of each run on MNIST after each epoch, beside the authors'."""
    head = ["after epoch", *map(str, AUTHORS), "at the end, test"]
    theirs = [f"{value:.1f}" for value in AUTHORS.values()]
    rows = [["authors, test", *theirs, theirs[-1]]]
    for name, found in _like_for_like(runs, "mnist"):
        points = {row["epoch"]: row["val_sse"] for row in curve(runs / name)}
        cells = [f"{points[e]:.1f}" if e in points else "" for e in AUTHORS]
        rows.append([f"{name}, validation", *cells, f"{found['test_sse']:.2f}"])
    return markdown(head, rows)


def unseen_characters(runs: Path) -> str:
    """The squared error of each run on Omniglot, beside the authors'."""
    rows = [["authors", "29", f"{AUTHORS_OMNIGLOT:.1f}"]]
    for name, found in _like_for_like(runs, "omniglot"):
        rows.append([name, _epochs(runs / name), f"{found['test_sse']:.2f}"])
    return markdown(["run", "epochs", "`test_sse`"], rows)


def _like_for_like(runs: Path, data: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ended runs on a data set under the authors' objective."""
    for name, found in _ended(runs):
        config = training_of(runs / name)
        if config.data == data and config.model.likelihood == "normal":
            yield name, found


def figure_numbers(runs: Path, figure: str) -> str:
    """The numbers that belong to a figure, a row a run, the flat VAE's below."""
    columns = {
        "3": ("sse_level_0", "sse_level_1", "sse_level_2", "explained_by_step", "overlap"),
        "4a": ("silhouette_of_levels", "level_probe", "class_probe"),
        "4c-z2": ("largest_over_mean_change_z2", "largest_over_mean_change_z1"),
        "5": ("frechet", "frechet_floor", "precision", "recall"),
    }.get(figure, ())
    rows = []
    for name in (f"{name}{flat}" for name in SETS for flat in ("", "-flat")):
        found = (_read(runs / f"{name}-figures" / "figures.json") or {}).get(figure[0], {})
        if any(column in found for column in columns):
            rows.append([name, *(_cell(found.get(column)) for column in columns)])
    return markdown(["run", *(f"`{column}`" for column in columns)], rows) if rows else ""


def _cell(value: float | Sequence[float] | None) -> str:
    if value is None:
        return ""
    values = value if isinstance(value, Sequence) else [value]
    return ", ".join(f"{v:.3g}" for v in values)


def transfers(runs: Path) -> str:
    """Squared error of unseen images, a table for each that `scripts/transfer.py` left."""
    tables = []
    for file in sorted(runs.glob("transfer-*/transfer.json")):
        found = _read(file)
        rows, command = found["rows"], f"`scripts/transfer.py {found['flags']} --data-root DIR`"
        names = list(dict.fromkeys(key for row in rows for key in row if key != "model"))
        body = [[row["model"], *(_cell(row.get(name)) for name in names)] for row in rows]
        title = f"{file.parent.name}, by {command}:"
        tables.append(f"{title}\n\n{markdown(['model', *names], body)}")
    return "\n\n".join(tables)


def bounds(runs: Path) -> str:
    """Negative log-likelihoods by the importance-weighted bound, beside published ones."""
    rows = []
    for name, published in PUBLISHED.items():
        for run in (name, f"{name}-flat"):
            found = _read(runs / run / "bound.json")
            if found is not None:
                ends = [f"{-found[f'test_{k}']:.1f} ± {found[f'test_{k}_error']:.1f}" for k in
                        ("elbo", "iw_bound")]  # fmt: skip
                rows.append([run, str(found["particles"]), str(found["num"]), *ends])
        if any(row[0].startswith(name) for row in rows):
            rows += [[f"{what} (published)", "", "", "", f"{nats:.1f}"]
                     for what, nats in published.items()]  # fmt: skip
    if not rows:
        return ""
    how = "By `scripts/evaluate.py RUN --particles K --num IMAGES --data-root DIR`:"
    return f"{how}\n\n{markdown(['model', 'k', 'images', '-ELBO', '-IW bound'], rows)}"
