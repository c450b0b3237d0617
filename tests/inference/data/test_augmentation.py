"""Images moved and turned."""

import pytest
import torch

from inference.config import TrainConfig
from inference.data import ImageSet
from inference.data.augmentation import jitter, rotate_at_random, rotate_classes


def test_turned_images_are_of_other_classes():
    images = torch.rand(3, 1, 4, 4)
    segments = torch.arange(16).view(1, 1, 4, 4).expand(3, 2, 4, 4)
    found = rotate_classes(ImageSet(images, torch.tensor([0, 2, 0]), segments))
    assert found.labels.tolist() == [0, 2, 0, 3, 5, 3, 6, 8, 6, 9, 11, 9]
    assert torch.equal(found.images[:3], images)
    assert torch.equal(found.images[9:, 0, 0, 0], images[:, 0, 3, 0]), (
        "bottom left comes to the top"
    )
    assert torch.equal(found.images[6:9], images.flip(2, 3))
    assert found.segments[9, 0, 0, 0] == 12


def test_jitter_moves_each_image_in_its_own_way():
    spot = torch.zeros(400, 1, 28, 28)
    spot[..., 12:16, 12:16] = 1
    moved = jitter(spot, 0.1)
    assert moved.min() >= 0
    assert moved.max() <= 1
    place = (2 * torch.arange(28.0) + 1) / 28 - 1
    x = (moved.sum((1, 2)) * place).sum(-1) / moved.sum((1, 2, 3))
    assert x.mean().abs() < 5 * 0.1 / 20
    assert abs(x.std() / 0.1 - 1) < 5 * (1 / 800) ** 0.5
    size = (moved.sum((1, 2, 3)) / 16).log()  # of two scales
    assert abs(size.std() / 0.1 / 2**0.5 - 1) < 5 * (1 / 800) ** 0.5
    torch.testing.assert_close(jitter(spot, 0.0), spot)


def test_missing_pixels_move_with_their_image():
    torch.manual_seed(0)
    images = torch.rand(50, 1, 12, 12)
    holes = images.clone()
    holes[..., 4:8, 4:8] = torch.nan
    torch.manual_seed(1)
    whole = jitter(images.where(holes.isfinite(), 0.5), 0.05)
    torch.manual_seed(1)
    found = jitter(holes, 0.05)
    missing = found.isnan()
    assert missing.flatten(1).any(1).all(), "each has its hole"
    assert 8 < missing.sum() / 50 < 24, "of about its size"
    assert len(missing.flatten(1).unique(dim=0)) > 10
    far = torch.nn.functional.max_pool2d(missing.float(), 3, stride=1, padding=1) == 0
    torch.testing.assert_close(found[far], whole[far])
    assert (found[~missing] <= 1).all()


def test_holes_rotate_with_their_images():
    seen = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    seen[:, :, 0, 3] = False
    data = ImageSet(torch.ones(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), masks=seen)
    found = rotate_classes(data)
    assert found.pixels.dtype == torch.uint8
    assert found[2:4].images[:, 0, 0, 0].isnan().all()
    assert found.images.isnan().sum() == 8


@pytest.mark.parametrize("wrong", [{"jitter": -0.1}, {"jitter": 0.1, "binarize": True}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="jitter must be"):
        TrainConfig(**wrong)


def test_each_image_is_turned_as_chance_has_it():
    torch.manual_seed(0)
    images = torch.rand(1, 1, 5, 5).expand(400, -1, -1, -1)
    found = rotate_at_random(images)
    ways = torch.stack([images[0].rot90(quarter, (-2, -1)) for quarter in range(4)])
    same = (found.unsqueeze(1) == ways).flatten(2).all(2)
    assert same.sum(1).eq(1).all(), "each in one way"
    assert (same.double().mean(0) - 0.25).abs().max() < 4 * (0.25 * 0.75 / 400) ** 0.5
