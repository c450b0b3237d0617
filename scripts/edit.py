"""Change parts of parsed images and run the rest of the program."""

from inference.cli import run
from inference.commands.edit import main

if __name__ == "__main__":
    run(main)
