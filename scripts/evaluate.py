"""Score a trained model on a data set."""

from inference.cli import run
from inference.commands.evaluate import main

if __name__ == "__main__":
    run(main)
