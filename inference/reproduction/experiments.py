"""The runs, figures, scores and comparisons behind the page of results, made where missing."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from inference.cli import CONFIGS, add_data_root, parser, sentence, train_config
from inference.evaluation import score_run
from inference.outputs import write_json
from inference.reproduction.artifacts import (
    FIGURE_NUMBERS,
    PART,
    SCORE,
    SCORES,
    SETS,
    TRANSFERS,
    Clock,
    tested_on,
)
from inference.reproduction.figures import make_figures
from inference.reproduction.recipes import RECIPE, in_configs, trained
from inference.reproduction.transfer import compare_transfer, minutes
from inference.run import Run
from inference.system import Interrupted, interruptible

AS = "as:"
"""How the value of `--minutes` begins that names another run."""
SCORE_FLAGS = ("particles", "num", "guide", "seed")
"""Flags of `pyro-rnp evaluate` that a score may have."""
ACROSS: tuple[str, ...] = ("mnist", "omniglot", "fashion")
"""Data sets of figure 6; a model is tried on those of them that it did not learn from."""
MADE = "made.json"
"""The note beside a comparison of transfer that says how it was made."""


def read_experiments(file: Path) -> dict[str, list[str]]:
    """Read the names and flags of experiments, one a line.

    Args:
        file: text file; a line is `NAME: FLAGS`, `#` begins a comment, and recipes (.yaml) lie
            beside the file, or come with the package.

    Returns:
        The flags by name, with paths of recipes that hold from the working directory.

    Raises:
        FileNotFoundError: if there is no such file.
        jsonargparse.ArgumentError, ValueError: if a line has no name or its flags are wrong.
    """

    def beside(recipe: re.Match[str]) -> str:
        name = recipe.group()
        there = next((d for d in (file.parent, CONFIGS) if (d / name).is_file()), file.parent)
        path = os.path.relpath(there / name)
        return path if recipe.group() == recipe.string else shlex.quote(path)

    if not file.is_file():
        raise FileNotFoundError(f"{file} does not exist; it is to say what to run, one a line.")
    found: dict[str, list[str]] = {}
    for line in file.read_text().splitlines():
        name, colon, flags = line.partition("#")[0].partition(":")
        if not colon and name.strip():
            raise ValueError(f"A line of {file} has no name and colon in front: {line}.")
        if colon:
            words = [re.sub(RECIPE, beside, word) for word in shlex.split(flags)]
            _check(name, words, [n for n in found if not n.startswith((SCORES, TRANSFERS))])
            found[name] = words
    return found


def _check(name: str, words: Sequence[str], runs: Sequence[str]) -> None:
    """Raise an error where an experiment cannot be made; `runs` are those above it."""
    for before in (word.partition(AS)[2] for word in words if word.startswith(AS)):
        if before not in runs:
            raise ValueError(f"{name} takes the minutes of {before}, which must stand above.")
    if name.startswith(SCORES):
        if not words or words[0] not in runs:
            raise ValueError(f"{name} must name a run that stands above.")
        for flag in words[1:]:
            if not re.fullmatch(f"--({'|'.join(SCORE_FLAGS)})=.+", flag):
                known = ", ".join(f"--{known}=VALUE" for known in SCORE_FLAGS)
                raise ValueError(f"{name} takes {known}; got {flag}.")
        _arguments(score_run, words[1:])
    elif name.startswith(TRANSFERS):
        names = _leading(words)
        for run in names:
            if run not in runs:
                raise ValueError(f"{name} tunes {run}, which must stand above.")
        for before, nested in pairwise(words):
            if before in ("--flags", "--tune_flags"):
                train_config(shlex.split(nested))
        _arguments(compare_transfer, words[len(names) :])
    else:
        train_config(with_minutes(words, ()))


def _arguments(function: Callable[..., Any], words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a function, but `run`, from words of its command line."""
    arguments = parser("")
    arguments.add_function_arguments(function, skip={"run", "data_root"})
    add_data_root(arguments)
    return vars(arguments.parse_args([*words]))


def _leading(words: Sequence[str]) -> list[str]:
    """The names of runs in front of the flags."""
    return [*takewhile(lambda word: not word.startswith("-"), words)]


def with_minutes(flags: Sequence[str], places: Sequence[Path]) -> list[str]:
    """Flags in which `as:NAME` is replaced by the minutes that the run NAME took.

    Args:
        flags: those of `pyro-rnp train`.
        places: folders of runs, or of their artifacts; the first that has NAME counts. With no
            place at all the minutes are 1.

    Raises:
        FileNotFoundError: if that run has not ended.
    """

    def time(word: str) -> str:
        name = word.partition(AS)[2]
        if not word.startswith(AS) or not places:
            return "1.0" if word.startswith(AS) else word
        ended = [place / name for place in places if Run(place / name, shipped=False).ended]
        if not ended:
            raise FileNotFoundError(f"{name} has not ended, so how long it took is not known.")
        if ended[0] != places[0] / name:
            print(f"As long as {name} took where it was trained, by {ended[0]}.", file=sys.stderr)
        return str(minutes(ended[0]))

    return [time(word) for word in flags]


@dataclass(frozen=True)
class Reproduction:
    """Makes the experiments that are missing."""

    data_root: str | None = None
    """Folder of the data sets; None is ./data."""
    artifacts: Path | None = None
    """Folder of artifacts: it says how long runs took that are not there, and holds classifiers."""

    def make_all(self, experiments: Mapping[str, Sequence[str]], out: Path) -> list[str]:
        """Make experiments, in order; an error in one is printed and does not stop the others.

        Args:
            experiments: flags by name, as of `read_experiments`.
            out: folder of the runs.

        Returns:
            The names of experiments that could not be made.

        Raises:
            Interrupted: if SIGINT or SIGTERM came; the next call goes on from there.
        """
        failed = []
        with interruptible():
            for name, flags in experiments.items():
                try:
                    self.make(out / name, flags)
                except Interrupted:
                    raise
                except Exception as error:
                    if (said := sentence(error)) is None:
                        traceback.print_exc()
                    print(f"{name}: {said or repr(error)}", file=sys.stderr)
                    failed.append(name)
        return failed

    def make(self, folder: Path, flags: Sequence[str]) -> None:
        """Make a run with its figures, a score of a run, or a comparison of transfer.

        A result that is there is kept, unless it was made by other flags or of other weights.

        Args:
            folder: where it goes; the folder's name says which of the three it is.
            flags: its flags, as of `read_experiments`.

        Raises:
            ValueError: if the flags are wrong, or a run that is there was made by others.
            FileNotFoundError: if a run that it needs has not ended.
            Interrupted: if SIGINT or SIGTERM came while training; a checkpoint is saved.
        """
        if folder.name.startswith(TRANSFERS):
            self._transfer(folder, flags)
        elif folder.name.startswith(SCORES):
            self._score(folder, flags)
        else:
            self._run(folder, flags)

    def _transfer(self, folder: Path, flags: Sequence[str]) -> None:
        names = _leading(flags)
        learned = [_ended(folder.with_name(name)) for name in names]
        how: dict[str, Any] = {"asked": [in_configs(flag) for flag in flags]}
        if learned:
            how["weights"] = {run.path.name: run.fingerprint for run in learned}
        if not _made(folder / MADE, how):
            given = _arguments(compare_transfer, flags[len(names) :]) | self._root()
            tune = {"learned": [str(run.path) for run in learned]} if learned else {}
            compare_transfer(**{**given, **tune, "out": str(folder)})
            write_json(folder / MADE, {"made": how})

    def _score(self, folder: Path, flags: Sequence[str]) -> None:
        name, *options = flags
        run = _ended(folder.with_name(name))
        how = {"of": name, "asked": options, "weights": run.fingerprint}
        if not _made(folder / SCORE, how):
            clock = Clock()
            given = _arguments(score_run, options) | self._root()
            scores = score_run(**{**given, "run": str(run.path), "keep": str(folder)})
            write_json(folder / SCORE, {**scores, "made": clock.made(run.path, **how)})

    def _run(self, folder: Path, flags: Sequence[str]) -> None:
        places = [folder.parent, *([] if self.artifacts is None else [self.artifacts])]
        root = [] if self.data_root is None else ["--data-root", self.data_root]
        trained(folder, [*with_minutes(flags, places), *root])
        figures = folder.with_name(f"{folder.name}-figures")
        run = Run(folder, shipped=False)
        how = {"weights": run.fingerprint}
        if run.config.binarize or _made(figures / FIGURE_NUMBERS, how):
            return
        half = figures.with_name(f"{figures.name}{PART}")  # whole or not at all
        for old in (half, figures):
            shutil.rmtree(old, ignore_errors=True)
        data = tested_on(run)
        own = data.partition("-")[0]
        others = tuple(name for name in ACROSS if name != own) if own in ACROSS else ()
        # One for all runs of a data set: they are compared in the same features.
        classifier = (self.artifacts or folder.parent) / f"classifier-{data}.safetensors"
        classifier.parent.mkdir(parents=True, exist_ok=True)
        make_figures(
            run=str(folder),
            data=data if data in SETS else None,
            across=others,
            classifier=str(classifier),
            out=str(half),
            **self._root(),
        )
        half.rename(figures)

    def _root(self) -> dict[str, Any]:
        return {} if self.data_root is None else {"data_root": self.data_root}


def _ended(folder: Path) -> Run:
    """A run that has ended."""
    run = Run(folder, shipped=False)
    if not run.ended:
        raise FileNotFoundError(f"{folder.name} has not ended, so it cannot be scored or tuned.")
    return run


def _made(file: Path, how: dict[str, Any]) -> bool:
    """Whether a result is there that was made so."""
    made = json.loads(file.read_text()).get("made", {}) if file.exists() else {}
    if "asked" in made:  # earlier versions kept the recipes' paths
        made["asked"] = [in_configs(word) for word in made["asked"]]
    return file.exists() and how.items() <= made.items()
