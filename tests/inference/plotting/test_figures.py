"""Each function returns a figure, draws where it is told, and writes the file of its path."""

import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from inference.evaluation.part_dictionary import build_dictionary, collect_parts
from inference.plotting import (
    curves_figure,
    dictionary_figure,
    exemplar_figure,
    grid_figure,
    parse_figure,
    posterior_figure,
    program_figure,
    scaling_figure,
    space_figure,
)
from inference.posterior import Posterior, query
from pyro_rnp import RNP
from tests.conftest import tiny

ROW = {"sweep": "levels", "nodes": 3, "ms_per_image": 2.0, "mib_per_image": 1.0}
SIGNATURES = {".png": b"\x89PNG\r\n", ".svg": b"<?xml", ".pdf": b"%PDF"}
TILES = ("parse", "program", "posterior", "dictionary", "exemplars", "grid")
GRIDS = (*TILES, "scaling")
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
        "program": lambda **to: program_figure(tree, images=images, **to),
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


@pytest.mark.parametrize("name", [*TILES, *ONE_AXES])
def test_one_axes_are_drawn_into(figures, name):
    whole = Figure()
    left, right = whole.subplots(1, 2)
    assert figures[name](ax=left) is whole
    assert left.has_data()
    assert not right.has_data()
    assert set(whole.axes) <= {left, right, *left.child_axes}


def test_tiles_go_into_a_figure_or_into_axes(figures):
    whole = Figure()
    with pytest.raises(ValueError, match="Give figure or ax to draw into, not both"):
        figures["program"](figure=whole, ax=whole.subplots())


@pytest.mark.parametrize("name", TILES)
def test_the_names_and_the_key_are_beside_the_tiles_of_axes(figures, name):
    whole = Figure(figsize=(9, 9), layout="constrained")
    left, right = whole.subplots(1, 2)
    figures[name](ax=left)
    whole.draw_without_rendering()
    inside = left.get_window_extent()
    labels = [label.get_window_extent() for label in left.get_yticklabels()]
    assert all(0 < box.x0 < box.x1 < inside.x0 for box in labels)
    assert right.get_window_extent().x0 > inside.x1
    legend = left.get_legend()
    assert (legend is None) == (name in ("dictionary", "exemplars", "grid"))
    if legend is not None:
        below = legend.get_window_extent()
        assert 0 < below.y0 < below.y1 <= inside.y0


def test_a_posterior_draws_itself_with_its_evidence(rnp, images):
    given = {"a/1": torch.tensor([0.4, 0.3, 0.0, 0.0, 0.5, -0.25])}
    seen = torch.arange(8) < 4
    posterior = query(
        rnp, images, mask=seen.expand(8, 8), given=given, method="importance", num_samples=3
    )
    assert isinstance(posterior, Posterior)

    def names(figure):
        return [label.get_text() for label in figure.axes[0].get_yticklabels()]

    assert names(posterior.plot())[:2] == ["seen", "expected"]
    assert names(posterior.plot(images.numpy()))[:3] == ["image", "seen", "expected"]
    assert any(text.get_text() == "a/1" for axis in posterior.plot().axes for text in axis.texts)
    prior = query(rnp, method="importance", num_samples=3)
    assert names(prior.plot())[0] == "expected"


def test_a_notebook_shows_a_posterior_as_text_and_picture(rnp, images):
    posterior = query(
        rnp, images.repeat(5, 1, 1, 1), method="nuts", num_samples=8, warmup=1, chains=2, steps=5
    )
    shown, state = posterior._repr_html_(), torch.get_rng_state()
    assert "Posterior(method=&#x27;nuts&#x27;" in shown
    assert 'src="data:image/png;base64,' in shown
    few = posterior[:2].draw(30)
    assert few.canvas.shape == (30, 2, 1, 8, 8)
    assert few.trusted.tolist() == posterior.trusted[:2].tolist()
    drawn = few.canvas.unsqueeze(1) == posterior.canvas[:, :2]
    assert drawn.flatten(3).all(3).any(1).all(), "each is one of the posterior's own"
    one = replace(posterior, weights=torch.eye(8)[:, [2]].expand(-1, 20))
    torch.testing.assert_close(one[:8].draw(5).mean("canvas"), posterior.canvas[2, :8])
    assert torch.equal(state, torch.get_rng_state())
    assert replace(posterior, weights=one.weights * torch.nan)._repr_html_() is None


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


FORMS = {
    "without channels": lambda x: x.squeeze(1),
    "array": lambda x: x.numpy(),
    "array of another byte order": lambda x: x.squeeze(1).numpy().astype(">f4"),
    "channels last": lambda x: x.movedim(1, -1).numpy(),
    "bytes": lambda x: (255 * x).byte(),
    "array of bytes": lambda x: (255 * x).byte().squeeze(1).numpy(),
    "truth values": lambda x: x.bool().numpy(),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_are_drawn_in_every_form_that_parse_takes(form):
    torch.manual_seed(0)
    rnp, images = RNP(tiny()).eval(), torch.rand(3, 1, 8, 8).round()
    tree, posterior = rnp.parse(images), query(rnp, images, method="importance", num_samples=3)
    draw = {
        "parse": tree.plot,
        "more": lambda x: parse_figure(tree, more=[("other", x)]),
        "program": lambda x: program_figure(tree, images=x),
        "posterior": posterior.plot,
        "grid": lambda x: grid_figure([("images", x)]),
        "exemplars": lambda x: exemplar_figure(x, images.unsqueeze(1)),
    }
    for name, figure in draw.items():
        torch.manual_seed(0)
        wanted = tiles(figure(images))
        torch.manual_seed(0)
        found = tiles(figure(FORMS[form](images)))
        assert len(found) == len(wanted) > 0, name
        assert all(map(np.array_equal, found, wanted)), name


def tiles(figure):
    return [np.asarray(image.get_array()) for ax in figure.axes for image in ax.images]


@pytest.mark.parametrize("into", ["own", "narrow", "wide", "figure", "axes"])
@pytest.mark.parametrize("n", [1, 4, 12])
def test_the_note_of_a_posterior_is_never_cut_off(rnp, n, into):
    posterior = query(rnp, torch.rand(n, 1, 8, 8), method="importance", num_samples=3)
    assert not posterior.trusted.any()
    options = {"own": {}, "narrow": {"width": 1.6}, "wide": {"width": 9.0}}.get(into)
    if options is None:
        figure = Figure(figsize=(3, 6))
        options = {"figure": figure}
        if into == "axes":
            options = {"ax": figure.add_axes((0.3, 0.1, 0.7, 0.7))}
    figure = posterior_figure(posterior, **options)
    figure.canvas.draw()
    (note,) = [text for text in figure.findobj(Text) if "red" in text.get_text()]
    which = f"the posteriors of {n} of {n} images are" if n > 1 else "this posterior is"
    what = f'Framed in red: {which} unreliable (see notes); take more num_samples, or method="smc".'
    assert note.get_text().split() == what.split()
    box, page = note.get_window_extent(), figure.bbox
    assert 0 <= box.x0 < box.x1 <= page.x1
    assert 0 <= box.y0 < box.y1 <= page.y1
