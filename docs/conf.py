"""Sphinx's configuration of the documentation, which `make docs` builds into docs/_build.

Numbers of runs stand in a page as substitutions, which the build fills from the JSON files that
the runs left:

    {{ '%.2f' % weights.mnist.test_sse }}                    pyro_rnp/weights/mnist/metrics.json
    {{ weights.mnist.config.program_size }}                  config.json beside it
    {{ weights.mnist.training.epochs }}                      the training in that file
    {{ '%.1f' % reproduction['mnist-seed-1'].test_sse }}     docs/reproduction/mnist-seed-1/*.json
    {{ '%.3f' % reproduction['mnist-figures']['3'].overlap }}
    {{ '%.1f' % benchmarks.pieces['--seed 1'].test_elbo }}   docs/benchmarks/pieces.json, by variant
    {{ '{:,}'.format(weights.mnist.images_seen) }}           1,539,328

A name that no file has is an error, as every other warning is. A substitution is Python's or
Jinja's formatting; the character | is not allowed inside a table. In a cell of code or in a
formula nothing is substituted.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pyro_rnp
from inference.outputs import markdown

HERE = Path(__file__).parent
SCORES = ("val_sse", "val_elbo")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the tutorials, two of which run at a time

project = "pyro-rnp"
author = "the authors of pyro-rnp"
project_copyright = "MIT licence"
release = version = pyro_rnp.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "pyro-rnp"
html_static_path: list[str] = []
html_copy_source = False
html_show_sphinx = False
nitpicky = True

# Pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3
suppress_warnings = ["config.cache"]  # the substitutions are rebuilt each time


def _read(folder: Path) -> dict[str, Any]:
    """The numbers of a run's folder: those of all its JSON files, its configuration apart."""
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        if file.name == "config.json":
            found["config"] = {k: v for k, v in content.items() if k != "training"}
            found["training"] = content.get("training", {})
        elif isinstance(content, dict):
            found |= content
        else:
            found[file.stem] = content
    return found


def _benchmark(file: Path) -> Any:
    """The rows of a benchmark's file, by their variant where they have one."""
    rows = json.loads(file.read_text())
    if isinstance(rows, list) and all(isinstance(row, dict) and "variant" in row for row in rows):
        return {row["variant"]: row for row in rows}
    return rows


def _pieces(rows: dict[str, dict[str, Any]]) -> str:
    """The comparison of pieces as a table: a row a variant, each ± its standard error."""
    columns = {
        "test_elbo": "ELBO",
        "iw_bound": "IW bound, 1,000",
        "elbo": "ELBO, the same",
        "test_sse": "`test_sse`",
        "test_kl": "KL",
        "ms_per_step": "ms a step",
        "images_seen": "images seen",
    }
    lines = []
    for variant, row in rows.items():
        cells = [f"`{variant}`" if variant else "`fast` as it is"]
        for column in columns:
            value, error = row[column], row.get(f"{column}_error")
            cell = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
            cells.append(cell if error is None else f"{cell} ± {error:.1f}")
        lines.append(cells)
    return markdown(["variant", *columns.values()], lines)


def _speed(rows: dict[tuple[str, str, int], dict[str, Any]]) -> str:
    """The measurement of speed as a table: a row for a subject and a batch size."""
    quotients = {"ratio": "ratio", "before": "before", "to_flat": "time over a flat VAE's"}
    shown = {k: v for k, v in quotients.items() if any(r.get(k) for r in rows.values())}
    lines = []
    for what, task, size in rows:
        if task == "train":
            row = rows[what, task, size]
            rates = [rows.get((what, other, size)) for other in ("parse", "sample")]
            lines.append(
                [
                    what,
                    str(size),
                    f"{row['images_per_second']:,.0f}",
                    *(f"{row[k]:.2f}" if row.get(k) else "" for k in shown),
                    f"{row['gflop_per_image']:.3f}",
                    f"{row['roofline']:.0%}",
                    f"{row['peak_gib']:.2f}" if row["peak_gib"] else "",
                    *(f"{rate['images_per_second']:,.0f}" if rate else "" for rate in rates),
                ]
            )
    head = ["", "batch", "training, images/s", *shown.values(), "GFLOP an image"]
    head += ["of the matrix rate", "peak GiB", "parse, images/s", "sample, images/s"]
    return markdown(head, lines)


def _scaling(rows: list[dict[str, Any]]) -> str:
    """How time and memory grow, as a table: a row for each quantity."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        ms, mib = row["ms_per_image"], row["mib_per_image"]
        nodes = f" ({row['nodes']} nodes)" if row["sweep"].startswith(("levels", "parts")) else ""
        lines.setdefault(row["sweep"], []).append(f"{row['value']}{nodes}: {ms:.2f}, {mib:.2f}")
    head = ["growing", "value: ms an image, MiB an image"]
    return markdown(head, [[sweep, "; ".join(cells)] for sweep, cells in lines.items()])


def _factors(rows: list[dict[str, Any]]) -> str:
    """How the forms of generated weights learn, as a table."""
    head = ["flags", "equal", "images", "minutes", "parameters", "squared error", "ELBO"]
    lines = [
        [
            f"`{row['flags']}`",
            row["equal"],
            f"{row['images_seen']:,}",
            f"{row['seconds'] / 60:.1f}" if row["equal"] == "time" else "",
            f"{row['parameters']:,}",
            f"{row['val_sse']:.1f}",
            f"{row['val_elbo']:.1f}",
        ]
        for row in rows
    ]
    return markdown(head, lines)


def _sizes(rows: dict[str, dict[str, Any]]) -> str:
    """The trials of sizes and colours as a table: a row for each training."""
    head = ["images", "channels, size", "parts can cover", "minutes", "training images seen"]
    head += ["test squared error", "of the mean image", "explained"]
    lines = [
        [
            name,
            f"{row['channels']}, {row['image_size']}x{row['image_size']}",
            " and ".join(f"{share:.0%}" for share in row["coverage"]),
            f"{row['minutes']:.1f}",
            f"{row['images_seen']:,}",
            f"{row['test_sse']:.1f} ± {row['test_sse_error']:.1f}",
            f"{row['test_sse_mean_image']:.1f}",
            f"{row['test_explained']:.0%}",
        ]
        for name, row in rows.items()
    ]
    return markdown(head, lines)


def _choices(rows: dict[str, dict[str, Any]]) -> str:
    """The comparisons behind the defaults by size as a table."""
    head = ["images", "choice", "seed", "`val_sse`", "`val_elbo`"]
    lines = [
        [row["data"], row["choice"], str(row["seed"]), *(f"{row[k]:.1f}" for k in SCORES)]
        for row in rows.values()
    ]
    return markdown(head, lines)


def _calibration(rows: dict[str, dict[str, Any]]) -> str:
    """Intervals and ranks on images drawn from the model, as a table: a row for each method."""

    def share(row: dict[str, Any], name: str) -> str:
        if f"{name}_coverage" not in row:
            return ""
        return f"{row[f'{name}_coverage']:.1%} ± {row[f'{name}_coverage_error']:.1%}"

    head = ["method", "images", "trusted", "z, trusted images", "z, all", "hidden pixels, trusted"]
    head += ["hidden pixels, all", "smallest p of ranks"]
    names = ("trusted_z", "z", "trusted_pixels", "pixels")
    lines = [
        [f"`{method}`", str(row["images"]), f"{row['trusted']:.0%}"]
        + [share(row, name) for name in names]
        + [f"{row['smallest_p']:.1g}"]
        for method, row in rows.items()
    ]
    return markdown(head, lines)


def _folders(parent: Path) -> dict[str, Any]:
    return {folder.name: _read(folder) for folder in sorted(parent.iterdir()) if folder.is_dir()}


myst_substitutions = {
    "weights": _folders(Path(pyro_rnp.__file__).parent / "weights"),
    "reproduction": _folders(HERE / "reproduction"),
    "benchmarks": {file.stem: _benchmark(file) for file in (HERE / "benchmarks").glob("*.json")},
    "version": version,
}
myst_substitutions["speed"] = {
    (row["what"], row["task"], row["batch_size"]): row
    for row in myst_substitutions["benchmarks"]["speed"]["rows"]
}
myst_substitutions["speed_table"] = _speed(myst_substitutions["speed"])
myst_substitutions["scaling_table"] = _scaling(myst_substitutions["benchmarks"]["scaling"]["rows"])
myst_substitutions["sizes_table"] = _sizes(myst_substitutions["benchmarks"]["sizes"])
myst_substitutions["choices_table"] = _choices(myst_substitutions["benchmarks"]["sizes-choices"])
myst_substitutions["factors_table"] = _factors(myst_substitutions["benchmarks"]["factors"])
myst_substitutions["pieces_table"] = _pieces(myst_substitutions["benchmarks"]["pieces"])
myst_substitutions["calibration_table"] = _calibration(
    myst_substitutions["benchmarks"]["calibration"]["calibration"]
)

# Tutorials: Markdown with cells of code, which the build runs
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # a tutorial writes files
nb_execution_timeout = 300  # of a cell, on a machine with other work
nb_merge_streams = True
nb_output_stderr = "show"

# Reference, from the docstrings
apidoc_modules = [
    {
        "path": f"../{package}",
        "destination": f"api/{package}",
        "exclude_patterns": ["**/weights/**"],
        "max_depth": 2,
        "separate_modules": True,
        "module_first": True,
    }
    for package in ("pyro_rnp", "inference")
]
apidoc_automodule_options = ["members", "show-inheritance"]
autodoc_default_options = {
    "member-order": "bysource",
    "ignore-module-all": True,
    "exclude-members": "set",  # matplotlib writes it into each class of figures
}
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Source", "params_style")]
# `name` in a docstring is a link where it names a thing of this project, and code elsewhere.
default_role = "py:obj"
nitpick_ignore_regex = [
    ("py:obj", r"(?s).*"),
    ("py:.*", r"(.*\.)?(_\w+|T)"),  # private classes and type variables
    ("py:.*", r"(?!pyro_rnp\.|inference\.).*"),  # torch, pyro and jaxtyping are not fetched
]


def _plain(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Read |z|, `Layer`s and Markdown's tables as they are meant."""
    found: list[str] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and line.endswith("|"):
            if not before.startswith("|"):
                found += [".. list-table::", "   :header-rows: 1", ""]
            cells = [_escaped(cell.strip()) for cell in line.strip("|").split(" | ")]
            if set(line) - set("|- "):
                found += [f"   {'  ' if i else '* '}- {cell}" for i, cell in enumerate(cells)]
        elif line.lstrip().startswith((">>>", "...")):
            found.append(line)
        else:
            found.append(_escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    return re.sub(r"(?<=\w`)(?=\w)", r"\\ ", line.replace("|", r"\|"))


def setup(app: Any) -> None:
    """Hook the functions above into the build."""
    app.connect("autodoc-process-docstring", _plain, priority=900)
