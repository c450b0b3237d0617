"""Train a recursive neural program; `--help` lists every field."""

from inference.cli import run, train_config


def main() -> None:
    config = train_config()
    from inference.training import train  # takes seconds to import

    folder = train(config)
    if folder is None:  # one of several processes; another reports
        return
    metrics = folder / "metrics.json"
    print(f"{metrics}, on the test images of {config.data}:\n{metrics.read_text().strip()}")
    print(f"Look at the parse: {folder / 'parse.png'}")


if __name__ == "__main__":
    run(main)
