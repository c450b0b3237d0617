"""Each function returns a figure, draws where it is told, and writes the file of its path."""

import xml.etree.ElementTree as ElementTree

import pytest
import torch
from matplotlib.figure import Figure

from inference.evaluation.part_dictionary import build_dictionary, collect_parts
from inference.plotting import (
    curves_figure,
    dictionary_figure,
    exemplar_figure,
    grid_figure,
    parse_figure,
    posterior_figure,
    scaling_figure,
    space_figure,
)
from inference.posterior import query
from pyro_rnp import RNP
from tests.conftest import tiny

ROW = {"sweep": "levels", "nodes": 3, "ms_per_image": 2.0, "mib_per_image": 1.0}
SIGNATURES = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF"}
GRIDS = ("parse", "posterior", "dictionary", "exemplars", "grid", "scaling")
ONE_AXES = ("space", "curves")


@pytest.fixture(scope="module")
def figures():
    """Each function by name, with small things to draw."""
    torch.manual_seed(0)
    rnp, images = RNP(tiny()).eval(), torch.rand(3, 1, 8, 8)
    tree, posterior = rnp.parse(images), query(rnp, images, method="importance", num_samples=3)
    parts = collect_parts(rnp, images)
    found = build_dictionary(parts, 2)
    plane, kinds = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])
    rows = [{**ROW, "value": value} for value in (1, 2)]
    made = images.unsqueeze(1).expand(-1, 2, -1, -1, -1)
    return {
        "parse": lambda **to: parse_figure(tree, images=images, **to),
        "posterior": lambda **to: posterior_figure(posterior, images=images, **to),
        "dictionary": lambda **to: dictionary_figure(found, parts, members=2, **to),
        "exemplars": lambda **to: exemplar_figure(images, made, **to),
        "grid": lambda **to: grid_figure([("row", images)], **to),
        "scaling": lambda **to: scaling_figure(rows, **to),
        "space": lambda **to: space_figure(plane, kinds, ["a", "b"], [(0, "1", images[0])], **to),
        "curves": lambda **to: curves_figure({"a": {1.0: 2.0, 2.0: 1.0}}, [1, 2], "error", **to),
    }


@pytest.mark.parametrize("name", [*GRIDS, *ONE_AXES])
def test_a_figure_is_returned_and_written(figures, tmp_path, name):
    for suffix, signature in SIGNATURES.items():
        path = tmp_path / f"a{suffix}"
        figure = figures[name](path=path)
        assert isinstance(figure, Figure)
        assert path.read_bytes().startswith(signature)
    assert len([*tmp_path.iterdir()]) == 3
    assert figure._repr_png_().startswith(SIGNATURES[".png"])
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    text = (tmp_path / "a.svg").read_bytes()
    figures[name](path=str(tmp_path / "a.svg"))
    assert (tmp_path / "a.svg").read_bytes() == text, "the same figure is the same file"


@pytest.mark.parametrize("name", [*GRIDS, *ONE_AXES])
def test_a_path_that_cannot_be_written_is_refused_before_drawing(figures, tmp_path, name):
    for path in ("a.jpg", "a", tmp_path / "a.png.part"):
        with pytest.raises(ValueError, match=r"^path must end in .png, .svg, .pdf, got '.*a.*'\.$"):
            figures[name](path=path)
    with pytest.raises(FileNotFoundError, match=r"folder of the picture .*none.* does not exist"):
        figures[name](path=tmp_path / "none" / "a.png")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_is_drawn_into_the_figure_that_it_is_given(figures, tmp_path, name):
    whole = Figure(layout="constrained")
    left, right = whole.subfigures(1, 2)
    assert figures[name](figure=left, path=tmp_path / "whole.svg") is whole
    assert left.axes
    assert not right.axes
    assert set(whole.axes) == set(left.axes)
    assert b"<svg" in (tmp_path / "whole.svg").read_bytes()
    own = Figure()
    assert figures[name](figure=own) is own
    assert own.axes


@pytest.mark.parametrize("name", ONE_AXES)
def test_one_axes_are_drawn_into(figures, name):
    whole = Figure()
    left, right = whole.subplots(1, 2)
    assert figures[name](ax=left) is whole
    assert left.has_data()
    assert not right.has_data()


def test_a_file_stays_as_it_was_where_a_picture_cannot_be_made(figures, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    figures["grid"](path=path)
    before = path.read_bytes()

    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(MemoryError):
        figures["parse"](path=path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
