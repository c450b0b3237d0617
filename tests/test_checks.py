"""What images have to be, on the devices where a look is free and where it is not."""

import pytest
import torch

from pyro_rnp.checks import check_images
from tests.conftest import tiny


def test_good_images_pass():
    check_images(torch.rand(3, 1, 8, 8), tiny())
    check_images(torch.rand(3, 2, 8, 8, dtype=torch.float64), tiny(channels=2))


def test_a_range_is_asked_for_only_where_values_are():
    noisy = torch.randn(3, 1, 8, 8)
    check_images(noisy, tiny(), values=False)
    with pytest.raises(ValueError, match="must lie in"):
        check_images(noisy, tiny())


def test_pixels_are_not_looked_at_on_another_device():
    check_images(torch.empty(3, 1, 8, 8, device="meta"), tiny(), values=False)
