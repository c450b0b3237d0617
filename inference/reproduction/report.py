"""The page of results: the paper's figures and tables, from the artifacts of runs and commands.

Every number is read from their JSON files; a result that is not there yet has no row.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from inference.plotting import curves_figure
from inference.reproduction import tables
from inference.reproduction.artifacts import SETS, ended_runs, figure_results, prune_pictures
from inference.run import Run
from pyro_rnp.checkpoint import SHIPPED, shipped
from pyro_rnp.files import write

CURVES = "curves.png"
"""The picture of squared error by epochs."""
BEGIN, END = "<!-- results -->", "<!-- /results -->"
"""The README's lines around its table of results."""
HEADLINES = {
    "3": "Figure 3: images taken apart",
    "4a": "Figure 4a: the space of programs",
    "4b-z2": "Figure 4b: samples of clusters of image programs",
    "4b-z1": "Figure 4b: samples of clusters of part programs",
    "4c-z2": "Figure 4c: from one cluster of image programs to another",
    "4c-z1": "Figure 4c: from one cluster of part programs to another",
    "5": "Figure 5: samples of the prior",
}

PICTURES = {
    "3": "From top to bottom: the test image; the canvas that the program draws; what it expects "
    "of its parts before they run (level 1 alone); the parts, blue, red, green, orange and, where "
    "there is a fifth, purple in the order in which the program places them; the sub-parts, in the "
    "same order within each part. Lines are the frames of parts.",
    "4a": "Programs of test images and of their parts on a plane (t-SNE). A picture is what the "
    "program nearest to the mean of a cluster draws; numbers are those of the rows below.",
    "4b-z2": "A row a cluster, the largest first, of programs drawn around its mean.",
    "4c-z2": "From the mean of a cluster, left, to that of the next, right.",
    "5": "Drawn from the prior: the canvas, its parts and its sub-parts, coloured as in figure 3.",
}
"""What the pictures of a figure show."""
LEGENDS = {
    "3": "Squared error by the whole program (`sse_level_2`; of a flat VAE `sse_level_0`), and by "
    "what the top program expects of its parts, without running them (`sse_level_1`); the share of "
    "the images' squared intensity that each step of the top program adds; the share of ink that "
    "lies where another part has more (`overlap`). Of all test images. Where they are there, "
    "`sse_blank`, `sse_mean_image` and `explained_mean_image` are of a blank canvas and of the "
    "mean training image.",
    "4a": "Silhouette of images' and parts' programs as two clusters, from -1 to 1; accuracy of a "
    "linear probe that tells one from the other (five folds), and of one that tells the class from "
    "an image's program, learned from training images.",
    "4c-z2": "Largest change from one image to the next along a path over the mean one, mean of "
    "the paths: 1 where all steps are alike, 9 where everything happens at once. z2: images' "
    "programs; z1: parts'; z0: those of a flat VAE.",
    "5": "Fréchet distance, precision and recall of as many samples as test images, in the last "
    "hidden layer of a small classifier, and its accuracy on validation images. `_floor`: what as "
    "many other test images come to in the place of samples. With `--classifier "
    "docs/reproduction/classifier-SET.safetensors` all runs are held against the same features. "
    "A model that learned from turned images is held against turned test images.",
}
"""What the numbers of a figure are."""


def report(artifacts: Path, remarks: str) -> str:
    """Write the page of results.

    Args:
        artifacts: folder of artifacts, as `collect_artifacts` leaves it, in which the page is to
            lie: paths of pictures start there.
        remarks: Markdown for the end of the page.

    Returns:
        The page, as Markdown that MyST reads too.
    """
    shown = partial(_shown, artifacts)
    parts = [
        "# Reproduction",
        "What is in the paper (Fisher and Rao, arXiv 2206.08462), made again by commands, with "
        "numbers; `scripts/reproduce.py --data-root DIR` makes all. Every measured number is read "
        "from what the runs left. Squared error is summed over an image's pixels, of one posterior "
        "sample unless said; KL and bounds are in nats; ± is a standard error over images, not "
        "over seeds. DIR is a folder of data sets as `--data-root` takes it.",
        come_along(artifacts),
        "## Runs",
        "Machines of the same name differ in speed, as images/s of runs of the same kind show.",
        tables.trainings(artifacts),
        "## Beside the authors' published logs",
        "MNIST, 16 numbers a program, 4 by 4 parts, squared error plus 0.2 KL, batches of 64: "
        "squared error after each epoch, of test images theirs, of 1,000 validation images ours; "
        "and of all test images at the end. A flat VAE learns for as many minutes as a recursion "
        "beside it on the same machine (see above), so for more epochs.",
        shown(CURVES, "Squared error of digits by epochs, the authors' and ours"),
        tables.curves(artifacts),
        "Omniglot, 64 numbers a program, 5 by 5 parts: squared error at the end, of characters "
        "learned from (theirs in training, of ours 1,000 drawings that were held out) and of "
        "unseen ones. Where images are turned by quarters too, an epoch has each drawing in all "
        "four turns.",
        tables.characters(artifacts),
    ]
    current = {run for run, _ in figure_results(artifacts)}
    if costs := tables.figure_costs(artifacts):
        parts += [
            "## What the figures took",
            "The first run of a data set trains its classifier too.",
            costs,
        ]
    for figure, headline in HEADLINES.items():
        drawn: list[str] = []
        for name, data in SETS.items():
            flat = {f"{name}-flat": f"{data}, by the flat VAE"} if figure == "5" else {}
            for run, title in {name: data, **flat}.items():
                picture = shown(f"{run}-figures/figure-{figure}.png", title) * (run in current)
                drawn += [f"{title}:", picture] if picture else []
        numbers = tables.figure_numbers(artifacts, figure)
        if drawn or numbers:
            command = f"scripts/figures.py RUN --only {figure[0]} --data-root DIR"
            about = PICTURES.get(figure, "") if drawn else ""
            parts += [f"## {headline}", f"By `{command}`.", about, *drawn]
            parts += [LEGENDS[figure], numbers] if numbers else []
    unseen = [*tables.elsewhere(artifacts, shown), *tables.tuned(artifacts, shown)]
    likelihoods = tables.bounds(artifacts)
    parts += ["## Figure 6: images unlike those learned from", *unseen] if unseen else []
    parts += ["## Likelihood of binarised images", likelihoods] if likelihoods else []
    parts += ["## Where this differs from the paper, and why", remarks.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(artifacts: Path, name: str, title: str) -> str:
    """A picture, if it is there."""
    return f"![{title}]({name})" if (artifacts / name).exists() else ""


def come_along(artifacts: Path) -> str:
    """A sentence that names those of the runs' models that are shipped."""
    metrics = dict(ended_runs(artifacts))
    names = [
        n for n in shipped() if metrics.get(n, {}).get("weights") == Run(SHIPPED / n).fingerprint
    ]
    listed = ", ".join(f"`{name}`" for name in names)
    how = (
        "`pyro_rnp.load` and every command, in the place of RUN, take them by name, and "
        "`pyro_rnp/weights/NAME/README.md` is the card of each"
    )
    return f"Trained models that come with the project: {listed}; {how}." if names else ""


def write_report(page: Path, readme: Path, remarks: Path) -> None:
    """Write the page of results beside its artifacts, and the table of results in the README.

    Pictures that the page does not show are deleted.

    Args:
        page: file of the page; the artifacts are the folders beside it.
        readme: file that takes `results_table` between its two markers, `BEGIN` and `END`; left
            out if there is no such file.
        remarks: Markdown file for the end of the page; left out if there is no such file.

    Raises:
        ValueError: if the README has no markers.
    """
    artifacts = page.parent
    artifacts.mkdir(parents=True, exist_ok=True)
    learned = tables.learned(artifacts)
    curves_figure(learned, [*tables.AUTHORS], "squared error of an image", artifacts / CURVES)
    text = report(artifacts, remarks.read_text() if remarks.exists() else "")
    write(page, text.encode())
    prune_pictures(artifacts, text)
    if readme.exists():
        write(readme, with_results(readme.read_text(), artifacts).encode())


def with_results(text: str, artifacts: Path) -> str:
    """A README's text with the table of results between its markers.

    Args:
        text: the README.
        artifacts: folder of artifacts.

    Raises:
        ValueError: if the text has no markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"The README has no {BEGIN} and {END}, between which the results go.")
    return f"{before}{begin}\n{tables.results_table(artifacts)}\n{end}{after}"
