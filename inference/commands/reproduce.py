"""Make the paper's figures and tables again: train, draw, measure, and write one page of it."""

from pathlib import Path

from inference.cli import CONFIGS, add_data_root, bundled, parser
from inference.reproduction.artifacts import collect_artifacts
from inference.reproduction.experiments import Reproduction, read_experiments
from inference.reproduction.report import write_report

REMARKS = CONFIGS.with_name("differences.md")
PAGE = "docs/reproduction/index.md"


def main() -> None:
    """Make the experiments that are missing, and write the page of results."""
    arguments = parser(
        "Make the paper's figures and tables again: train, draw, measure, and write one page.",
        "Results that are there are not made again, so an interrupted reproduction goes on where "
        "it stopped; all of it takes many hours. Beside the page lie the artifacts of the runs, "
        "without their weights; --only_page adds those there are, and writes the page.",
    )
    arguments.add_argument(
        "--runs",
        type=str,
        default="reproduction",
        help="text file of what to run, one a line; NAME: flags of pyro-rnp train; "
        "transfer-NAME: flags of pyro-rnp transfer, in front of them runs above that it is to "
        "tune; score-NAME: a run above and flags of pyro-rnp evaluate; recipes (.yaml) lie "
        "beside the file or come with the package; --minutes as:NAME is as long as another run "
        "took; # begins a comment; reproduction: the package's own list",
    )
    add_data_root(arguments)
    arguments.add_argument("--out", type=str, default="runs/reproduction", help="folder for runs")
    arguments.add_argument(
        "--page",
        type=str | None,
        help="page to write, beside which the artifacts of the runs are kept; by default "
        f"{PAGE} if there is one, as in a checkout of the project, else page/index.md in --out",
    )
    readme = "README whose table of results to write, if it has the two markers"
    arguments.add_argument("--readme", type=str, default="README.md", help=readme)
    arguments.add_argument("--only_page", type=bool, default=False, help="make nothing else")
    args = arguments.parse_args()
    experiments = read_experiments(Path(bundled(args.runs, ".txt")))
    out = Path(args.out)
    page = Path(args.page or (PAGE if Path(PAGE).is_file() else out / "page" / "index.md"))
    making = Reproduction(args.data_root, page.parent)
    failed = [] if args.only_page else making.make_all(experiments, out)
    collect_artifacts(out, page.parent)
    write_report(page, Path(args.readme), REMARKS)
    print(page)
    if failed:
        raise ValueError(f"Not made, for what is said above: {', '.join(failed)}.")
