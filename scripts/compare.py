"""Train variants of a model one after the other, for equal time, and put them in a table."""

from inference.cli import run
from inference.commands.compare import main

if __name__ == "__main__":
    run(main)
