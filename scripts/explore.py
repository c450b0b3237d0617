"""Open a page on which one draws, sees the parse, and takes hold of the parts."""

from inference.cli import run
from inference.commands.explore import main

if __name__ == "__main__":
    run(main)
