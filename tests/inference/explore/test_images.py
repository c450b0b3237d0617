"""Images that are dropped or drawn."""

import io
import math
import warnings

import pytest
import torch
from PIL import Image

from inference.explore import brushed, centre, open_image, pen, rasterise
from inference.explore.images import BYTES, POINTS
from pyro_rnp import RNPConfig
from tests.conftest import tiny

MNIST = RNPConfig()
SEVEN = [[(0.3, 0.2), (0.7, 0.2), (0.45, 0.8)]]


def file(image, format="PNG"):
    stored = io.BytesIO()
    image.save(stored, format)
    return stored.getvalue()


def middle(image):
    places = torch.arange(image.shape[-1]) + 0.5
    mass = image.sum()
    return (image.sum((0, 1)) @ places / mass).item(), (image.sum((0, 2)) @ places / mass).item()


def box(image):
    rows, columns = image[0].amax(1) > 0.1, image[0].amax(0) > 0.1
    return rows.sum().item(), columns.sum().item()


def test_a_file_is_scaled_to_the_size_and_channels_of_the_model():
    picture = Image.new("RGB", (60, 30), "white")
    picture.paste((0, 0, 0), (20, 5, 40, 25))
    for channels in (1, 3):
        image = open_image(file(picture), tiny(channels=channels))
        assert image.shape == (channels, 8, 8)
        assert image[:, 0].max() < 0.1  # paper became the dark ground
        assert image[:, 3:5, 3:5].min() > 0.9
    light = open_image(file(picture), tiny(), invert=False)
    assert torch.allclose(light, 1 - open_image(file(picture), tiny()), atol=1e-6)


def test_a_file_keeps_the_pixels_of_the_model():
    image = rasterise(SEVEN, MNIST)
    stored = file(Image.fromarray((image[0] * 255).round().byte().numpy()))
    assert torch.equal(open_image(stored, MNIST, invert=False), image)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "not an image that can be read: its format is not known"),
        (b"GIF89a but no more", "not an image that can be read"),
        (bytes(BYTES + 1), r"The file has 10.0 MiB; at most 10 are read"),
        (file(Image.new("L", (50, 50)))[:-30], "not an image that can be read"),
        (file(Image.new("I", (9, 9)), "TIFF"), "not an image that can be read: it holds integers"),
    ],
)
def test_a_bad_file_gets_one_sentence(data, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        open_image(data, MNIST)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


def test_no_setting_of_the_process_changes_while_a_file_is_read(monkeypatch):
    """Other threads read and parse meanwhile; `warnings.catch_warnings` would change them too."""

    def forbidden(*args, **kwargs):
        raise AssertionError("the warnings filter is that of all threads")

    with monkeypatch.context() as watched:
        for name in ("catch_warnings", "simplefilter", "filterwarnings", "resetwarnings"):
            watched.setattr(warnings, name, forbidden)
        shape = open_image(file(Image.new("L", (50, 50))), MNIST).shape
    assert shape == (1, 28, 28)


def test_a_bomb_is_not_decoded(monkeypatch):
    def load(self):
        raise AssertionError("decoded")

    sizes = [(5_000, 5_000), (10_000, 10_000), (20_000, 20_000), (100_000, 1), (1, 5_000)]
    bombs = [file(Image.new("1", size)) for size in sizes]
    assert max(map(len, bombs)) < BYTES
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for bomb in bombs:
        with pytest.raises(ValueError, match="has more than 20 million once margins"):
            open_image(bomb, MNIST)


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF"])
def test_formats_that_run_programs_or_hide_their_size_are_not_read(kind):
    with pytest.raises(ValueError, match="its format is not known"):
        open_image(file(Image.new("L", (16, 16)), kind), MNIST)


@pytest.mark.parametrize("size", [0.3, 0.5, 1.0])
def test_a_drawing_has_the_size_and_the_middle_of_mnist(size):
    strokes = [[(0.1 + size * x, 0.05 + size * y) for x, y in stroke] for stroke in SEVEN]
    image = rasterise(strokes, MNIST, 2.4)
    assert middle(image) == pytest.approx((14, 14), abs=0.1)
    assert max(box(image)) in (20, 21)
    assert pen(image.expand(3, -1, -1, -1)) == (pytest.approx(2.4, abs=0.2), True)
    assert torch.equal((image * 255).round() / 255, image)


def test_an_image_is_centred_as_a_drawing_is():
    drawn = rasterise([[(0.5 * x, 0.5 * y) for x, y in SEVEN[0]]], MNIST, 1.2, centred=False)
    image = centre(drawn)
    assert middle(image) == pytest.approx((14, 14), abs=0.3)
    assert max(box(image)) in (20, 21)
    assert (image - rasterise(SEVEN, MNIST, 2.4)).square().mean() < 0.02
    blank = torch.zeros(1, 28, 28)
    assert torch.equal(centre(blank), blank)


def test_a_dot_stays_a_dot():
    assert max(box(rasterise([[(0.9, 0.9)]], MNIST, 2.0))) <= 4
    dot = torch.zeros(3, 28, 28)
    dot[:, 3, 4] = 1
    assert max(box(centre(dot))) <= 8


def test_a_pen_follows_the_data():
    wide = torch.stack([rasterise(SEVEN, MNIST, 4.0, centred=False)] * 3)
    wide[0] = wide[0].roll(4, -1)
    assert pen(wide) == (pytest.approx(4, abs=0.4), False)
    assert pen(torch.zeros(2, 3, 28, 28)) == (1.0, True)
    large = RNPConfig(image_size=56)
    assert pen(rasterise(SEVEN, large, 3.0)[None]).width == pytest.approx(3, abs=0.3)


def test_no_strokes_are_a_blank_image():
    for none in ([], [[]]):
        assert torch.equal(rasterise(none, tiny(channels=3)), torch.zeros(3, 8, 8))
        assert not brushed(none, tiny()).any()


def test_a_brush_touches_what_lies_below_it():
    hidden = brushed([[(0.75, -3.0), (0.75, 7.0)]], MNIST, width=14)
    assert hidden[:, 14:].all()
    assert not hidden[:, :14].any()


@pytest.mark.parametrize(
    ("strokes", "width", "sentence"),
    [
        ([[(0.1, math.nan)]], 2.0, "points .x, y. of finite numbers"),
        ([[(0.1, 0.2, 0.3)]], 2.0, "points .x, y. of finite numbers"),
        ([[(0.1, 0.1)] * POINTS, [(0.1, 0.1)]], 2.0, "have 20001 points; at most 20000"),
        ([[(0.1, 0.1)]], 0.0, "width must be above 0"),
        ([[(0.1, 0.1)]], 29.0, "at most the image's 28 pixels, got 29"),
        ([[(0.1, 0.1)]], math.nan, "width must be above 0"),
    ],
)
def test_bad_strokes_get_one_sentence(strokes, width, sentence, unchecked):
    for draw in (rasterise, brushed):
        with pytest.raises(ValueError, match=sentence):
            draw(strokes, MNIST, width)
