"""How well a program language that was learned on some images explains others (Figure 6)."""

from inference.cli import run
from inference.commands.transfer import main

if __name__ == "__main__":
    run(main)
