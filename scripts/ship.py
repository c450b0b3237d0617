"""Put a trained model among those that come with the project."""

from inference.cli import run
from inference.commands.ship import main

if __name__ == "__main__":
    run(main)
