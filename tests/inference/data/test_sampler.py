"""Batches: every image once an epoch, the same order again, and a share for each process."""

from itertools import chain

import pytest
import torch

from inference.data import ImageSet
from inference.data.sampler import loader


def numbered(n):
    return ImageSet(torch.arange(float(n)).view(n, 1, 1, 1), torch.arange(n))


def epoch(batches, number=0):
    batches.sampler.set_epoch(number)
    return [batch.flatten().tolist() for batch in batches]


def test_batches_cover_the_images_in_another_order_every_epoch():
    shuffled = loader(numbered(10), 3, shuffle=True)
    epochs = [epoch(shuffled, i) for i in range(3)]
    assert all([len(b) for b in batches] == [3, 3, 3] for batches in epochs)
    assert all(len(set(chain(*batches))) == 9 for batches in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epoch(shuffled, 1) == epochs[1] == epoch(loader(numbered(10), 3, shuffle=True), 1)
    assert epoch(loader(numbered(10), 3, shuffle=True, seed=1), 1) != epochs[1]
    assert list(chain(*epoch(loader(numbered(10), 3, shuffle=False)))) == list(range(10))
    assert [len(b) for b in loader(numbered(10), 50, shuffle=True)] == [10]


def test_the_first_epoch_goes_on_after_what_is_done():
    whole = loader(numbered(10), 3, shuffle=True)
    later = loader(numbered(10), 3, shuffle=True, done=4)  # one batch into the second epoch
    assert epoch(later, 1) == epoch(whole, 1)[1:]
    assert epoch(later, 2) == epoch(whole, 2)


def test_processes_share_a_larger_batch():
    whole = epoch(loader(numbered(13), 4, shuffle=True))
    shares = [epoch(loader(numbered(13), 2, shuffle=True, rank=r, world=2)) for r in (0, 1)]
    assert [a + b for a, b in zip(*shares, strict=True)] == whole


def test_making_an_iterator_draws_nothing_from_the_generator_of_training():
    before = torch.get_rng_state()
    next(iter(loader(numbered(4), 2, shuffle=True)))
    assert torch.equal(torch.get_rng_state(), before)


def test_drawings_of_a_class_lie_side_by_side_in_other_groups_every_epoch():
    labels = torch.tensor([3, 0, 3, 7, 3, 0, 3, 0, 3, 7, 0])  # five, four and two of a class
    data = ImageSet(torch.arange(11.0).view(11, 1, 1, 1), labels)
    batches = loader(data, 4, shuffle=True, images_per_class=2)
    epochs = [epoch(batches, i) for i in range(4)]
    for found in epochs:
        pairs = [tuple(map(int, b[i : i + 2])) for b in found for i in (0, 2)]
        assert len(found) == len(batches) == 2
        assert len({i for pair in pairs for i in pair}) == 8, "no image twice"
        assert all(labels[a] == labels[b] for a, b in pairs)
    assert len({frozenset(frozenset(b[:2]) for b in found) for found in epochs}) > 1
    assert epoch(loader(data, 4, shuffle=True, images_per_class=2), 1) == epochs[1]
    shares = [
        epoch(loader(data, 2, shuffle=True, images_per_class=2, rank=r, world=2)) for r in (0, 1)
    ]
    assert [a + b for a, b in zip(*shares, strict=True)] == epochs[0]
    with pytest.raises(ValueError, match="No class has 6 images"):
        loader(data, 6, shuffle=True, images_per_class=6)
