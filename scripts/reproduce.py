"""Make the paper's figures and tables again: train, draw, measure, and write one page of it."""

from pathlib import Path

from inference.cli import add_data_root, parser, run
from inference.plotting import curves_figure
from inference.reproduction.artifacts import keep, prune
from inference.reproduction.experiments import Reproduction, read_experiments
from inference.reproduction.published import AUTHORS
from inference.reproduction.report import CURVES, report
from inference.reproduction.tables import learned
from pyro_rnp.files import write

HERE = Path(__file__).parent


def main() -> None:
    arguments = parser(
        "Make the paper's figures and tables again: train, draw, measure, and write one page.",
        "What is there is not made again, so an interrupted reproduction goes on where it stopped; "
        "all of it takes many hours. docs/reproduction beside the page keeps what runs left but "
        "their weights; --only_page adds what there is, and writes the page.",
    )
    arguments.add_argument(
        "--runs",
        type=str,
        default=str(HERE / "configs" / "reproduction.txt"),
        help="text file of what to run, one a line; NAME: flags of scripts/train.py; "
        "transfer-NAME: flags of scripts/transfer.py, in front of them runs above that it is to "
        "tune; score-NAME: a run above and flags of scripts/evaluate.py; recipes (.yaml) lie "
        "beside the file; --minutes as:NAME is as long as another run took; # begins a comment",
    )
    add_data_root(arguments)
    arguments.add_argument("--out", type=str, default="runs/reproduction", help="folder for runs")
    arguments.add_argument("--page", type=str, default="REPRODUCTION.md", help="page to write")
    arguments.add_argument("--only_page", type=bool, default=False, help="make nothing else")
    args = arguments.parse_args()
    experiments = read_experiments(Path(args.runs))
    page, pictures = Path(args.page), "docs/reproduction"
    kept = page.parent / pictures
    making = Reproduction(args.data_root, kept)
    failed = [] if args.only_page else making.make_all(experiments, Path(args.out))
    kept.mkdir(parents=True, exist_ok=True)
    keep(Path(args.out), kept)
    curves_figure(learned(kept), [*AUTHORS], "squared error of an image", kept / CURVES)
    remarks = HERE.parent / "docs" / "differences.md"
    text = report(kept, pictures, remarks.read_text() if remarks.exists() else "")
    write(page, text.encode())
    prune(kept, text)
    print(page)
    if failed:
        raise ValueError(f"Not made, for what is said above: {', '.join(failed)}.")


if __name__ == "__main__":
    run(main)
