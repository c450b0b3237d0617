"""Draw images from the prior of a trained model."""

from inference.cli import run
from inference.commands.sample import main

if __name__ == "__main__":
    run(main)
