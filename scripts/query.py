"""Query a trained model for the posterior given pixels or parts."""

from inference.cli import run
from inference.commands.query import main

if __name__ == "__main__":
    run(main)
