"""Make the paper's figures and tables again: train, draw, measure, and write one page of it."""

from pathlib import Path

from inference.cli import add_data_root, parser, run
from inference.reproduction.artifacts import collect_artifacts
from inference.reproduction.experiments import Reproduction, read_experiments
from inference.reproduction.report import write_report

HERE = Path(__file__).parent


def main() -> None:
    arguments = parser(
        "Make the paper's figures and tables again: train, draw, measure, and write one page.",
        "Results that are there are not made again, so an interrupted reproduction goes on where "
        "it stopped; all of it takes many hours. Beside the page lie the artifacts of the runs, "
        "without their weights; --only_page adds those there are, and writes the page.",
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
    page = "page to write; docs/reproduction is also where the artifacts of the runs are kept"
    arguments.add_argument("--page", type=str, default="docs/reproduction/index.md", help=page)
    readme = "README whose table of results to write, if it has the two markers"
    arguments.add_argument("--readme", type=str, default="README.md", help=readme)
    arguments.add_argument("--only_page", type=bool, default=False, help="make nothing else")
    args = arguments.parse_args()
    experiments = read_experiments(Path(args.runs))
    out, page = Path(args.out), Path(args.page)
    making = Reproduction(args.data_root, page.parent)
    failed = [] if args.only_page else making.make_all(experiments, out)
    collect_artifacts(out, page.parent)
    write_report(page, Path(args.readme), HERE.parent / "docs" / "differences.md")
    print(page)
    if failed:
        raise ValueError(f"Not made, for what is said above: {', '.join(failed)}.")


if __name__ == "__main__":
    run(main)
