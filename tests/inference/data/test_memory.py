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
import inference.data.base
import inference.data.prepare
import inference.evaluation.metrics
from inference import fit
from inference.data import ImageSet, load_data
from inference.data.augmentation import rotate_classes
from inference.data.prepare import Chunk, Gathered, Source, prepare, reorder
from inference.data.sampler import loader
from inference.evaluation import collect_programs, evaluate
from inference.evaluation.completion import completion_metrics, nearest_images
from inference.evaluation.metrics import mean_of
from inference.evaluation.reconstruction import reconstruction_metrics
from inference.evaluation.score import score_run
from inference.posterior import half_mask
from pyro_rnp.missing import mean_image, variance
from tests.conftest import tiny

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


def test_rotated_classes_are_the_images_once_rotated_as_they_are_taken():
    shape = (10, 2, 6, 6)
    segments, seen = torch.randint(9, shape), torch.rand(10, 1, 6, 6) > 0.3
    data = ImageSet(torch.from_numpy(noise(10, form=(1, 6, 6))), torch.arange(10) % 4)
    whole = ImageSet(data.pixels, data.labels, segments, seen)
    with Allocations() as made:
        found = rotate_classes(whole)
    assert not made.over(40 * 8), "labels alone"
    quarters = [
        torch.cat([maps.rot90(q, (-2, -1)) for q in range(4)])
        for maps in (whole.pixels, segments, seen)
    ]
    labels = torch.cat([data.labels + 4 * q for q in range(4)])
    wanted = ImageSet(quarters[0], labels, *quarters[1:])
    for index in (slice(3, 29), torch.randperm(40), [39, 0, 12], slice(None)):
        mine, theirs = found[index], wanted[index]
        for name in ("pixels", "labels", "segments", "masks"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
    assert (len(found), found.shape) == (40, (1, 6, 6))
    assert torch.equal(whole.pixels, data.pixels)
    options = {"batch_size": 7, "shuffle": True, "seed": 3, "images_per_class": 2}
    for a, b in zip(loader(found, **options), loader(wanted, **options), strict=True):
        assert torch.equal(a.nan_to_num(9), b.nan_to_num(9))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_binary_images_are_the_same_made_in_parts(as_bytes, monkeypatch):
    images = torch.from_numpy(noise(90, form=(1, 5, 5)))
    images = images if as_bytes else images / 255
    wanted = load_data(images, binarize=True, invert=False)
    source = ImageSet(images, torch.zeros(90, dtype=torch.long))
    before = source.pixels.clone()
    same = load_data(source, binarize=True)
    assert torch.equal(source.pixels, before)
    monkeypatch.setattr(inference.data.base, "AT_ONCE", 7 * 25)
    with Allocations() as made:
        found = load_data(images, binarize=True, invert=False)
    assert made.over(2100 if as_bytes else 2300) == 1, (
        "the array that is read; 20 images of floats are 2000 bytes"
    )
    for a, b, c in zip(three(found), three(wanted), three(same), strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert set(a.images.unique().tolist()) == {0.0, 1.0} == set(c.images.unique().tolist())


LIMIT = 1000


@pytest.fixture
def no_whole_split(monkeypatch):
    """To make floats of more images than `LIMIT` at once is refused."""
    made, images = [], ImageSet.images.fget

    def some(self):
        assert len(self) <= LIMIT, f"{len(self)} images become floats at once"
        made.append(len(self))
        return images(self)

    monkeypatch.setattr(ImageSet, "images", property(some))
    monkeypatch.setattr(inference.data.base, "AT_ONCE", 600 * 64)
    monkeypatch.setattr(inference.evaluation.metrics, "FLOATS", 300 * 64)
    monkeypatch.setattr(inference.evaluation.metrics, "RUN_AT_ONCE", 300 * 64)
    return made


def test_no_split_becomes_floats_as_a_whole(no_whole_split, tmp_path, unchecked):
    images, split = noise(3300, form=(1, 8, 8)), ["train", "val", "test"] * 1100
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(3300) % 3, split=split)
    run = fit(
        tmp_path / "a.npz", tiny(), out=tmp_path / "run", epochs=1, batch_size=500, progress=False,
        rotated_classes=True, invert=False,
    )  # fmt: skip
    splits = run.data()
    assert min(map(len, three(splits))) > LIMIT
    found = score_run(str(run.path), particles=2)
    assert found["test_sse"] == pytest.approx(run.metrics["test_sse"])
    seen = half_mask("left", 8)
    some = splits.test[:5].images
    completion = completion_metrics(run.load(), some, seen, splits.train, ())
    assert completion["nearest"]["sse"] > 0
    reconstruction_metrics(run.load(), splits.test, 100, train=splits.train)
    collect_programs(run.load(), splits.test, 100)
    load_data(splits, binarize=True, size=9)
    assert len(no_whole_split) > 20


@pytest.mark.parametrize("missing", [False, True])
def test_scores_are_the_same_in_parts(missing, rnp, monkeypatch):
    images = torch.from_numpy(noise(70, form=(1, 8, 8)))
    masks = torch.rand(70, 1, 8, 8) > (0.3 if missing else -1)
    masks[:, :, 0, 0] = not missing
    train = ImageSet(images[:40], torch.zeros(40, dtype=torch.long), masks=masks[:40])
    test = ImageSet(images[40:], torch.zeros(30, dtype=torch.long), masks=masks[40:])
    seen = half_mask("left", 8)

    def scores():
        scores = evaluate(rnp, test, batch_size=5, train=train, particles=2, seed=1)
        options = {"batch_size": 5, "train": train}
        nearest = nearest_images(test.images, seen, train)
        return scores, reconstruction_metrics(rnp, test, **options), mean_of(train), nearest

    whole = scores()
    mean, ratio = mean_image(train.images), whole[0]["canvas_variance_ratio"]
    assert torch.equal(whole[2], mean), "one part is the whole, to the last bit"
    with torch.no_grad():
        canvas = rnp.model.likelihood(rnp.parse(test.images).canvas).mean
    by_hand = variance(canvas, test.images).sum() / variance(test.images, test.images).sum()
    assert ratio == pytest.approx(float(by_hand), rel=1e-4)
    monkeypatch.setattr(inference.data.base, "AT_ONCE", 7 * 64)
    monkeypatch.setattr(inference.evaluation.metrics, "FLOATS", 6 * 64)
    parts = scores()
    for a, b in zip(whole[:2], parts[:2], strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name] == pytest.approx(b[name], rel=1e-5, nan_ok=True), name
    torch.testing.assert_close(parts[2], mean)
    assert torch.equal(parts[3].nan_to_num(9), whole[3].nan_to_num(9))
    if not missing:
        among = train.images
        wanted = nearest_images(test.images, seen, among)
        assert torch.equal(whole[3], wanted)


def test_an_image_without_a_pixel_is_named_by_its_number(rnp, monkeypatch):
    masks = torch.ones(9, 1, 8, 8, dtype=torch.bool)
    masks[7] = False
    data = ImageSet(torch.zeros(9, 1, 8, 8), torch.zeros(9, dtype=torch.long), masks=masks)
    monkeypatch.setattr(inference.evaluation.metrics, "FLOATS", 2 * 64)
    with pytest.raises(ValueError, match="all of image 7 are missing"):
        evaluate(rnp, data)
