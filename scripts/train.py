"""Train a recursive neural program; `--help` lists every field."""

from inference.cli import run
from inference.commands.train import main

if __name__ == "__main__":
    run(main)
