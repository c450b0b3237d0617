"""Train a recursive neural program; `--help` lists every field."""

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from inference.cli import run, train_config
from inference.training import train


def main() -> None:
    folder = train(train_config())
    if getattr(rank_zero_only, "rank", 0) > 0:  # another process reports
        return
    print(f"{folder / 'metrics.json'}:\n{(folder / 'metrics.json').read_text().strip()}")
    print(f"Look at the parse: {folder / 'parse.png'}")


if __name__ == "__main__":
    run(main)
