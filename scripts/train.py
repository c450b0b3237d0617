"""Train a recursive neural program; `--help` lists every field."""

import json

from inference.cli import run, train_config
from inference.training.diagnostics import verdict


def main() -> None:
    config = train_config()
    from inference.training.fit import train  # takes seconds to import

    folder = train(config)
    if folder is None:  # one of several processes; another reports
        return
    text = (folder / "metrics.json").read_text().strip()
    print(f"{folder / 'metrics.json'}, on the test images of {config.data}:\n{text}")
    print(f"Look at the parse: {folder / 'parse.png'}")
    print(verdict(json.loads(text)))


if __name__ == "__main__":
    run(main)
