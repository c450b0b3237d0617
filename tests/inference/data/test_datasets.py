"""Data sets: sizes, ranges, fixed and disjoint splits, and damaged files."""

import re
import shutil
from http.client import IncompleteRead
from urllib.error import HTTPError, URLError

import numpy as np
import pytest
import torch
from PIL import Image

from inference.config import TrainConfig
from inference.data import DATASETS, ImageSet, Splits, load_data
from inference.data.omniglot import HELD_OUT, shrink
from inference.data.sampler import loader
from tests.conftest import DATA


def rows(split):
    return {image.numpy().tobytes() for image in split.images}


def check(splits, sizes):
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == sizes
    for split in (splits.train, splits.validation, splits.test):
        assert split.images.shape == (len(split), 1, 28, 28)
        assert split.images.dtype == torch.float32
        assert split.images.min() >= 0
        assert split.images.max() <= 1
        assert split.labels.shape == (len(split),)


def test_digits():
    splits = load_data("digits")
    check(splits, [1257, 180, 360])
    assert rows(splits.test).isdisjoint(rows(splits.train))
    assert rows(splits.validation).isdisjoint(rows(splits.train))
    assert splits.train.labels.unique().tolist() == list(range(10))
    again = load_data("digits")
    assert torch.equal(again.test.images, splits.test.images)
    assert splits.train.images[:, :, :2].eq(0).all(), "a margin"
    assert splits.train.images[:, :, 2:-2, 2:-2].mean().item() == pytest.approx(
        4.884 / 16, abs=0.02
    )


def test_strokes_are_a_data_set(monkeypatch):
    splits = load_data("strokes")
    check(splits, [8000, 1000, 1000])
    assert splits.test.segments.shape == (1000, 2, 28, 28)
    assert splits.test[:3].segments.shape[0] == 3


def test_an_image_set_without_segments_has_none():
    data = ImageSet(torch.rand(3, 1, 28, 28), torch.arange(3))
    assert data[torch.tensor([2, 0])].labels.tolist() == [2, 0]
    assert data[:1].segments is None


def test_bytes_stay_bytes_and_are_floats_where_they_are_read():
    pixels = torch.randint(256, (5, 1, 3, 3), dtype=torch.uint8)
    data = ImageSet(pixels, torch.arange(5))
    assert data[1:3].pixels.dtype == torch.uint8
    assert torch.equal(data.images, pixels.float() / 255)
    assert torch.equal(next(iter(loader(data, 3, shuffle=False))), data.images[:3])
    assert torch.equal((data + data[:2]).pixels[5:], pixels[:2])
    with pytest.raises(ValueError, match=r"of one type can be joined, got torch\.uint8"):
        data + ImageSet(data.images, data.labels)


def test_a_masked_pixel_is_not_a_number():
    pixels = torch.randint(256, (5, 3, 4, 4), dtype=torch.uint8)
    masks = torch.rand(5, 1, 4, 4) < 0.5
    data = ImageSet(pixels, torch.arange(5), masks=masks)
    assert torch.equal(data.images.isnan(), ~masks.expand(5, 3, 4, 4))
    assert torch.equal(data.images.nan_to_num(), pixels / 255 * masks)
    assert torch.equal(data[2:].images.isnan(), data.images[2:].isnan())
    joined = (ImageSet(pixels, torch.arange(5)) + data).images
    assert not joined[:5].isnan().any()
    assert torch.equal(joined[5:].isnan(), data.images.isnan())
    batch = next(iter(loader(data, 5, shuffle=False)))
    assert torch.equal(batch.isnan(), data.images.isnan())


@pytest.mark.parametrize("as_bytes", [True, False])
def test_what_is_missing_stays_so_when_pixels_become_binary(as_bytes, monkeypatch):
    torch.manual_seed(1)
    grey, seen = torch.rand(8, 1, 4, 4), torch.rand(8, 1, 4, 4) < 0.7
    if as_bytes:
        data = ImageSet((255 * grey).byte(), torch.zeros(8, dtype=torch.long), masks=seen)
    else:
        data = ImageSet(grey.where(seen, torch.nan), torch.zeros(8, dtype=torch.long))
    monkeypatch.setitem(DATASETS.pieces, "holes", lambda root: Splits(data, data, data))
    found = load_data("holes", binarize=True).train
    assert found.pixels.dtype == data.pixels.dtype
    assert torch.equal(found.images.isnan(), ~seen)
    assert set(found.images[seen].unique().tolist()) == {0.0, 1.0}


def test_a_data_set_of_one_s_own_has_options():
    @DATASETS.add("checks")
    def checks(root, *, size=4):
        board = (torch.arange(size) + torch.arange(size)[:, None]) % 2
        data = ImageSet(board.float().expand(6, 1, -1, -1), torch.zeros(6, dtype=torch.long))
        return Splits(data[:4], data[4:5], data[5:])

    try:
        assert load_data("checks").test.images.shape == (1, 1, 4, 4)
        assert load_data("checks:size=6").train.images.shape == (4, 1, 6, 6)
        assert TrainConfig(data="checks:size=6").data == "checks:size=6"
        with pytest.raises(ValueError, match="data set 'checks' has no option 'sise'; it has size"):
            TrainConfig(data="checks:sise=6")
    finally:
        del DATASETS.pieces["checks"]
    with pytest.raises(ValueError, match=r"no data set 'digitz' \(did you mean digits\?\)"):
        TrainConfig(data="digitz")


def test_unknown_names_and_folders(tmp_path):
    with pytest.raises(
        ValueError, match=r"no data set .mnits. .did you mean mnist\?.; choose from digits, mnist"
    ):
        load_data("mnits")
    with pytest.raises(FileNotFoundError, match="data folder .*nowhere does not exist"):
        load_data("mnist", tmp_path / "nowhere")


def test_data_that_are_not_there_and_cannot_be_had(tmp_path, monkeypatch):
    import torchvision.datasets.mnist

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", offline)
    with pytest.raises(FileNotFoundError, match="MNIST is not in .* since it cannot be downloaded"):
        load_data("mnist", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "omniglot"])
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (URLError(OSError(-3, "Temporary failure in name resolution")), "Temporary failure in"),
        (HTTPError("http://x", 404, "Not Found", None, None), "HTTP Error 404: Not Found"),
        (PermissionError(13, "Permission denied", "MNIST"), "Permission denied"),
        (IncompleteRead(b"", 9), "IncompleteRead"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_why_a_download_failed_is_said_once_in_one_sentence(
    tmp_path, monkeypatch, name, error, cause
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(FileNotFoundError) as raised:
        load_data(name, tmp_path)
    said = str(raised.value)
    assert re.fullmatch(r"\w+ is not in .*since it cannot be downloaded: [^\n]*[^:\n]\.", said)
    assert said.count(cause) == 1
    assert "urlopen" not in said
    assert not list(tmp_path.iterdir()), "no empty folders are left"


def idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def small_mnist(tmp_path):
    """A folder laid out as MNIST's, with a few images."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, n in (("train", 30), ("t10k", 10)):
        images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        idx(raw / f"{name}-images-idx3-ubyte", images)
        idx(raw / f"{name}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return tmp_path


def test_mnist_files_are_read_as_they_are(small_mnist):
    splits = load_data("mnist", small_mnist)
    raw = np.fromfile(small_mnist / "MNIST/raw/t10k-images-idx3-ubyte", np.uint8, offset=16)
    number = splits.test.labels  # which is that in the file
    assert sorted(number.tolist()) == list(range(10)) != number.tolist(), "in another order"
    wanted = torch.from_numpy(raw).float().view(10, 1, 28, 28) / 255
    assert torch.equal(splits.test.images, wanted[number])
    assert splits.train.pixels.dtype == torch.uint8
    assert torch.equal(load_data("mnist", small_mnist).test.labels, number)


def test_an_image_file_cut_short(small_mnist):
    path = small_mnist / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="MNIST in .* is damaged"):
        load_data("mnist", small_mnist)


def test_labels_of_another_length(small_mnist):
    idx(small_mnist / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(7, np.uint8))
    with pytest.raises(ValueError, match="damaged: 30 images and 7 labels"):
        load_data("mnist", small_mnist)


@pytest.fixture
def small_omniglot(tmp_path):
    """Two characters of each set, 20 drawings each."""
    folder = tmp_path / "omniglot-npz"
    folder.mkdir()
    for seed, name in enumerate(("background", "evaluation")):
        paper = np.random.default_rng(seed).random((2, 20, 105, 105)) < 0.95
        np.savez(folder / f"omniglot_{name}.npz", images=paper)
    return tmp_path


def shrunk(ink):
    """A drawing at 28x28."""
    return shrink(torch.from_numpy(ink).view(1, 1, 105, 105))[0]


def nearest(images, ink):
    """Which of the images is a drawing."""
    return int((images - shrunk(ink)).abs().sum((1, 2, 3)).argmin())


def test_from_npz(small_omniglot):
    splits = load_data("omniglot", small_omniglot)
    check(splits, [36, 4, 40])
    assert splits.train.labels.tolist() == [0] * 18 + [1] * 18
    assert splits.validation.labels.tolist() == [0, 1] * 2
    assert splits.test.labels.tolist() != sorted(splits.test.labels.tolist()), "as chance has it"
    assert splits.test.labels.bincount().tolist() == [0, 0, 20, 20], "other characters than those"
    with np.load(small_omniglot / "omniglot-npz" / "omniglot_evaluation.npz") as arrays:
        ink = ~arrays["images"]
    for character in range(2):
        which = nearest(splits.test.images, ink[character, 0])
        assert splits.test.labels[which] == character + 2
    torch.testing.assert_close(
        splits.test.images.mean(), torch.tensor(ink.mean()).float(), rtol=0.05, atol=0
    )
    again = load_data("omniglot", small_omniglot).test
    assert torch.equal(again.images, splits.test.images)


def test_whole_alphabets_are_held_out(tmp_path, monkeypatch):
    paper = np.random.default_rng(0).random((7, 20, 105, 105)) < 0.95
    names = np.array(["Arcadian", *HELD_OUT, "Zulu"])
    folder = tmp_path / "omniglot-npz"
    folder.mkdir()
    np.savez(folder / "omniglot_background.npz", images=paper, alphabet=names)
    np.savez(folder / "omniglot_evaluation.npz", images=paper[:2], alphabet=names[:2])
    splits = load_data("omniglot-alphabets", tmp_path)
    check(splits, [40, 100, 40])
    assert splits.train.labels.unique().tolist() == [0, 6]
    assert splits.validation.labels.tolist() == [1, 2, 3, 4, 5] * 20, "drawing by drawing"
    assert torch.equal(splits.train.images[20], shrunk(~paper[6, 0]))
    assert torch.equal(splits.test.images, load_data("omniglot", tmp_path).test.images)
    monkeypatch.setattr("inference.data.omniglot.download", lambda *_, **__: None)
    files = tmp_path / "files"
    for kind, chosen in (("images_background", range(7)), ("images_evaluation", range(2))):
        for i in chosen:
            place = files / "omniglot-py" / kind / str(names[i]) / "character01"
            place.mkdir(parents=True)
            for k in range(20):
                Image.fromarray(paper[i, k]).save(place / f"{i}_{k + 1:02d}.png")
    others = load_data("omniglot-alphabets", files)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(splits, split).images, getattr(others, split).images)
    np.savez(folder / "omniglot_background.npz", images=paper[:3], alphabet=names[:3])
    with pytest.raises(ValueError, match="has no alphabet Inuktitut"):
        load_data("omniglot-alphabets", tmp_path)


def test_new_characters_are_those_of_omniglot_s_test_split(small_omniglot):
    unseen = load_data("omniglot", small_omniglot).test
    new = load_data("omniglot-new", small_omniglot)
    check(new, [30, 2, 8])
    everything = torch.cat([new.train.images, new.validation.images, new.test.images])
    sums = [images.sum((1, 2, 3)).sort().values for images in (everything, unseen.images)]
    assert torch.equal(*sums)
    with np.load(small_omniglot / "omniglot-npz" / "omniglot_evaluation.npz") as arrays:
        ink = ~arrays["images"]
    for split, drawings in (
        (new.train, range(15)),
        (new.validation, [15]),
        (new.test, range(16, 20)),
    ):
        assert split.labels.bincount().tolist() == [0, 0, len(drawings), len(drawings)]
        for drawing in drawings:
            assert split.labels[nearest(split.images, ink[1, drawing])] == 3
            distance = (split.images - shrunk(ink[1, drawing])).abs().sum((1, 2, 3))
            assert distance.min() < 1e-3, "it is there"


def test_all_of_omniglot_is_both_and_is_tested_on_the_new(small_omniglot):
    old, new = (load_data(name, small_omniglot) for name in ("omniglot", "omniglot-new"))
    both = load_data("omniglot-all", small_omniglot)
    check(both, [66, 6, 8])
    assert torch.equal(both.train.images, torch.cat([old.train.images, new.train.images]))
    assert both.train.labels.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(both.test.images, new.test.images)


def test_omniglot_is_read_from_torchvision_s_folders(tmp_path, monkeypatch):
    monkeypatch.setattr("inference.data.omniglot.download", lambda *_, **__: None)
    with pytest.raises(ValueError, match="images_background is damaged: it holds no drawings"):
        load_data("omniglot", tmp_path)
    paper = np.random.default_rng(0).random((2, 2, 20, 105, 105)) < 0.95
    for kind, name in enumerate(("images_background", "images_evaluation")):
        for character, place in enumerate(("Abc/character02", "Xyz/character01")):
            folder = tmp_path / "omniglot-py" / name / place
            folder.mkdir(parents=True)
            for drawing in reversed(range(20)):
                image = Image.fromarray(paper[kind, character, drawing])
                image.save(folder / f"0{character}_{drawing + 1:02d}.png")
    splits = load_data("omniglot", tmp_path)
    check(splits, [36, 4, 40])
    assert splits.train.labels.tolist() == [0] * 18 + [1] * 18
    for character in range(2):
        for drawing in range(18):
            wanted = shrunk(~paper[0, character, drawing])
            assert torch.equal(splits.train.images[18 * character + drawing], wanted)


def test_some_classes_alone():
    whole = load_data("digits")
    some = whole.of([3, 8])
    for split, all_of_it in zip(
        (some.train, some.validation, some.test),
        (whole.train, whole.validation, whole.test),
        strict=True,
    ):
        chosen = (all_of_it.labels == 3) | (all_of_it.labels == 8)
        assert torch.equal(split.images, all_of_it.images[chosen])
        assert torch.equal(split.labels, all_of_it.labels[chosen])
    with pytest.raises(ValueError, match="Class 12 is not in every split; classes go from 0 to 9"):
        whole.of([3, 12])


def test_an_npz_file_cut_short(small_omniglot):
    path = small_omniglot / "omniglot-npz" / "omniglot_evaluation.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"omniglot_evaluation\.npz is damaged"):
        load_data("omniglot", small_omniglot)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="needs both npz files"):
        load_data("omniglot", small_omniglot)


def test_binary_images_have_the_intensity_as_probability_and_are_always_the_same():
    plain, binary = load_data("digits"), load_data("digits", binarize=True)
    assert set(binary.train.images.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(binary.test.images, load_data("digits", binarize=True).test.images)
    assert torch.equal(binary.test.labels, plain.test.labels)
    p = plain.train.images
    grey = p[(p > 0.4) & (p < 0.6)]
    drawn = binary.train.images[(p > 0.4) & (p < 0.6)]
    error = (grey * (1 - grey)).sum().sqrt() / len(grey)
    assert (drawn.mean() - grey.mean()).abs() < 4 * error


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "ink", "sizes"),
    [
        ("mnist", 0.1307, [55_000, 5_000, 10_000]),
        ("fashion", 0.2860, [55_000, 5_000, 10_000]),
        ("omniglot", None, [17_352, 1_928, 13_180]),
    ],
)
def test_the_real_sets(name, ink, sizes):
    splits = load_data(name, DATA)
    check(splits, sizes)
    if ink is not None:  # the sets' published means
        whole = torch.cat([splits.train.images, splits.validation.images])
        assert whole.mean().item() == pytest.approx(ink, abs=1e-4)


@pytest.mark.data
def test_torchvision_s_omniglot_equals_the_npz_files(tmp_path, monkeypatch):
    import torchvision.datasets
    from PIL import Image

    from inference.data.omniglot import _from_npz, _from_torchvision

    with np.load(DATA / "omniglot-npz" / "omniglot_background.npz") as arrays:
        characters, images = [0, 1, 20, 500], arrays["images"]
        for k in characters:
            folder = "omniglot-py/images_background"
            folder = tmp_path / folder / arrays["alphabet"][k] / arrays["character"][k]
            folder.mkdir(parents=True)
            for d in range(20):
                Image.fromarray(images[k, d]).save(
                    folder / f"{arrays['char_id'][k]:04d}_{d + 1:02d}.png"
                )
    monkeypatch.setattr(torchvision.datasets.Omniglot, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.Omniglot, "download", lambda self: None)
    unpacked = _from_torchvision(tmp_path, background=True)
    whole = _from_npz(DATA, background=True)
    wanted = torch.cat([whole.images[k * 20 : k * 20 + 20] for k in characters])
    assert torch.equal(unpacked.images, wanted)
    assert unpacked.labels.tolist() == [k for k in range(4) for _ in range(20)]
    shutil.rmtree(tmp_path)
