"""Transfer: the squared error of images of other classes or data sets (figure 6)."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inference.cli import train_config
from inference.config import TrainConfig
from inference.data import ImageSet
from inference.data.datasets import absolute, is_path
from inference.evaluation import evaluate, standard_error
from inference.evaluation.metrics import mean_of
from inference.outputs import write_json
from inference.plotting import grid_figure, parse_figure
from inference.reproduction.artifacts import TRANSFER
from inference.reproduction.recipes import trained
from inference.run import Run
from inference.system import hardware
from pyro_rnp import RNP

PROGRAMS = ("recursive", "flat")


@dataclass(frozen=True)
class Case:
    """Images of a class or a data set that a model has not learned from."""

    name: str
    """Name of the class or the data set."""
    left: list[str]
    """Flags of training that leave the images out."""
    tune: list[str]
    """Flags of training on the images alone."""
    unseen: ImageSet
    """Test images of the class or the data set."""
    seen: ImageSet
    """Validation images of the training set without the class."""
    train: ImageSet
    """Training images without the class."""


def cases(config: TrainConfig, unseen: Sequence[int] | None, new: str | None) -> list[Case]:
    """List the cases: each of some classes is left out in turn, or all of another data set is.

    Args:
        config: that of the training, with the data set to learn from.
        unseen: classes to leave out; None with `new`.
        new: name of another data set, all of whose images are unseen; None with `unseen`.

    Raises:
        ValueError: if both or neither of `unseen` and `new` are given, or if there is no such
            class, or no other.
        FileNotFoundError, ValueError: as `load_data`.
    """
    if (not unseen) == (new is None):
        raise ValueError("Say which images are unseen: --unseen or --new.")
    data, splits, same = config.data, config.load_data(), ["--binarize=true"] * config.binarize
    own = {name: getattr(config, name) for name in ("size", "channels", "invert")}
    for name, value in own.items():
        same += [f"--{name}={json.dumps(value)}"] * (value not in (None, "auto"))
    if new is not None:
        test = config.load_data(new).test
        model = config.model
        if is_path(new) or (model.image_size, model.channels) != (28, 1):
            same += [f"--size={model.image_size}", f"--channels={model.channels}"]
        tune = [f"--data={new}", *dict.fromkeys(same)]
        return [Case(Path(new).stem, [], tune, test, splits.validation, splits.train)]
    found, labels = [], splits.test.labels.unique().tolist()
    for label in unseen or []:
        others = [other for other in labels if other != label]
        if label not in labels or not others:
            raise ValueError(
                f"--unseen takes some of the classes {min(labels)} to {max(labels)}, not {label}."
            )
        left, only = ([f"--data={data}", f"--classes={c}"] for c in (others, [label]))
        alone, rest = splits.of([label]), splits.of(others)
        tune = [*only, *same]
        found.append(Case(str(label), left, tune, alone.test, rest.validation, rest.train))
    return found


def compare_transfer(
    data: str = "digits",
    unseen: list[int] | None = None,
    new: str | None = None,
    all: str | None = None,
    learned: list[str] | None = None,
    across: tuple[str, ...] = (),
    flags: str = "",
    tune_flags: str = "",
    out: str = "runs/transfer",
    data_root: str | None = None,
) -> list[dict[str, Any]]:
    """Train without some images, tune the encoder on them, and compare with training on all.

    Args:
        data: what to learn from.
        unseen: classes, each of which is left out in turn.
        new: a data set of unseen images instead.
        all: a data set of both, to train on everything.
        learned: runs that learned from --data alone, at most one of each --program, to tune on
            --new and compare; nothing else is trained then.
        across: data sets to score too, nothing tuned.
        flags: flags of training.
        tune_flags: flags of tuning.
        out: folder for the runs; a run that is there is not trained again.
        data_root: folder of the data sets; by default ./data.

    Returns:
        For each case `data` and what `transfer` returns. The folder `out` holds the same as
        transfer.json, with the flags, the machine and the time.

    Raises:
        FileNotFoundError: if data or a run are not there.
        ValueError: if the flags contradict each other.
        Interrupted: if SIGINT or SIGTERM came while training; a checkpoint is saved.
    """
    if all is not None and new is None:
        raise ValueError("--all goes with --new; with --unseen, all is --data.")
    if learned is not None and (new is None or all or flags):
        raise ValueError("--learned goes with --new, and without --all and --flags.")
    runs = by_program(learned or [], data)
    where = [] if data_root is None else ["--data-root", data_root]
    plain = [*where, *shlex.split(flags)]
    base, tune = [*plain, f"--data={data}"], [*where, *shlex.split(tune_flags)]
    configs = [Run(run).config for run in runs.values()] or [train_config(base)]
    config = replace(configs[0], data_root=data_root)
    left_out = cases(config, unseen, new)
    everything = None
    if unseen or all is not None:
        everything = as_many(base, left_out[0].left, [*plain, f"--data={all or data}"])
    others: dict[str, ImageSet] = {name: config.load_data(name).test for name in across}
    folder = Path(out)
    found = [
        {"data": data, **transfer(case, folder, base, tune, everything, others, runs)}
        for case in left_out
    ]
    given: dict[str, Any] = {
        "data": data, "unseen": unseen, "new": new, "all": all, "across": across, "flags": flags,
        "tune_flags": tune_flags, "learned": [run.name for run in runs.values()],
    }  # fmt: skip
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items() if v}
    made = {
        "hardware": hardware(torch.device("cpu")),
        "seconds": seconds(folder),
        "weights": {run.name: Run(run).fingerprint for run in runs.values()},
    }
    text = shlex.join(f"--{name}={word}" for name, word in words.items())
    write_json(folder / TRANSFER, {"flags": text, "cases": found, "made": made})
    return found


def transfer(
    case: Case,
    out: Path,
    base: Sequence[str],
    tune: Sequence[str],
    everything: Sequence[str] | None,
    across: dict[str, ImageSet],
    learned: Mapping[str, Path],
) -> dict[str, Any]:
    """Train without some images, tune the guide on them, train on everything; then a flat VAE.

    The model that is trained on everything sees as many images, to the nearest epoch; a flat VAE
    trains for the time that the RNP beside it took.

    Args:
        case: the images that are left out.
        out: folder for the runs, for a picture of unseen images as each model draws them, and for
            one of their parts, `CASE.png` and `CASE-parts.png`.
        base: flags of training.
        tune: flags of tuning.
        everything: flags of training on everything; None trains no such model.
        across: other test images to score, nothing tuned.
        learned: runs by program that were trained without these images; where there are some,
            these are tuned, and nothing else is trained.

    Returns:
        `unseen`, the case's name; `images`, the number of unseen images; and `rows`: for a blank
        canvas (`blank`), the
        mean of the images learned from without these (`mean image`), and
        each model how many images it learned from (`images_seen`) and the squared
        error of an image, summed over pixels, one posterior sample, of
        images `unseen` and `seen` and those of `across`, each with its standard error, `_error`.
    """
    out.mkdir(parents=True, exist_ok=True)
    some = case.unseen[:12].images
    scored = {"unseen": case.unseen, "seen": case.seen, **across}
    mean_image = mean_of(case.train)
    rows: list[dict[str, Any]] = [
        {"model": "blank", **_constant(scored, torch.zeros_like(mean_image))},
        {"model": "mean image", **_constant(scored, mean_image)},
    ]
    pictures = [("image", some)]
    programs = [program for program in PROGRAMS if program in learned or not learned]
    for program in programs:
        without = learned.get(program, out / f"{program}-without-{case.name}")
        runs = {
            "without": (without, [*base, *case.left, f"--program={program}"]),
            "tuned": (
                out / f"{program}-tuned-{case.name}",
                [*tune, *case.tune, "--learn=guide", f"--start={without}"],
            ),
        }
        if everything is not None:
            runs["all"] = (out / f"{program}-all", [*everything, f"--program={program}"])
        for kind, (folder, flags) in runs.items():
            if folder not in learned.values():
                if program != programs[0]:
                    beside = folder.with_name(folder.name.replace(program, programs[0], 1))
                    flags = [*flags, "--epochs=null", f"--minutes={minutes(beside)}"]
                trained(folder, flags)
            run, name = Run(folder), f"{program}-{kind}"
            rnp, seen = run.load(), (run.metrics or {})["images_seen"]
            rows.append({"model": name, "images_seen": seen, **_scores(rnp, scored)})
            with torch.no_grad():
                tree = rnp.parse(some)
            pictures.append((name.replace("-", "\n"), tree.canvas))
            if name == f"{PROGRAMS[0]}-without":
                parse_figure(tree, out / f"{case.name}-parts.png", some)
    grid_figure(pictures, out / f"{case.name}.png")
    return {"unseen": case.name, "images": len(case.unseen), "rows": rows}


def by_program(runs: Sequence[str], data: str) -> dict[str, Path]:
    """Return the folders of runs that ended, by the decoder of z^K (`program`) of each.

    Args:
        runs: folders, or names of shipped models.
        data: data set from all classes of which the runs must have learned.

    Raises:
        FileNotFoundError: if there is no such run, or it has not ended.
        ValueError: if one learned from something else, two are of one program, or some learned
            from binarised images and some did not.
    """
    found: dict[str, Path] = {}
    for run in runs:
        config, program = Run(run).config, Run(run).model_config.program
        if not Run(run).ended:
            raise FileNotFoundError(f"{run} has not ended; go on with it by --resume {run}.")
        if (
            absolute(config.data) != absolute(data)
            or config.classes is not None
            or config.start is not None
        ):
            raise ValueError(f"--learned takes runs that learned from {data} alone; {run} did not.")
        if program in found:
            raise ValueError(f"{found[program]} and {run} are both of --program {program}.")
        found[program] = Run(run).path
    if len({Run(run).config.binarize for run in found.values()}) > 1:
        raise ValueError(
            "--learned takes runs of which all learned from binarised images, or none."
        )
    return found


def seconds(out: Path) -> float:
    """Return the training time of all runs in a folder, in seconds.

    Args:
        out: the folder that holds the run folders.
    """
    return sum((_seconds(run.path) for run in Run.ended_in(out)), 0.0)


def minutes(folder: Path) -> float:
    """Return the training time of a run, in minutes, rounded to hundredths and at least 0.01.

    Args:
        folder: the run folder.
    """
    return max(0.01, round(_seconds(folder) / 60, 2))


def _seconds(folder: Path) -> float:
    return (Run(folder, shipped=False).metrics or {})["seconds"]


def as_many(base: Sequence[str], left: Sequence[str], everything: Sequence[str]) -> list[str]:
    """Return flags that train on everything for as many images as without some of them.

    Args:
        base: flags of training.
        left: flags that leave images out.
        everything: flags of training on everything.

    Returns:
        `everything`, with a number of epochs where `base` trains by epochs, rounded to at least 1.
    """

    def size(config: TrainConfig) -> int:
        splits = config.load_data()
        return len((splits if config.classes is None else splits.of(config.classes)).train)

    few, many = train_config([*base, *left]), train_config(everything)
    if few.epochs is None:
        return list(everything)
    return [*everything, f"--epochs={max(1, round(few.epochs * size(few) / size(many)))}"]


def _scores(rnp: RNP, scored: dict[str, ImageSet]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, images in scored.items():
        scores = evaluate(rnp, images)
        found |= {name: scores["sse"], f"{name}_error": scores.get("sse_error")}
    return found


def _constant(scored: dict[str, ImageSet], canvas: Tensor) -> dict[str, float]:
    """The same, of one canvas (C, H, W) for every image."""
    found: dict[str, float] = {}
    for name, data in scored.items():
        parts = ((part.images - canvas).square().sum((1, 2, 3)) for part in data.split())
        errors = torch.cat([*parts]).double()
        found |= {name: float(errors.mean()), f"{name}_error": standard_error(errors)}
    return found
