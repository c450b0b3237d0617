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
    "3": "From top to bottom: the test image; the canvas that the program draws; the program's "
    "expectation of its parts before they run (level 1 alone); the parts, blue, red, green, orange "
    "and, where there is a fifth, purple in the order in which the program places them; the "
    "sub-parts, in the same order within each part. Lines are the frames of parts.",
    "4a": "Programs of test images and of their parts on a plane (t-SNE). A picture is the canvas "
    "of the program nearest to the mean of a cluster; its number is that of the cluster's row in "
    "figure 4b.",
    "4b-z2": "Each row has samples around the mean of one cluster; the largest cluster is first.",
    "4c-z2": "Each row leads from the mean of a cluster, left, to that of the next, right.",
    "5": "Samples of the prior: the canvas, its parts and its sub-parts, coloured as in figure 3.",
}
"""Captions of the pictures of a figure."""
LEGENDS = {
    "3": "All test images of the run's data set. `sse_level_2`: squared error of the whole "
    "program, summed over an image's pixels (of a flat VAE `sse_level_0`); `sse_level_1`: that of "
    "the top program's expectation of its parts, which are not run; `explained_by_step`: the share "
    "of the images' squared intensity that each step of the top program adds; `overlap`: the share "
    "of intensity that lies where another part has more. Where they are there, `sse_blank`, "
    "`sse_mean_image` and `explained_mean_image` are of a blank canvas and of the mean training "
    "image.",
    "4a": "As many test images as the table above says. `silhouette_of_levels`: silhouette of "
    "images' and parts' programs as two clusters, from -1 to 1; `level_probe`: accuracy of a "
    "linear probe that tells one from the other (five folds); `class_probe`: accuracy of a linear "
    "probe of an image's class from its program, fitted to training images.",
    "4c-z2": "The largest change from one image to the next along a path, divided by the mean "
    "change; mean of the paths between clusters of test images: 1 where all steps are alike, 9 "
    "where the whole change is in one step. z2: images' programs; z1: parts' programs; z0: "
    "programs of a flat VAE.",
    "5": "Fréchet distance, precision and recall of samples against as many test images, whose "
    "number the table above has, in the last hidden layer of a small classifier; "
    "`classifier_accuracy` is on validation images. `_floor`: the same scores of as many other "
    "test images in place of samples. With `--classifier "
    "docs/reproduction/classifier-SET.safetensors` all runs of a data set share one classifier. A "
    "model that learned from rotated images is compared with rotated test images.",
}
"""Captions of the numbers of a figure: the columns, the images that they are of and the unit."""


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
        "The results of the paper (Fisher and Rao, arXiv 2206.08462), computed again with this "
        "project. `pyro-rnp reproduce --data-root DIR` makes the whole page, and every measured "
        "number is read from the files that the runs left. Unless a caption says otherwise, "
        "squared error is summed over an image's pixels, of one posterior sample; KL and bounds "
        "are in nats; ± is a standard error over images, not over seeds. In commands, DIR is a "
        "folder of data sets, and RUN is a run's folder or the name of a pretrained model.",
        pretrained(artifacts),
        "## Runs",
        "One run a row, on the test split of its data set: `test_sse`, squared error of one "
        "posterior sample; `at the mean`, squared error at the posterior's centre; KL and ELBO in "
        "nats an image. `minutes` and `images/s` are of training, and `skipped` counts steps that "
        "were not applied. Each command below names the data set (`--data`) and the seed "
        "(`--seed`; 0 where it names none). Machines of the same name differ in speed, as images/s "
        "of runs of the same kind show.",
        tables.trainings(artifacts),
        "## Beside the authors' published logs",
        "MNIST: squared error after each epoch, of test images in the authors' log and of 1,000 "
        "validation images in our runs, and of all test images at the end. Every run has 16 "
        "numbers a program, 4 by 4 parts, a loss of squared error plus 0.2 KL, and batches of 64; "
        "its command and seed are above. With random levels the KL counts the programs and actions "
        "of parts too. A flat VAE trains for as many minutes as an RNP beside it on the same "
        "machine, so for more epochs.",
        shown(CURVES, "Squared error of digits by epochs, the authors' and ours"),
        tables.curves(artifacts),
        "Omniglot: squared error at the end, of characters learned from (training images in the "
        "authors' log, 1,000 validation images in our runs), of alphabets held out of the "
        "background set (1,000 images, where a run was validated on them) and of unseen characters "
        "(all test images, or as many as a row says). Every run has 64 numbers a program and 5 by "
        "5 parts; its command and seed are above. With rotated images, an epoch has each drawing "
        "in all four orientations.",
        tables.characters(artifacts),
    ]
    current = {run for run, _ in figure_results(artifacts)}
    if costs := tables.figure_costs(artifacts):
        parts += [
            "## Cost of the figures",
            "One run a row: the number of test images that figures 4 and 5 are of (figures 3 and 6 "
            "are of all), the seed, and the minutes that `pyro-rnp figures RUN --data-root DIR` "
            "takes. The first run of a data set trains its classifier too.",
            costs,
        ]
    for figure, headline in HEADLINES.items():
        drawn: list[str] = []
        for name, data in SETS.items():
            others = {f"{name}-random": f"{data}, with random levels"} if figure in "35" else {}
            others |= {f"{name}-flat": f"{data}, by the flat VAE"} if figure == "5" else {}
            for run, title in {name: data, **others}.items():
                picture = shown(f"{run}-figures/figure-{figure}.png", title) * (run in current)
                drawn += [f"{title}:", picture] if picture else []
        numbers = tables.figure_numbers(artifacts, figure)
        if drawn or numbers:
            command = f"pyro-rnp figures RUN --only {figure[0]} --data-root DIR"
            about = PICTURES.get(figure, "") if drawn else ""
            parts += [f"## {headline}", f"Command: `{command}`; seed as above.", about, *drawn]
            parts += [LEGENDS[figure], numbers] if numbers else []
    unseen = [*tables.other_sets(artifacts, shown), *tables.tuned(artifacts, shown)]
    likelihoods = tables.bounds(artifacts)
    parts += ["## Figure 6: images unlike those learned from", *unseen] if unseen else []
    parts += ["## Likelihood of binarised images", likelihoods] if likelihoods else []
    parts += ["## Where this differs from the paper, and why", remarks.strip()]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(artifacts: Path, name: str, title: str) -> str:
    """A picture, if it is there."""
    return f"![{title}]({name})" if (artifacts / name).exists() else ""


def pretrained(artifacts: Path) -> str:
    """Return a sentence that names the pretrained models among the runs.

    Args:
        artifacts: folder of artifacts.

    Returns:
        The sentence; an empty string where no run has the weights of a pretrained model.
    """
    metrics = dict(ended_runs(artifacts))
    names = [
        n for n in shipped() if metrics.get(n, {}).get("weights") == Run(SHIPPED / n).fingerprint
    ]
    listed = ", ".join(f"`{name}`" for name in names)
    how = (
        "`pyro_rnp.load` and every command, in the place of RUN, take them by name, and "
        "`pyro_rnp/weights/NAME/README.md` is the card of each"
    )
    return f"Pretrained models of the project: {listed}; {how}." if names else ""


def write_report(page: Path, readme: Path, remarks: Path) -> None:
    """Write the page of results beside its artifacts, and the table of results in the README.

    Pictures that the page does not show are deleted.

    Args:
        page: file of the page; the artifacts are the folders beside it.
        readme: file that takes `results_table` between its two markers, `BEGIN` and `END`; left
            alone if there is no such file, or if it lacks a marker.
        remarks: Markdown file for the end of the page; left out if there is no such file.
    """
    artifacts = page.parent
    artifacts.mkdir(parents=True, exist_ok=True)
    learned = tables.learned(artifacts)
    curves_figure(learned, [*tables.AUTHORS], "squared error of an image", artifacts / CURVES)
    text = report(artifacts, remarks.read_text() if remarks.exists() else "")
    write(page, text.encode())
    prune_pictures(artifacts, text)
    if readme.exists() and has_markers(text := readme.read_text()):
        write(readme, with_results(text, artifacts).encode())


def has_markers(text: str) -> bool:
    """Whether a README's text has both markers of its table of results, in order."""
    return END in text.partition(BEGIN)[2]


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
    if not has_markers(text):
        raise ValueError(f"The README has no {BEGIN} and {END}, between which the results go.")
    return f"{before}{begin}\n{tables.results_table(artifacts)}\n{end}{after}"
