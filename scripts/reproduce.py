"""Make the paper's figures and tables again: train, draw, measure, and write one page of it."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from jsonargparse.typing import PositiveInt

from inference.cli import add_data_root, parser, run, train_config
from inference.outputs import write_json
from inference.recipe import training_of
from inference.report import report
from inference.runs import trained

HERE = Path(__file__).parent


def main() -> None:
    arguments = parser(
        "Make the paper's figures and tables again: train, draw, measure, and write one page.",
        "What is there is not made again, so an interrupted reproduction goes on where it stopped; "
        "all of it takes many hours. --only_page writes the page from what there is.",
    )
    arguments.add_argument(
        "--runs",
        type=str,
        default=str(HERE / "configs" / "reproduction.txt"),
        help="text file of what to run, one a line: NAME: flags of scripts/train.py, or of "
        "scripts/transfer.py where NAME begins with transfer-; recipes lie beside the file; # "
        "begins a comment",
    )
    add_data_root(arguments)
    arguments.add_argument("--out", type=str, default="runs/reproduction", help="folder for runs")
    arguments.add_argument("--page", type=str, default="REPRODUCTION.md", help="page to write")
    arguments.add_argument("--only_page", type=bool, default=False, help="make nothing else")
    arguments.add_argument("--particles", type=PositiveInt, default=5000, help="of the IW bound")
    arguments.add_argument("--num", type=PositiveInt, default=1000, help="test images for it")
    args = arguments.parse_args()
    wanted = runs(Path(args.runs))
    for name, flags in wanted.items():  # a mistake in the last line is told before the first run
        if not name.startswith("transfer-"):
            train_config(flags)
    for name, flags in {} if args.only_page else wanted.items():
        make(Path(args.out) / name, flags, args)
    page, remarks = Path(args.page), HERE.parent / "docs" / "differences.md"
    text = remarks.read_text() if remarks.exists() else ""
    report(Path(args.out), page, page.parent / "docs" / "reproduction", text)
    print(page)


def runs(file: Path) -> dict[str, list[str]]:
    """Names and flags, a line each; recipes (.yaml) lie beside the file."""
    found = {}
    for line in file.read_text().splitlines():
        name, colon, flags = line.partition("#")[0].partition(":")
        if colon:
            words = shlex.split(flags)
            found[name] = [str(file.parent / w) if w.endswith(".yaml") else w for w in words]
    return found


def make(folder: Path, flags: list[str], args) -> None:
    """One line of the file: a run with its figures or its bound, or a comparison of transfer."""
    root = [] if args.data_root is None else ["--data-root", args.data_root]
    if folder.name.startswith("transfer-"):
        if not (folder / "transfer.json").exists():
            script("transfer.py", *flags, *root, "--out", folder)
        return
    trained(folder, [*flags, *root], HERE / "train.py")
    if not training_of(folder).binarize:
        figures = folder.with_name(f"{folder.name}-figures")
        if not figures.exists():  # made whole or not at all
            half = figures.with_name(f"{figures.name}.part")
            shutil.rmtree(half, ignore_errors=True)
            script("figures.py", folder, *root, "--out", half)
            half.rename(figures)
        return
    bound, how = folder / "bound.json", {"particles": args.particles, "num": args.num}
    if not bound.exists() or not how.items() <= json.loads(bound.read_text()).items():
        flags = [f"--{name}={value}" for name, value in how.items()]
        write_json(bound, json.loads(script("evaluate.py", folder, *root, *flags)) | how)


def script(name: str, *arguments: object) -> str:
    """What another script prints; its mistakes are this one's."""
    ran = subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise ValueError(f"{name} ended with {ran.returncode}; what it said is above.")
    return ran.stdout


if __name__ == "__main__":
    run(main)
