"""Look at what parts a model knows, how often it uses each, and which are alike."""

from inference.cli import run
from inference.commands.dictionary import main

if __name__ == "__main__":
    run(main)
