"""Train a recursive neural program; `--help` lists every field."""

import json

from inference.cli import train_config
from inference.run import Run


def main() -> None:
    """Train by the command line's fields, and print the scores."""
    config = train_config()
    from inference.training import train, verdict  # takes seconds to import

    folder = train(config)
    if folder is None:  # one of several processes; another reports
        return
    trained = Run(folder)
    metrics = trained.metrics or {}
    print(f"{trained.metrics_path}, on the test images of {config.data}:")
    print(json.dumps(metrics, indent=2))
    print(f"Look at the parse: {trained.picture}")
    print(verdict(metrics))
