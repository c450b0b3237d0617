"""Make the paper's figures of a trained model, with numbers beside them."""

from inference.cli import run
from inference.commands.figures import main

if __name__ == "__main__":
    run(main)
