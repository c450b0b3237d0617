"""What the paper's figures and tables take: runs, pictures and measurements, by other scripts."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from inference.cli import train_config
from inference.outputs import write_json
from inference.reproduction.artifacts import FIGURES, PART, SCORE, SCORES, TRANSFERS, Clock
from inference.reproduction.recipes import RECIPE, in_configs
from inference.reproduction.trainings import finish, trained
from inference.reproduction.transfer import minutes
from inference.run import fingerprint, training_of

AS = "as:"
SCORE_FLAGS = ("particles", "num", "guide", "seed")
"""What `scripts/evaluate.py` can be asked of a run, which is named before the flags."""
ACROSS = ("mnist", "omniglot", "fashion")
"""Data sets that models of these are tried on with nothing tuned, but a model's own."""
MADE = "made.json"


def asked(file: Path) -> dict[str, list[str]]:
    """Names and flags, a line each; recipes lie beside the file.

    Raises:
        FileNotFoundError: if there is no such file.
        jsonargparse.ArgumentError, ValueError: if a line is none, or is not what
            `scripts/train.py` takes.
    """

    def beside(recipe: re.Match[str]) -> str:
        path = os.path.relpath(file.parent / recipe.group())
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
    """Raise unless a line can be made; `runs` are those above it."""
    for before in (word.partition(AS)[2] for word in words if word.startswith(AS)):
        if before not in runs:
            raise ValueError(f"{name} takes the minutes of {before}, which must stand above.")
    if name.startswith(SCORES):
        if not words or words[0] not in runs:
            raise ValueError(f"{name} must name a run that stands above.")
        for flag in words[1:]:
            if not re.fullmatch(f"--({'|'.join(SCORE_FLAGS)})=.+", flag):
                what = ", ".join(f"--{known}=VALUE" for known in SCORE_FLAGS)
                raise ValueError(f"{name} takes {what}; got {flag}.")
    elif name.startswith(TRANSFERS):
        for run in _leading(words):
            if run not in runs:
                raise ValueError(f"{name} tunes {run}, which must stand above.")
        for before, nested in pairwise(words):
            if before in ("--flags", "--tune_flags"):
                train_config(shlex.split(nested))
    else:
        train_config(timed(words, ()))


def _leading(words: Sequence[str]) -> list[str]:
    """Names of runs in front of the flags."""
    return [*takewhile(lambda word: not word.startswith("-"), words)]


def timed(flags: Sequence[str], places: Sequence[Path]) -> list[str]:
    """Flags with the minutes that another run took for `as:NAME`; with 1 where there is no place.

    Args:
        places: folders of runs, or of what is kept of them; the first that has NAME says.

    Raises:
        FileNotFoundError: if that run has not ended.
    """

    def time(word: str) -> str:
        name = word.partition(AS)[2]
        if not word.startswith(AS) or not places:
            return "1.0" if word.startswith(AS) else word
        ended = [place / name for place in places if (place / name / "metrics.json").exists()]
        if not ended:
            raise FileNotFoundError(f"{name} has not ended, so how long it took is not known.")
        if ended[0] != places[0] / name:
            print(f"As long as {name} took where it was trained, by {ended[0]}.", file=sys.stderr)
        return str(minutes(ended[0]))

    return [time(word) for word in flags]


@dataclass(frozen=True)
class Reproduction:
    """Makes what is not there yet."""

    scripts: Path
    """The folder of the commands."""
    data_root: str | None = None
    kept: Path | None = None
    """What is kept beside the page: how long runs took that are not there, and classifiers."""

    def make(self, folder: Path, flags: Sequence[str]) -> None:
        """A run with its figures, a score of one, or a comparison of transfer.

        Figures and scores of other weights than the run's are made anew.

        Raises:
            ValueError: if a command ends otherwise than well.
            FileNotFoundError: if a run that it takes the time or the weights of has not ended.
        """
        root = [] if self.data_root is None else ["--data-root", self.data_root]
        if folder.name.startswith(TRANSFERS):
            names = _leading(flags)
            learned = [self._ended(folder.with_name(name)) for name in names]
            how: dict[str, Any] = {"asked": [in_configs(flag) for flag in flags]}
            if learned:
                how["weights"] = {run.name: fingerprint(run) for run in learned}
            if not _made(folder / MADE, how):
                tune = [f"--learned={json.dumps([str(run) for run in learned])}"] * bool(learned)
                self._run("transfer.py", *tune, *flags[len(names) :], *root, "--out", folder)
                write_json(folder / MADE, {"made": how})
            return
        if folder.name.startswith(SCORES):
            name, *questions = flags
            run = self._ended(folder.with_name(name))
            how = {"of": name, "asked": questions, "weights": fingerprint(run)}
            if not _made(folder / SCORE, how):
                clock = Clock()
                said = self._run("evaluate.py", run, *root, *questions, f"--keep={folder}")
                made = clock.made(run, **how)
                write_json(folder / SCORE, {**json.loads(said), "made": made})
            return
        places = [folder.parent, *([] if self.kept is None else [self.kept])]
        trained(folder, [*timed(flags, places), *root], self.scripts / "train.py")
        how = {"weights": fingerprint(folder)}
        figures = folder.with_name(f"{folder.name}-figures")
        if training_of(folder).binarize or _made(figures / FIGURES, how):
            return
        half = figures.with_name(f"{figures.name}{PART}")  # whole or not at all
        for old in (half, figures):
            shutil.rmtree(old, ignore_errors=True)
        data = training_of(folder).data
        own = data.partition("-")[0]
        others = [name for name in ACROSS if name != own] if own in ACROSS else []
        # One for all runs of a data set: they are compared in the same features.
        classifier = (self.kept or folder.parent) / f"classifier-{data}.safetensors"
        classifier.parent.mkdir(parents=True, exist_ok=True)
        how_to = [f"--across={json.dumps(others)}", f"--classifier={classifier}"]
        self._run("figures.py", folder, *root, *how_to, "--out", half)
        half.rename(figures)

    @staticmethod
    def _ended(run: Path) -> Path:
        """A run, once it has ended."""
        if not (run / "metrics.json").exists():
            raise FileNotFoundError(f"{run.name} has not ended, so it cannot be scored or tuned.")
        return run

    def _run(self, name: str, *arguments: object) -> str:
        """What another script prints; its mistakes are this one's."""
        command = [sys.executable, str(self.scripts / name), *map(str, arguments)]
        ran = finish(command, stdout=subprocess.PIPE)
        if ran.returncode:
            raise ValueError(f"{name} ended with {ran.returncode}; what it said is above.")
        return ran.stdout or ""


def _made(file: Path, how: dict[str, Any]) -> bool:
    """Whether a result is there that was made so."""
    return file.exists() and how.items() <= json.loads(file.read_text()).get("made", {}).items()
