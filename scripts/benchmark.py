"""Time training, parsing and sampling against other models and the processor's own rate."""

from inference.cli import run
from inference.commands.benchmark import main

if __name__ == "__main__":
    run(main)
