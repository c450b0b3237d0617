"""Command lines from typed configurations and functions, and errors in one sentence."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from inference.allocator import limit_memory, out_of_memory
from inference.interrupt import Interrupted
from inference.objectives import OBJECTIVES
from inference.settings import RATES, TrainConfig
from pyro_rnp import RNPConfig, __version__
from pyro_rnp.checkpoint import find, load_config, shipped
from pyro_rnp.config import PIECES

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def run(main: Callable[[], Any]) -> None:
    """Call `main`; a user's mistake ends it with one sentence and exit status 2.

    SIGINT and, while training, SIGTERM end it with one sentence and 128 plus their number.

    With PYRO_RNP_TRACEBACK set in the environment, the traceback is shown instead. The Python
    file that PYRO_RNP_PIECES names is run before, to add pieces of one's own.
    """
    if os.environ.get("PYRO_RNP_TRACEBACK"):
        _main(main)
        return
    if not torch.cuda.is_available():  # a device's driver reserves far more than it uses
        limit_memory()
    try:
        _main(main)
        return
    except ArgumentError as error:
        print("error:", _line(error), "Try --help.", file=sys.stderr)
    except (ValueError, OSError, OverflowError) as error:
        print("error:", _line(error), file=sys.stderr)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        print(
            "error: Memory is not enough for this; take fewer samples or images, or a smaller "
            "model.",
            file=sys.stderr,
        )
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Parser(ArgumentParser):
    """Values that jsonargparse itself stumbles over are mistakes like others."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().parse_args(*args, **kwargs)
        except (AttributeError, TypeError, LookupError, OverflowError, RecursionError) as error:
            message = f"The command line cannot be read ({_line(error)})."
            raise ArgumentError(None, message) from error


def parser(description: str, epilog: str = "") -> ArgumentParser:
    """A parser that raises its errors, for `run` to say."""
    return _Parser(
        description=description,
        epilog=epilog,
        usage="%(prog)s [options]",
        exit_on_error=False,
        version=f"pyro-rnp {__version__}",
    )


def train_config(args: Sequence[str] | None = None) -> TrainConfig:
    """The configuration that the command line of `scripts/train.py` asks for.

    A field that no flag gives comes from `--config`, else from the run folder to resume, else
    (of the model) from the one to start from, else from the preset.

    Raises:
        jsonargparse.ArgumentError: if the command line is not valid.
        FileNotFoundError: if there is no run folder to resume.
        ValueError: if a value is out of its range.
    """
    arguments = parser(
        "Train a recursive neural program and look at what it makes of images.",
        "The run folder holds config.json, model.safetensors, metrics.json, parse.png, curves/ "
        "(CSV and TensorBoard) and last.ckpt to resume from. --model.prior and all its like may "
        "be written --prior; the defaults shown are those of --preset fast. Pieces take options as "
        "name:option=value,option=value. "
        + " ".join(
            f"{name}: {registry.describe()}."
            for name, registry in {**PIECES, "elbo": OBJECTIVES}.items()
        ),
    )
    arguments.add_argument("--config", action="config", help="YAML file with any of these fields.")
    arguments.add_class_arguments(TrainConfig, skip={"data_root"})
    add_data_root(arguments)
    args = _short(sys.argv[1:] if args is None else args)
    given = arguments.parse_args(args)
    model = RNPConfig.preset(given.preset)
    defaults: dict[str, Any] = {"learning_rate": RATES[given.preset]}
    if given.start is not None:
        model, notes = load_config(find(given.start))
        defaults["preset"] = notes.get("training", {}).get("preset", given.preset)
        defaults["learning_rate"] = RATES[defaults["preset"]]
    if given.resume is not None:
        model, notes = load_config(given.resume)
        defaults |= notes.get("training", {})
        unknown = sorted(set(defaults) - {f.name for f in fields(TrainConfig)})
        if unknown:
            raise ValueError(
                f"The configuration in {given.resume} has unknown fields: {', '.join(unknown)}."
            )
        if given.epochs is not None or given.minutes is not None:  # another duration than before
            defaults |= {"epochs": None, "minutes": None}
    arguments.set_defaults(defaults | {f"model.{k}": v for k, v in model.to_dict().items()})
    values = arguments.instantiate(arguments.parse_args(args))
    del values["config"]
    if values.preset != defaults.get("preset", values.preset):
        raise ValueError(
            f"{given.resume or given.start} is of preset {defaults['preset']}; leave out --preset."
        )
    return TrainConfig(**vars(values))


def _short(args: Sequence[str]) -> list[str]:
    """`--prior x` is `--model.prior x`: fields of the model need no `model.` in front."""
    own = {f.name for f in fields(RNPConfig)} - {f.name for f in fields(TrainConfig)}
    return [
        f"--model.{arg[2:]}" if arg[:2] == "--" and arg[2:].partition("=")[0] in own else arg
        for arg in args
    ]


def add_run(arguments: ArgumentParser) -> None:
    """`run`, the model that a command asks."""
    known = f", or one that comes along: {', '.join(shipped())}" if shipped() else ""
    arguments.add_argument("run", type=str, help=f"run folder of a trained model{known}")


def add_data_root(arguments: ArgumentParser) -> None:
    """`--data-root`, the one flag that people know with a dash; an underscore does too."""
    arguments.add_argument(
        "--data-root",
        "--data_root",
        type=str | None,
        help="Folder laid out as torchvision does it (MNIST/raw/...); what is missing is "
        "downloaded into it. By default ./data",
    )
