"""Memory that a set of images takes: one array of bytes, and floats a few at a time."""

import tracemalloc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import inference.data.arrays
import inference.data.prepare
from inference.data import ImageSet, load_data
from inference.data.prepare import Chunk, Gathered, Source, prepare, reorder

FEW = 20


@pytest.fixture(autouse=True)
def _few(monkeypatch):
    """So few images are prepared together that a small set is a large one."""
    monkeypatch.setattr(inference.data.prepare, "FEW", FEW)
    monkeypatch.setattr(inference.data.arrays, "FEW", FEW)


class Allocations(TorchDispatchMode):
    """Notes how large the tensors are that are made within, in bytes."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {_memory(t) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        made = [t for t in tree_leaves(found) if isinstance(t, torch.Tensor)]
        self.sizes += [t.untyped_storage().nbytes() for t in made if _memory(t) not in given]
        return found

    def over(self, size):
        """How many tensors of more bytes were made."""
        return sum(made > size for made in self.sizes)


def _memory(tensor):
    return tensor.untyped_storage().data_ptr()


def noise(count=400, light=0, form=(3, 16, 16)):
    random = np.random.default_rng(0)
    return random.integers(light, light + 100, (count, *form), dtype=np.uint8)


def three(splits):
    return splits.train, splits.validation, splits.test


@pytest.mark.parametrize("kind", ["array", "npy", "npz", "folder", "masks", "light"])
def test_a_set_is_held_once(kind, tmp_path):
    images, options = noise(), {}
    if kind == "folder":
        for i, image in enumerate(images):
            Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    elif kind == "npy":
        np.save(tmp_path / "a.npy", images.transpose(0, 2, 3, 1))
    elif kind == "npz":
        np.savez_compressed(tmp_path / "a.npz", images=images)
    if kind == "masks":
        options["masks"] = images[:, 0] > 20
    if kind == "light":
        options["invert"] = True
    source = {"npy": tmp_path / "a.npy", "npz": tmp_path / "a.npz", "folder": tmp_path}
    with Allocations() as made:
        splits = load_data(source.get(kind, images), progress=False, **options)
    assert len({_memory(split.pixels) for split in three(splits)}) == 1, "parts of one array"
    assert splits.train.pixels.untyped_storage().nbytes() == images.nbytes
    assert made.over(images.nbytes / 2) == 1, "that array"
    masks = images.nbytes / 3
    assert made.over(masks - 1) == 1 + (kind == "masks")
    assert made.over(4.1 * FEW * images[0].nbytes) <= 1 + (kind == "masks")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "compressed.npz", "split.npz"])
def test_a_file_is_read_a_few_images_at_a_time(name, tmp_path):
    images, file = noise(600, form=(3, 32, 32)), tmp_path / name
    masks = np.random.default_rng(1).random((600, 32, 32)) > 0.2
    split = np.array(["train", "train", "val", "test"] * 150)
    if name == "a.npy":
        np.save(file, images)
    elif name == "split.npz":
        np.savez(file, images=images, masks=masks, split=split)
    else:
        save = np.savez if name == "a.npz" else np.savez_compressed
        save(file, images=images, masks=masks)
    options = {} if name == "a.npy" else {"masks": masks}
    tracemalloc.start()
    try:
        found = load_data(file, progress=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes / 2, "of NumPy and Python, beside torch's array"
    if name == "split.npz":
        assert [len(part) for part in three(found)] == [300, 150, 150]
        rows = {image.tobytes(): mask for image, mask in zip(images, masks, strict=True)}
        for image, seen in zip(found.test.pixels, found.test.masks, strict=True):
            assert (rows[image.numpy().tobytes()] == seen[0].numpy()).all()
        return
    for part, wanted in zip(three(found), three(load_data(images, **options)), strict=True):
        assert torch.equal(part.pixels, wanted.pixels)
        assert (part.masks is None) == (name == "a.npy")
        assert part.masks is None or torch.equal(part.masks, wanted.masks)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_an_array_stored_by_columns_is_read_too(name, tmp_path):
    images = np.asfortranarray(noise(30))
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", images=images)
    found, wanted = load_data(tmp_path / name), load_data(images)
    assert torch.equal(found.train.pixels, wanted.train.pixels)


def test_pieces_are_given_up_as_they_are_read():
    pieces, held = [], []

    def chunks(colour_only):
        for i in range(10):
            held.append(sum(piece() is not None for piece in pieces))
            pixels = torch.from_numpy(noise(FEW, light=i))
            pieces.append(weakref.ref(pixels))
            yield Chunk(pixels, [0] * FEW, [bytes([i, j]) for j in range(FEW)])

    prepare(Source("made", chunks), progress=False)
    assert max(held) <= 1, "the last one"


def test_what_an_image_set_holds_is_not_put_in_order():
    data = ImageSet(torch.from_numpy(noise(50)), torch.arange(50))
    before = data.pixels.clone()
    splits = load_data(data)
    assert torch.equal(data.pixels, before)
    for split in three(splits):
        assert torch.equal(split.pixels, before[split.labels])


def test_rows_are_put_in_order_where_they_are():
    for count in (1, 2, 7, 100):
        values, order = torch.rand(count, 3, 2), torch.randperm(count)
        wanted, place = values[order], _memory(values)
        reorder(values, order)
        assert torch.equal(values, wanted)
        assert _memory(values) == place


def test_pieces_of_other_kinds_become_one_array():
    grey, colour = torch.randint(256, (5, 1, 4, 4)).byte(), torch.randint(256, (3, 3, 4, 4)).byte()
    floats, seen = torch.rand(2, 1, 4, 4), torch.rand(2, 1, 4, 4) > 0.5
    for total in (None, 10):
        held = Gathered(total)
        for piece in (grey, colour):
            held.add(piece)
        assert held.masks is None
        wanted = torch.cat([grey.expand(-1, 3, -1, -1), colour])
        assert torch.equal(held.pixels, wanted)
        held.add(floats, seen)
        wanted = torch.cat([wanted / 255, floats.expand(-1, 3, -1, -1)])
        assert torch.equal(held.pixels, wanted)
        assert held.masks[:8].all()
        assert torch.equal(held.masks[8:], seen)
        held.add(grey)
        assert held.masks[10:].all()
        assert held.count == len(held.pixels) == len(held.masks) == 15
