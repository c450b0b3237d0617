"""Tell characters apart by one example each, and draw more of one that is given."""

from inference.cli import run
from inference.commands.oneshot import main

if __name__ == "__main__":
    run(main)
