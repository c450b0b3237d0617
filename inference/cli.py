"""Command lines: the flags of commands, configurations from them, and errors in a sentence."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader, set_parsing_settings
from jsonargparse.typing import PositiveInt
from yaml import YAMLError

from inference.config import LEARNING, RENAMED, TrainConfig, check_shape
from inference.data import MEMORY, image_shape
from inference.data.folder import image_files
from inference.data.image_files import read_images
from inference.objectives import OBJECTIVES
from inference.outputs import PICTURES
from inference.run import Run
from inference.system import Interrupted, limit_memory, out_of_memory
from pyro_rnp import RNPConfig, __version__
from pyro_rnp.arguments import WrongType
from pyro_rnp.checkpoint import shipped
from pyro_rnp.config import PIECES

PROGRAM = "pyro-rnp"
"""The installed command, whose first word is the name of one of `inference.commands`."""
CONFIGS = Path(__file__).parent / "reproduction" / "configs"
"""Files that come with the package: recipes for `--config`, and lists of runs and of variants."""
RECIPES = tuple(sorted(file.stem for file in CONFIGS.glob("*.yaml")))
"""Names that `--config` takes in place of a file."""
PRINT = "--print_config"
"""jsonargparse's flag, which prints what is known when a command line is first read."""
FILE = (
    "YAML file with any of these fields, named as the flags are, or a recipe of the package by its "
    f"name: {', '.join(RECIPES)}; a flag goes before the file, wherever it stands."
)


def command_line() -> tuple[str, list[str]]:
    """Read the command line of this process.

    Returns:
        The command as it was called, `pyro-rnp train` or `train.py`, and the words after it.
    """
    program, *words = sys.argv
    if Path(program).stem == PROGRAM and words:
        return f"{PROGRAM} {words[0]}", words[1:]
    return Path(program).name, words


def bundled(name: str, suffix: str) -> str:
    """Find a file by its path, or one of the package's by its name.

    Args:
        name: a path, or the name of a file in `CONFIGS` with or without its suffix. A file of
            that path goes before one of the package.
        suffix: that of such files, as `.yaml`.

    Returns:
        The path of the file; `name` itself if there is none.

    >>> Path(bundled("one-shot", ".yaml")).name, bundled("no-recipe", ".yaml")
    ('one-shot.yaml', 'no-recipe')
    """
    if not os.path.isfile(name):
        for file in CONFIGS.glob(f"*{suffix}"):
            if name in (file.name, file.stem):
                return str(file)
    return name


def _recipe(name: str) -> str:
    """The path of a file for `--config`, which may be named as a recipe."""
    path = bundled(name, ".yaml")
    if re.fullmatch(r"\w[\w.-]*", path) and not os.path.isfile(path):
        message = f"--config: there is no file and no recipe {path}; recipes: {', '.join(RECIPES)}."
        raise ArgumentError(None, message)
    return path


def run(main: Callable[[], Any]) -> None:
    """Call a command's `main` and turn a user's mistake into one sentence and exit status 2.

    SIGINT and, while training, SIGTERM end the command with one sentence and the exit status 128
    plus their number; a closed pipe, as that of `pyro-rnp evaluate RUN | head -1`, does so without.

    With PYRO_RNP_TRACEBACK set in the environment, the traceback is shown instead. The Python
    file that PYRO_RNP_PIECES names is run before `main`, to register pieces of one's own.

    Args:
        main: takes no arguments; what it returns is ignored.
    """
    if os.environ.get("PYRO_RNP_TRACEBACK"):
        _main(main)
        return
    if not torch.cuda.is_available():  # a device's driver reserves far more than it uses
        limit_memory()
    try:
        _main(main)
        return
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains at its end
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        said = sentence(error)
        if said is None:
            raise
        print("error:", said, file=sys.stderr)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # Threads of a group that has lost a process may abort an orderly end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)
    sys.exit(2)


def _main(main: Callable[[], Any]) -> None:
    if own := os.environ.get("PYRO_RNP_PIECES"):
        try:
            runpy.run_path(own)
        except Exception as error:
            if os.environ.get("PYRO_RNP_TRACEBACK"):
                raise
            raise ValueError(
                f"{own}, which PYRO_RNP_PIECES names, does not run: {type(error).__name__}: {error}"
            ) from error
    main()


def sentence(error: Exception) -> str | None:
    """One sentence that tells a user about an error, or None where the code is at fault."""
    if isinstance(error, ArgumentError):
        return f"{_mistake(_line(error))} Try --help."
    if isinstance(error, ValueError | OSError | OverflowError | WrongType):
        return _line(error)
    if out_of_memory(error):
        return "Memory is not enough for this; take fewer samples or images, or a smaller model."
    return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


POSITIVE = {"PositiveInt": "a whole number above 0", "PositiveFloat": "a number above 0"}
KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def _mistake(text: str) -> str:
    """Return jsonargparse's message on one value as a short sentence; others as they are.

    >>> _mistake('Parser key "config": File does not exist: None')
    'Parser key "config": File does not exist: None'
    >>> _mistake("unrecognized arguments: --epocs")
    'unrecognized arguments: --epocs.'
    """
    key = re.match(r'Parser key "([^"]+)": ', text)
    if key is None:
        return text if text.endswith(".") else f"{text}."
    choices = re.search(r"typing\.Literal\[([^\]]*)\]", text)
    kinds = [KINDS[k] for k in re.findall(r"Expected a <class '(\w+)'>", text) if k in KINDS]
    value = re.search(r"(?:Given|Got) value: (.*?)(?: - Expected a .*)?$", text)
    missing = re.search(r"File does not exist: '([^']*)'", text)
    if missing is not None:
        return f"--{key[1]}: the file {missing[1]} does not exist."
    if choices is not None and value is not None:
        switch = "true, false, " if "<class 'bool'>" in text else ""
        names = switch + choices[1].replace("'", "")
        return f"--{key[1]} must be one of {names}, got {value[1]}."
    positive = re.search(r"Not of type (Positive\w+)", text)
    given = value or re.search(r"(?:: '|: )([^':]+?)(?:'$| does not conform)", text)
    if positive is not None and positive[1] in POSITIVE and given is not None:
        return f"--{key[1]} must be {POSITIVE[positive[1]]}, got {given[1]}."
    if kinds and value is not None:
        return f"--{key[1]} must be {' or '.join(kinds)}, got {value[1]}."
    return text


class _Parser(ArgumentParser):
    """A parser that knows short and former names, reads lists as people write them, and raises
    all mistakes as `ArgumentError`.

    A list may be written `4,4`, `4 4`, `[4,4]` or `(4,4)`, on the command line and in a file.
    """

    short: Mapping[str, str] = {}
    """Other names of fields, in a file and as flags."""
    renamed: Mapping[str, str] = {}
    """Former names of fields to present ones; a former name still works, with a note on stderr."""
    in_text: Set[str] = frozenset()
    """Fields that hold a list as a text with commas."""
    noted: Set[str] = frozenset()
    """Former names that have had their note."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        given, *more = args or [None]
        words = self._written(command_line()[1] if given is None else given)
        try:
            return super().parse_args(words, *more, **kwargs)
        except (AttributeError, TypeError, LookupError, OverflowError, RecursionError) as error:
            message = f"The command line cannot be read ({_line(error)})."
            raise ArgumentError(None, message) from error
        except ArgumentError as error:
            unknown = re.search(r"unrecognized arguments: --([\w.]+)", str(error))
            known = [o[2:] for action in self._actions for o in action.option_strings]
            near = get_close_matches(unknown[1], [*known, *self.short], 1) if unknown else []
            if not unknown or not near:
                raise
            message = f"There is no --{unknown[1]} (did you mean --{near[0]}?)."
            raise ArgumentError(None, message) from error

    def parse_string(self, content: str, *more: Any, **kwargs: Any) -> Any:
        """A configuration file's text; jsonargparse calls it for `--config`."""
        with suppress(YAMLError):  # which is said below
            found = get_loader("yaml")(content)
            if not isinstance(found, dict):
                raise ValueError("A --config file holds fields with their values, as epochs: 3.")
            fields: dict[str, Any] = {}
            for name, value in self._fields(found):
                if name in fields:
                    raise ValueError(f"The --config file gives {name} twice; give it once.")
                fields[name] = value
            content = json.dumps(fields)
        return super().parse_string(content, *more, **kwargs)

    def _written(self, args: Sequence[str]) -> list[str]:
        """Files first, since what stands later counts, then words that belong to no flag, which
        argparse only finds together; full names; lists as YAML writes them.
        """
        files: list[str] = []
        plain: list[str] = []
        words: list[str] = []
        given: set[str] = set()
        several = {action.dest for action in self._actions if action.nargs in ("*", "+")}
        needed = [action.nargs for action in self._actions if not action.option_strings]
        left = math.inf if "+" in needed or "*" in needed else len(needed)
        queue = deque(args)
        while queue:
            arg = queue.popleft()
            flag, equals, value = arg.partition("=")
            if flag[:2] != "--":
                plain.append(arg)
                left -= 1
                continue
            name = self._full(flag[2:])
            if name in given and name in several:
                message = f"--{name} stands twice; write all its values after one: --{name} A B."
                raise ArgumentError(None, message)
            given.add(name)
            values = [value] if equals else []
            a_list = name in self._lists() or name in self.in_text
            while queue and queue[0][:2] != "--":
                if values and name not in several:
                    free = not equals and (left <= 0 or _numbers([*values, queue[0]]))
                    if not (a_list and (free or _open(values))):
                        break
                values.append(queue.popleft())  # of --steps 4 4 the shell makes three words
            if name == "config" and self._takes_files() and values:
                files.append(f"--config={_recipe(values[0])}")
            elif a_list and values:
                text = ",".join(v.rstrip(",") for v in values) if values[1:] else values[0]
                words.append(f"--{name}={self._as_list(name, text)}")
            else:
                words += [f"--{name}{equals}{value}", *values[bool(equals) :]]
        return files + plain + words

    def _as_list(self, name: str, text: str) -> str:
        """A list as its field takes it."""
        return _in_text(text) if name in self.in_text else _list(text)

    def _full(self, name: str) -> str:
        """The present, full name of a field."""
        if name in self.renamed:
            former, name = name, self.renamed[name]
            if former not in self.noted:
                print(f"note: {former} is called {name} now; use that name.", file=sys.stderr)
            self.noted = {*self.noted, former}
        return self.short.get(name, name)

    def _takes_files(self) -> bool:
        """Whether `--config` is a flag of its own; elsewhere it may begin another flag's value."""
        return any("--config" in action.option_strings for action in self._actions)

    def _fields(self, found: dict[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
        """The fields of a file with their full names, and lists as YAML writes them."""
        for key, value in found.items():
            name = f"{under}{key if under else self._full(key)}"
            if isinstance(value, dict):
                yield from self._fields(value, f"{name}.")
            elif name in self._lists():
                one = value[0] if isinstance(value, list) and len(value) == 1 else value
                yield name, _list(str(one)) if isinstance(one, str | int) else value
            elif name in self.in_text and isinstance(value, str | int | list):
                yield name, _in_text(str(value).replace("'", ""))
            else:
                yield name, value

    def _lists(self) -> set[str]:
        """The names of all that take a list."""
        return {
            option.removeprefix("--")
            for action in self._actions
            for option in action.option_strings
            if any(
                get_origin(kind) in (list, tuple)
                for hint in [getattr(action, "_typehint", None)]
                for kind in (hint, *get_args(hint))
            )
        }


def _list(text: str) -> str:
    """A list as YAML writes it.

    >>> _list("4,4"), _list("(4, 4)"), _list("[4 4]"), _list("mnist,fast"), _list("null")
    ('[4,4]', '[4,4]', '[4,4]', '["mnist","fast"]', 'null')
    """
    bracketed = re.fullmatch(r"\((.*)\)|\[(.*)\]", text.strip(), re.DOTALL)
    inner = (bracketed[1] or bracketed[2] or "" if bracketed else text).strip(" ,")
    if re.search(r"[\[\](){}\"]|^'|'$", inner) or (not bracketed and inner in ("", "null")):
        return text  # as YAML or JSON writes it, or a mistake
    if _numbers(numbers := inner.replace(",", " ").split()):
        return f"[{','.join(numbers)}]"
    one = "," in inner or (not bracketed and os.path.exists(inner))  # a path may have spaces
    words = inner.split(",") if one else inner.split()
    return json.dumps([word.strip() for word in words], separators=(",", ":"))


def _in_text(text: str) -> str:
    """A list as a text with commas; Lightning reads 0, as the device of that number.

    >>> _in_text("(both, none)"), _in_text("[0 1]"), _in_text("[0]"), _in_text("2")
    ('both,none', '0,1', '0,', '2')
    """
    words = re.split(r"[\s,]+", text.strip(" ,()[]"))
    single = _numbers(words[:1]) and len(words) == 1 and text.strip()[-1:] in (")", "]", ",")
    return ",".join(words) + ("," if single else "")


def _numbers(words: Sequence[str]) -> bool:
    return all(re.fullmatch(r"[-+]?\d+,?", word) for word in words)


def _open(words: Sequence[str]) -> bool:
    """Whether words begin a list in brackets that they do not end."""
    return words[0][:1] in ("(", "[") and words[-1][-1:] not in (")", "]")


def parser(description: str, epilog: str = "") -> _Parser:
    """Make a parser that raises its errors, which `run` turns into a sentence.

    Args:
        description: what the command does.
        epilog: what the command leaves, how to read its output, and examples.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return _Parser(
        description=description,
        epilog=epilog,
        prog=command_line()[0],
        usage="%(prog)s [options]",
        exit_on_error=False,
        allow_abbrev=False,
        version=__version__,
    )


def train_config(args: Sequence[str] | None = None) -> TrainConfig:
    """Read the configuration of a training from a command line, as `pyro-rnp train` takes it.

    A field that no flag gives comes from `--config`, else from the run folder to resume, else
    (of the model and its images) from the one to start from, else from the preset.

    Args:
        args: the words of the command line; None takes those of the process.

    Raises:
        jsonargparse.ArgumentError: if the command line is not valid.
        FileNotFoundError: if there is no run folder to resume.
        ValueError: if a value is out of its range.
    """
    arguments = parser(
        "Train a recursive neural program and look at what it makes of images.",
        "The run folder holds config.json, model.safetensors, metrics.json, parse.png, curves/ "
        "(CSV and TensorBoard) and last.ckpt to resume from. --model.prior and all its like may "
        "be written --prior, and lists 4,4; the defaults shown are those of --preset fast. Pieces "
        "take options as name:option=value,option=value. "
        + " ".join(
            f"{name}: {registry.describe()}."
            for name, registry in {**PIECES, "elbo": OBJECTIVES}.items()
        ),
    )
    arguments.add_argument("--config", action="config", help=FILE)
    arguments.add_class_arguments(TrainConfig, skip={"data_root"})
    add_data_root(arguments)
    own = {f.name for f in fields(RNPConfig)} - {f.name for f in fields(TrainConfig)}
    arguments.short = {name: f"model.{name}" for name in own}
    arguments.in_text = {"devices", "model.stochastic"}
    arguments.renamed = RENAMED
    args = command_line()[1] if args is None else args
    plain = [arg for arg in args if arg.partition("=")[0] != PRINT]
    given = arguments.parse_args(plain)
    unset = arguments.parse_args(plain, defaults=False)
    model_flags = vars(unset.get("model", Namespace()))
    defaults = _defaults(given, model_flags)
    if given.start is not None or given.resume is not None:
        try:
            arguments.parse_object(defaults)
        except ArgumentError as error:
            raise ValueError(
                f"The configuration in {given.resume or given.start} cannot be read: {_line(error)}"
            ) from error
    arguments.set_defaults(defaults)
    values = arguments.instantiate(arguments.parse_args(plain))
    del values["config"]
    if values.preset != defaults.get("preset", values.preset):
        raise ValueError(
            f"{given.resume or given.start} is of preset {defaults['preset']}; leave out --preset."
        )
    config = TrainConfig(**vars(values))
    sized = {"image_size", "channels"} & model_flags.keys()
    if sized and config.start is None and config.resume is None and config.data != MEMORY:
        check_shape(config.data, _shape(config), config.model)
    if len(plain) < len(args):  # now that preset, start and resume have said the rest
        arguments.parse_args(args)
    return config


READING = ("data", "data_root", "size", "channels", "invert", "binarize")
"""Fields that say which images are read and how; a run that starts from another has its own."""


def _shape(given: Any) -> tuple[int, int, int]:
    return image_shape(given.data, given.data_root, given.size, given.channels)


def _defaults(given: Any, model_flags: Mapping[str, Any]) -> dict[str, Any]:
    """Give the default of each field: from the run to resume or to start from, or the preset.

    Args:
        given: the command line, read with any defaults.
        model_flags: the fields of the model that the command line gives.

    Raises:
        FileNotFoundError, ValueError: as `Run.model_config`; ValueError also if the run has fields
            that there are not.
    """
    found: dict[str, Any] = dict(LEARNING[given.preset])
    if given.resume is not None:
        run = Run(given.resume, shipped=False)
        model = run.model_config
        found |= run.training
        unknown = sorted(set(found) - {f.name for f in fields(TrainConfig)})
        if unknown:
            raise ValueError(
                f"The configuration in {given.resume} has unknown fields: {', '.join(unknown)}."
            )
        if given.epochs is not None or given.minutes is not None:  # another duration than before
            found |= {"epochs": None, "minutes": None}
    elif given.start is not None:
        run = Run(given.start)
        model = run.model_config
        preset = run.training.get("preset", given.preset)
        unset = dict.fromkeys(found)  # a wrong preset is told below
        found |= {"preset": preset} | LEARNING.get(str(preset), unset)
        found |= {name: run.training[name] for name in READING if name in run.training}
    elif given.data == MEMORY:
        model = RNPConfig.preset(given.preset)
    else:
        channels, size, _ = _shape(given)
        steps = {k: tuple(v) for k, v in model_flags.items() if k == "steps"}
        model = RNPConfig.for_images(size, channels, given.preset, **steps)
        model = replace(model, steps=RNPConfig.preset(given.preset).steps)  # the flag says others
    return found | {f"model.{k}": v for k, v in model.to_dict().items()}


def add_run(arguments: ArgumentParser) -> None:
    """Add the argument `run`: a run folder, or the name of shipped weights."""
    known = f", or of shipped weights: {', '.join(shipped())}" if shipped() else ""
    arguments.add_argument("run", type=str, help=f"run folder of a trained model{known}")


def add_data_root(arguments: ArgumentParser) -> None:
    """Add `--data-root`, the one flag that people know with a dash; an underscore works too."""
    arguments.add_argument(
        "--data-root",
        "--data_root",
        type=str | None,
        help="Folder laid out as torchvision does it (MNIST/raw/...); what is missing is "
        "downloaded into it. By default ./data",
    )


def add_reading(arguments: ArgumentParser) -> None:
    """Add `--resize`, `--invert` and `--binarize`, which say how image files are read."""
    arguments.add_argument(
        "--resize",
        type=bool | None,
        help="scale image files to the size that the model reads; one that is no square gets "
        "margins first, of its border's median. By default where the images of training were "
        "scaled (--size); else files of another size are refused",
    )
    arguments.add_argument(
        "--invert",
        type=bool | Literal["auto"] | None,
        help="swap dark and light of image files, for dark ink on light paper: true swaps all, "
        "false none, auto each file whose border is light (its median above one half), which a "
        "line names. By default as in training, where that swapped all images or none; else auto",
    )
    arguments.add_argument(
        "--binarize",
        type=bool,
        default=False,
        help="make pixels of image files 0 or 1, from one half on",
    )


def reading(args: Any) -> dict[str, Any]:
    """Give the flags of `add_reading` as arguments of `inference.data.image_files.read_images`.

    Where a flag is not given, files are read as the images that the run learned from.
    """
    run = Run(args.run)
    resize = run.training.get("size") is not None if args.resize is None else args.resize
    invert = run.inverted if args.invert is None else args.invert
    return {"resize": resize, "invert": invert, "binarize": args.binarize}


def add_out(arguments: ArgumentParser, default: str) -> None:
    """Add `--out`, a new folder, and `--format`, the kind of the pictures in it.

    Args:
        arguments: the command's parser, which gets the flags.
        default: name of the folder.
    """
    arguments.add_argument("--out", type=str, default=default, help="folder to make")
    kinds = Literal[tuple(suffix[1:] for suffix in PICTURES)]
    arguments.add_argument("--format", type=kinds, default="png", help="of its pictures")


def add_images(arguments: ArgumentParser, num: int = 8, name: str = "--images") -> None:
    """Add the flags that choose images: `--images`, or `--data`, `--data-root` and `--num`.

    Args:
        arguments: the command's parser, which gets the flags.
        num: default of `--num`, the number of test images.
        name: `--images`, or `images` for files without a flag in front.
    """
    arguments.add_argument(
        name, type=str, nargs="*", default=[], help="image files, or folders of them"
    )
    add_reading(arguments)
    arguments.add_argument(
        "--data",
        type=str | None,
        help="a data set to ask about instead; by default, where images are needed, the run's own",
    )
    arguments.add_argument(
        "--num", type=PositiveInt, default=num, help="how many of its test images"
    )
    add_data_root(arguments)


def named_images(args: Any) -> list[str]:
    """The names of the images that the flags choose, for messages: files, or `image 3 of DATA`.

    Args:
        args: the parsed command line, with `images`, and where these are empty `data` and `num`.

    Raises:
        ValueError: if a folder holds no image files.
    """
    if not args.images:
        return [f"image {i} of {args.data or 'the run'}" for i in range(args.num)]
    return [name for given in args.images for name in image_files(given)]


def chosen_images(args: Any, config: RNPConfig, needed: bool = False) -> Any:
    """Read the images that the flags of `add_images` choose.

    Args:
        args: the parsed command line.
        config: the model's, for the size and the channels of image files.
        needed: whether to take the run's own test images where the flags choose none.

    Returns:
        Images (N, C, H, W) in [0, 1]; None if the flags choose none, and none are needed.

    Raises:
        FileNotFoundError, ValueError: if an image cannot be read, or there is no such data set.
    """
    if args.images and args.data is not None:
        raise ValueError("Give image files or --data, not both.")
    if args.images:
        return read_images(named_images(args), config, **reading(args))
    if args.resize is not None or args.invert is not None or args.binarize:
        raise ValueError(
            "--resize, --invert and --binarize say how image files are read; give files, as a data "
            "set is read as in training."
        )
    if args.data is None and not needed:
        return None
    return Run(args.run).data(args.data, args.data_root).test[: args.num].images
