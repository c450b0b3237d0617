"""Open a page on which one draws, sees the parse, and takes hold of the parts."""

from inference.cli import add_data_root, parser
from inference.explore import need_nicegui, serve
from inference.explore.server import listen
from inference.explore.shelf import Shelf
from pyro_rnp.checkpoint import shipped


def main() -> None:
    """Serve the page until the command is stopped."""
    arguments = parser(
        "Open a page on which one draws, sees the parse, and takes hold of the parts.",
        "Draw with mouse, pen or finger, drop an image file, or take test images one after "
        "another; drag the frames of parts, hide a region and see its posterior, and take away "
        "pictures, JSON, and the Python lines that give the same. The page needs no network and "
        "listens on this machine alone. With another --host it asks for a password: that of the "
        "environment variable PYRO_RNP_PASSWORD, else one that the command prints. From afar, an "
        "SSH tunnel is safer: ssh -L 8080:127.0.0.1:8080 MACHINE. It needs NiceGUI: pip install "
        "'pyro-rnp[explore]'. Examples: pyro-rnp explore; pyro-rnp explore RUN --data mnist "
        "--data-root DIR --port 8000 --open false.",
    )
    arguments.add_argument(
        "run", type=str, nargs="?", default="mnist", help="run folder of a trained model, or of "
        f"shipped weights: {', '.join(shipped())}; the page can change to others"
    )  # fmt: skip
    arguments.add_argument("--host", type=str, default="127.0.0.1", help="address to listen on")
    arguments.add_argument("--port", type=int, default=8080, help="port; 0 for any free one")
    arguments.add_argument("--open", type=bool, default=True, help="whether to open a browser")
    arguments.add_argument(
        "--data", type=str | None, help="a data set whose test images the page has; by default "
        "the one that the model learned from, where it needs no download, else digits"
    )  # fmt: skip
    add_data_root(arguments)
    args = arguments.parse_args()
    need_nicegui()
    listen(args.host, args.port).close()  # a port that is taken is told before a model is loaded
    serve(Shelf(args.run, None, args.data, args.data_root), args.host, args.port, args.open)
