"""Make the paper's figures and tables again: train, draw, measure, and write one page of it."""

from inference.cli import run
from inference.commands.reproduce import main

if __name__ == "__main__":
    run(main)
