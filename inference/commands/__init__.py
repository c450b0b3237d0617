"""The commands: `pyro-rnp NAME` and `scripts/NAME.py` both run the `main` of the module NAME.

Importing this package imports none of them, so that `pyro-rnp --help` takes no time.
"""

from __future__ import annotations

import difflib
import sys
from importlib import import_module

COMMANDS = {
    "train": "train a model",
    "evaluate": "score a trained model on a data set",
    "parse": "take image files apart",
    "query": "compute the posterior given some pixels, some parts, or both",
    "explore": "open a page on which one draws, sees the parse, and takes hold of the parts",
    "edit": "change parts of images and draw them anew",
    "sample": "draw images from the prior",
    "dictionary": "sort parts into primitives, and find parts that are alike",
    "oneshot": "classify characters by one example each, and draw new ones",
    "compare": "train variants for equal time, and put them in a table",
    "transfer": "see how a model explains images that it did not learn from",
    "benchmark": "time training, parsing and sampling",
    "figures": "draw the paper's figures of a trained model",
    "reproduce": "make all of the paper's figures and tables",
    "ship": "put a trained model among those that come with the project",
}
"""Names of commands with what each does, in the order of the help."""

USAGE = "usage: pyro-rnp COMMAND [options]"


def main() -> None:
    """Run the installed command `pyro-rnp`, which hands over to the command named first."""
    name, *_ = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        from inference.cli import run  # takes seconds to import

        run(import_module(f"{__name__}.{name}").main)
    elif name in ("--help", "-h"):
        print(USAGE, "Recursive neural programs: images as programs of parts.", sep="\n\n")
        print("\ncommands:", *(f"  {name:12}{does}" for name, does in COMMANDS.items()), sep="\n")
        print("\npyro-rnp COMMAND --help lists the options of a command.")
    elif name == "--version":
        from pyro_rnp import __version__

        print(f"pyro-rnp {__version__}")
    else:
        close = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        print(
            f"error: There is no command {name!r}{hint}; pyro-rnp --help lists them.",
            file=sys.stderr,
        )
        sys.exit(2)
