"""Pictures of trees."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pyro_rnp import RNP, ParseTree, RNPConfig
from tests.conftest import tiny


@pytest.fixture
def tree(rnp, images):
    return rnp.parse(images)


def test_a_tree_draws_itself(tree, images, tmp_path):
    assert isinstance(tree.plot(images, tmp_path / "a.svg"), Figure)
    with_image, without = (tree.plot(given, tmp_path / "b.svg") for given in (images, None))
    for figure, above in ((with_image, "image"), (without, "sample\nlevel 2")):
        names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert names[0] == above
        assert names[-2:] == ["parts\nlevel 1", "sub-parts\nlevel 0"]


def test_images_of_any_type_are_drawn_alike(tree, images, tmp_path):
    bytes_ = (255 * images).round().byte()
    same = [bytes_, bytes_.numpy(), bytes_ / 255, (bytes_ / 255).double().numpy()]
    for i, given in enumerate(same):
        tree.plot(given, tmp_path / f"{i}.png")
    files = [(tmp_path / f"{i}.png").read_bytes() for i in range(len(same))]
    assert len(set(files)) == 1


def test_images_that_do_not_fit_are_refused(tree, images):
    for wrong in (images[:2], images[0], images.repeat(1, 2, 1, 1)):
        with pytest.raises(ValueError, match=r"^images must have shape \(4, 1 or 3, H, W\), got"):
            tree.plot(wrong)


def test_a_gradient_is_left_alone(rnp, images):
    z = torch.randn(4, rnp.config.program_size, requires_grad=True)
    tree = rnp.model.recursion(z)
    tree.plot()
    tree.canvas.sum().backward()
    assert z.grad is not None


def test_a_notebook_shows_a_tree_as_text_and_picture(tree, images):
    shown = tree._repr_html_()
    assert repr(tree) in shown
    assert 'src="data:image/png;base64,' in shown
    many = ParseTree.join([tree] * 500)
    assert len(many._repr_html_()) < 3 * len(shown), "of the first eight"
    assert tree[0]._repr_html_()
    assert tree[0][0]._repr_html_(), "a leaf too"


def test_what_cannot_be_drawn_is_shown_as_text_alone(tree):
    broken = ParseTree(torch.zeros(2, 3), torch.zeros(2, 1, 8, 8), children=tree.children)
    assert broken._repr_html_() is None
    assert tree.map(lambda t: t[:0])._repr_html_() is None
    bad = tree.map(lambda t: t * np.nan)
    assert bad._repr_html_() is None or "<img" in bad._repr_html_()


def test_of_a_deep_tree_a_notebook_shows_the_upper_levels():
    config = RNPConfig(image_size=8, patch_size=4, program_size=3, steps=(5, 8, 8))
    tree = RNP(config).sample(1)
    assert len(tree.nodes(3)) > 256
    drawn = []
    plot = ParseTree.plot
    try:
        ParseTree.plot = lambda self, **options: drawn.append(options) or plot(self, **options)
        tree._repr_html_()
    finally:
        ParseTree.plot = plot
    assert drawn == [{"depth": 2}]


def test_importing_the_model_does_not_import_matplotlib():
    code = "import sys, pyro_rnp; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("steps", [(3,), (2, 2), (2, 2, 2)])
def test_trees_of_any_depth_are_drawn(steps, images):
    RNP(tiny(steps=steps)).parse(images).plot(images)
