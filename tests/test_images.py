"""Image files: exact where they fit, refused or converted where they do not."""

import numpy as np
import pytest
import torch
from PIL import Image

from inference.images import read_image
from tests.conftest import tiny


def write(path, array):
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def bytes8():
    return np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)


def test_a_grey_image_is_read_as_it_is(tmp_path, bytes8):
    path = write(tmp_path / "a.png", bytes8)
    wanted = torch.from_numpy(bytes8).float()[None] / 255
    assert torch.equal(read_image(path, tiny()), wanted)
    torch.testing.assert_close(read_image(path, tiny(), invert=True), 1 - wanted)
    assert read_image(path, tiny(channels=3)).shape == (3, 8, 8)


def test_another_size_is_refused_or_scaled(tmp_path):
    path = write(tmp_path / "a.png", np.full((20, 30), 51, np.uint8))
    with pytest.raises(ValueError, match=r"is 30 x 20 pixels and the model reads 8 x 8; --resize"):
        read_image(path, tiny())
    torch.testing.assert_close(read_image(path, tiny(), resize=True), torch.full((1, 8, 8), 0.2))


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ValueError, match="is not an image that can be read"):
        read_image(tmp_path / "a.png", tiny())
    with pytest.raises(FileNotFoundError, match=r"b\.png does not exist"):
        read_image(tmp_path / "b.png", tiny())
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_image(tmp_path, tiny())


def test_an_image_cut_short(tmp_path):
    path = write(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (8, 8), np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="is not an image that can be read"):
        read_image(path, tiny())
