"""Completion of hidden pixels."""

import torch

from inference.completion import completion, nearest
from pyro_rnp import RNP
from tests.conftest import tiny

LEFT = (torch.arange(8) < 4).expand(8, 8)


def test_the_nearest_is_told_by_what_is_seen_alone():
    among = torch.rand(5, 1, 8, 8)
    images = torch.where(LEFT, among[[3, 1]], torch.rand(2, 1, 8, 8))
    assert torch.equal(nearest(images, LEFT, among), among[[3, 1]])


def test_scores_are_those_of_the_hidden_pixels(images):
    rnp = RNP(tiny()).eval()
    found = completion(
        rnp, images, LEFT, images, ("guide", "svi"), batch_size=3, num_samples=5, steps=2
    )
    assert found["nearest"]["sse"] == 0
    assert found["blank"]["sse"] == (images[..., 4:].square().sum() / 4).item()
    assert found["guide"].keys() == {"sse", "sse_error", "trusted", "seconds"}
    other = torch.where(LEFT, images, 0)
    assert completion(rnp, other, LEFT, images, (), batch_size=3)["blank"]["sse"] == 0
