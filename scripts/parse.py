"""Take image files apart."""

from inference.cli import run
from inference.commands.parse import main

if __name__ == "__main__":
    run(main)
