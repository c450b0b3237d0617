"""Image files: exact where they fit, refused or converted where they do not."""

import numpy as np
import pytest
import torch
from PIL import Image

from inference.data import load_data
from inference.data.image_files import read_image, read_images, warn_unexplained
from pyro_rnp import ParseTree
from tests.conftest import tiny


def write(path, array, **how):
    Image.fromarray(array).save(path, **how)
    return path


@pytest.fixture
def ink():
    """A drawing, light on dark, that looks otherwise when turned or mirrored; steps of 17."""
    drawing = np.zeros((8, 8), np.uint8)
    drawing[1:7, 2] = 17 * np.arange(15, 3, -2)
    drawing[6, 2:6] = 255
    return drawing


def rgba(grey, alpha):
    return np.stack(np.broadcast_arrays(*grey, alpha), -1).astype(np.uint8)


def palette(indices, colours, path, **how):
    image = Image.fromarray(indices)
    image.putpalette(list(np.ravel(colours)))
    image.save(path, **how)


def turned(ink, path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter clockwise from how it is stored
    stored = Image.fromarray(ink).transpose(Image.Transpose.ROTATE_90)
    stored.save(path, exif=exif)


def sheet(ink, path):
    """Dark on paper with corners cut off."""
    alpha = np.full_like(ink, 255)
    alpha[[0, 0, -1, -1], [0, -1, 0, -1]] = 0
    write(path, rgba([255 - ink] * 3, alpha))


GREYS = [[255 - 17 * i] * 3 for i in range(16)]
WAYS = {
    "8 bits": lambda ink, path: write(path, ink),
    "16 bits": lambda ink, path: write(path, ink.astype(np.uint16) * 257),
    "colour": lambda ink, path: write(path, np.stack([ink] * 3, -1)),
    "turned by EXIF": turned,
    "dark on paper": lambda ink, path: write(path, 255 - ink),
    "dark ink in alpha": lambda ink, path: write(path, rgba([0, 0, 0], ink)),
    "blue ink in alpha": lambda ink, path: write(path, rgba([10, 20, 160], ink)),
    "light ink in alpha": lambda ink, path: write(path, rgba([255, 255, 255], ink)),
    "grey and alpha": lambda ink, path: write(path, np.stack([0 * ink, ink], -1)),
    "opaque": lambda ink, path: write(path, rgba([ink] * 3, 255)),
    "a sheet with round corners": sheet,
    "palette": lambda ink, path: palette(ink // 17, GREYS, path),
    "palette with alpha": lambda ink, path: palette(
        ink // 17, [[0, 0, 0]] * 16, path, transparency=bytes(range(0, 256, 17))
    ),
    "a transparent grey": lambda ink, path: write(path, 255 - ink, transparency=255),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_drawing_is_read_as_it_is_seen(way, channels, ink, tmp_path):
    WAYS[way](ink, tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", tiny(channels=channels))
    wanted = torch.from_numpy(ink).float().expand(channels, 8, 8) / 255
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "a.tif"), ("YCbCr", "a.jpg"), ("F", "a.tif"), ("1", "a.png")]
)
def test_other_modes(mode, name, ink, tmp_path):
    drawing = np.where(ink > 0, np.uint8(255), np.uint8(0))
    image = Image.fromarray(drawing if mode != "F" else (drawing / 255).astype(np.float32))
    if mode != "F":
        image = image.convert("RGB").convert(mode)
    image.save(tmp_path / name, **({"quality": 100} if mode == "YCbCr" else {}))
    found = read_image(tmp_path / name, tiny())
    assert (found - torch.from_numpy(drawing) / 255).abs().max() < 0.05


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (np.full((8, 8), 200, np.int32), "integers of 32 bits, whose white is not known"),
        (np.full((8, 8), 200, np.float32), r"floats from 200 to 200, which must lie in \[0, 1\]"),
        (np.full((8, 8), np.nan, np.float32), "floats from nan to nan"),
    ],
)
def test_an_image_whose_white_is_not_known_is_refused(numbers, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_image(write(tmp_path / "a.tif", numbers), tiny())


def test_a_file_is_swapped_where_it_is_told_to_be(ink, tmp_path):
    path, wanted = write(tmp_path / "a.png", ink), torch.from_numpy(ink).float()[None] / 255
    assert torch.equal(read_image(path, tiny(), invert=False), wanted)
    torch.testing.assert_close(read_image(path, tiny(), invert=True), 1 - wanted)
    paper = write(tmp_path / "b.png", 255 - ink)
    torch.testing.assert_close(read_image(paper, tiny(), invert=False), 1 - wanted)
    torch.testing.assert_close(read_image(paper, tiny(), invert=True), wanted)
    alpha = write(tmp_path / "c.png", rgba([0, 0, 0], ink))
    torch.testing.assert_close(read_image(alpha, tiny(), invert=True), wanted)


def test_each_file_is_looked_at_by_itself_and_those_that_were_swapped_are_named(
    ink, tmp_path, capsys
):
    files = [str(tmp_path / name) for name in ("dark.png", "paper.png")]
    write(files[0], ink)
    write(files[1], 255 - ink)
    found = read_images(files, tiny())
    torch.testing.assert_close(found[0], found[1])
    out, err = capsys.readouterr()
    assert "swapped" in err
    assert files[1] in err
    assert files[0] not in err
    assert not out
    assert not torch.equal(*read_images(files, tiny(), invert=False))
    assert not capsys.readouterr().err


def test_another_size_is_refused_or_scaled(tmp_path):
    path = write(tmp_path / "a.png", np.full((20, 30), 51, np.uint8))
    with pytest.raises(ValueError, match=r"is 30 x 20 pixels and the model reads 8 x 8; --resize"):
        read_image(path, tiny())
    torch.testing.assert_close(read_image(path, tiny(), resize=True), torch.full((1, 8, 8), 0.2))


@pytest.mark.parametrize("paper", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_scaling_keeps_proportions(axis, paper, tmp_path):
    drawing = np.full((16, 16), 51, np.uint8)
    drawing[4:12, 4:12] = 255
    drawing = np.take(drawing, range(3, 13), axis)
    square = np.full((16, 16), 51, np.uint8)
    square[4:12, 4:12] = 255
    if paper:
        drawing, square = 255 - drawing, 255 - square
    found, wanted = (
        read_image(write(tmp_path / f"{i}.png", image), tiny(), resize=True)
        for i, image in enumerate((drawing, square))
    )
    torch.testing.assert_close(found, wanted)
    assert found[0, 0, 0] < 0.5


def test_scaled_images_stay_between_0_and_1(tmp_path):
    for size in (9, 13, 28, 57):
        path = write(tmp_path / f"{size}.png", np.full((size, size), 255, np.uint8))
        found = read_image(path, tiny(), resize=True, invert=False)
        assert 1 - 1e-6 < found.min() <= found.max() <= 1


def test_pixels_are_made_0_or_1_last(ink, tmp_path):
    path = write(tmp_path / "a.png", 255 - ink)
    wanted = torch.from_numpy(ink >= 128).float()[None]
    assert torch.equal(read_image(path, tiny(), binarize=True), wanted)


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ValueError, match="is not an image that can be read"):
        read_image(tmp_path / "a.png", tiny())
    with pytest.raises(FileNotFoundError, match=r"b\.png does not exist"):
        read_image(tmp_path / "b.png", tiny())
    with pytest.raises(FileNotFoundError, match="is a folder, not an image file"):
        read_image(tmp_path, tiny())


def test_an_image_cut_short(tmp_path):
    path = write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="is not an image that can be read"):
        read_image(path, tiny())


def test_files_that_a_parse_hardly_explains_are_named(capsys):
    images = torch.ones(3, 1, 8, 8)
    canvas = torch.stack([0.9 * images[0], 0.2 * images[1], 0.5 * images[2]])
    tree = ParseTree(torch.zeros(3, 2), canvas)
    warn_unexplained(["good.png", "bad.png", "so-so.png"], images, tree.canvas)
    said = capsys.readouterr().err
    assert "bad.png" in said
    assert "good.png" not in said
    assert "so-so.png" not in said
    warn_unexplained([], images, tree.canvas)
    assert not capsys.readouterr().err


def test_an_image_in_colour_is_held_against_its_mean_colour(capsys):
    images = torch.full((3, 3, 8, 8), 0.7)
    images[:2, :, 2:6, 2:6] = 0.1
    ground = images.mean((2, 3), keepdim=True).expand_as(images)
    canvas = torch.stack([0.9 * images[0] + 0.1 * ground[0], ground[1], 0.98 * images[2]])
    names = ["good.png", "ground.png", "flat.png"]
    warn_unexplained(names, images, canvas)
    assert "unreliable" in (said := capsys.readouterr().err)
    assert said.strip().endswith(": ground.png")
    seen = torch.zeros(8, 8, dtype=torch.bool)
    seen[:2] = True
    warn_unexplained(names, images, canvas, seen)
    hidden = images.where(seen, torch.nan)
    warn_unexplained(names, hidden, images)
    assert "good" not in capsys.readouterr().err


def every_kind():
    """Images of a light square on a dark ground, as Pillow's formats hold them."""
    grey = np.full((12, 12), 20, np.uint8)
    grey[3:8, 4:9] = 220
    image = Image.fromarray(grey)
    frames = [image, Image.fromarray(255 - grey)]
    yield "animated.gif", image, {"save_all": True, "append_images": frames[1:]}
    yield "animated.webp", image, {"save_all": True, "append_images": frames[1:], "lossless": True}
    yield "pages.tiff", image, {"save_all": True, "append_images": frames[1:]}
    yield "palette.png", image.convert("P"), {}
    yield "palette.bmp", image.convert("RGB").quantize(8), {}
    yield "cmyk.tiff", image.convert("RGB").convert("CMYK"), {}
    yield "cmyk.jpg", image.convert("RGB").convert("CMYK"), {"quality": 95}
    yield "deep.png", Image.fromarray(grey.astype(np.uint16) * 257), {}
    yield "deep.tiff", Image.fromarray(grey.astype(np.uint16) * 257), {}
    yield "float.tiff", Image.fromarray(grey.astype(np.float32) / 255), {}
    yield "grey.pgm", image, {}
    yield "colour.tga", image.convert("RGB"), {}
    yield "clear.png", image.convert("RGBA"), {}
    yield "bit.png", image.convert("1", dither=0), {}


@pytest.mark.parametrize("kind", list(every_kind()), ids=lambda kind: kind[0])
def test_formats_of_every_kind(kind, tmp_path):
    name, image, how = kind
    image.save(tmp_path / name, **how)
    wanted = torch.full((1, 12, 12), 20 / 255)
    wanted[:, 3:8, 4:9] = 220 / 255
    wanted = wanted.round() if name == "bit.png" else wanted
    for channels in (1, 3):
        found = read_image(tmp_path / name, tiny(image_size=12, channels=channels))
        torch.testing.assert_close(found, wanted.expand(channels, -1, -1), atol=0.02, rtol=0)
    for i in range(3):
        image.rotate(90 * i).save(tmp_path / f"{i}-{name}", **how)
    assert load_data(tmp_path).train.pixels.shape[1:] == (1, 12, 12)
