"""Batches: every image once an epoch, the same order again, and a share for each process."""

from itertools import chain

import torch

from inference.batches import loader
from inference.data import ImageSet


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
