"""Images from folders, files, torchvision and memory: what is read, split and scaled."""

import re

import numpy as np
import pytest
import torch
import torchvision.datasets
from PIL import Image
from torch.utils.data import Dataset, TensorDataset

from inference.config import TrainConfig
from inference.data import ImageSet, Splits, image_shape, load_data
from tests.inference.data.test_datasets import idx


def drawings(count, size=12, seed=0):
    """Different light squares on a dark ground."""
    random = np.random.default_rng(seed)
    images = np.zeros((count, size, size), np.uint8)
    for image in images:
        y, x = random.integers(1, size - 5, 2)
        image[y : y + 4, x : x + 3] = random.integers(100, 256, (4, 3))
    return images


def write(images, folder, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03d}.{suffix}")
    return folder


def three(splits):
    return splits.train, splits.validation, splits.test


def rows(data):
    return {image.numpy().tobytes() for image in data.pixels}


def everything(splits):
    return set.union(*(rows(split) for split in three(splits)))


def test_a_flat_folder_is_split_by_the_hash_of_each_file(tmp_path):
    images = drawings(60)
    folder = write(images, tmp_path / "drawings")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".hidden.png").write_text("nor this")
    splits = load_data(str(folder))
    assert sum(map(len, three(splits))) == 60
    assert min(map(len, three(splits))) > 1
    assert everything(splits) == {image.tobytes() for image in images}
    assert splits.train.pixels.dtype == torch.uint8
    assert splits.train.labels.unique().tolist() == [0]
    assert splits.train.class_names == ()
    assert splits.train.pixels.shape[1:] == image_shape(folder) == (1, 12, 12)
    again = load_data(folder)
    assert torch.equal(again.test.pixels, splits.test.pixels)
    before = [rows(split) for split in three(splits)]
    write(np.concatenate([images, drawings(30, seed=1)]), folder)
    assert all(a < rows(b) for a, b in zip(before, three(load_data(folder)), strict=True)), (
        "new images move no others"
    )


def test_equal_images_fall_into_one_split():
    images = np.repeat(drawings(40), 2, 0)
    splits = load_data(images)
    sets = [rows(split) for split in three(splits)]
    assert sum(map(len, sets)) == 40
    assert sum(map(len, three(splits))) == 80


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_no_split_is_empty_as_long_as_there_are_three_images(count):
    for seed in range(20):
        splits = load_data(drawings(count, seed=seed))
        assert min(map(len, three(splits))) > 0
        assert sum(map(len, three(splits))) == count


def test_too_few_images_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the array has too few different images, 2: at least 3 "):
        load_data(drawings(2))
    with pytest.raises(
        ValueError, match="too few different images, 1: .* one each for validation and test"
    ):
        load_data(np.repeat(drawings(1), 50, 0))
    with pytest.raises(ValueError, match=r"Every pixel of the array is missing \(NaN"):
        load_data(np.full((9, 8, 8), np.nan))
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match="holds no image files"):
        load_data(tmp_path)
    (tmp_path / "words.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"words.npy cannot be read: it is no \.npy and no \.npz"):
        load_data(tmp_path / "words.npy")
    np.save(tmp_path / "objects.npy", np.array([None, 1]))
    with pytest.raises(ValueError, match="it holds Python objects, not numbers"):
        load_data(tmp_path / "objects.npy")


def test_a_folder_for_each_class(tmp_path):
    images = drawings(60)
    for name, some in (("cat", images[:30]), ("ant", images[30:])):
        write(some[:20], tmp_path / name)
        write(some[20:], tmp_path / name / "more" / "still more")
    splits = load_data(tmp_path)
    assert splits.train.class_names == ("ant", "cat")
    for split in three(splits):
        for image, label in zip(split.pixels, split.labels, strict=True):
            where = (images == image.numpy()).all((1, 2)).nonzero()[0][0]
            assert label == (0 if where >= 30 else 1)
    assert set(load_data(tmp_path, classes=[1]).train.labels.tolist()) == {1}


@pytest.mark.parametrize("validation", ["val", "valid", "Validation", None])
@pytest.mark.parametrize("labelled", [True, False])
def test_folders_for_splits(tmp_path, validation, labelled, capsys):
    made = {"train": drawings(40), "test": drawings(9, seed=1)}
    if validation is not None:
        made[validation] = drawings(5, seed=2)
    for name, images in made.items():
        half = len(images) // 2
        if labelled:
            write(images[:half], tmp_path / name / "b")
            write(images[half:], tmp_path / name / "c")
        else:
            write(images, tmp_path / name)
    splits = load_data(tmp_path)
    assert rows(splits.test) == {image.tobytes() for image in made["test"]}
    assert everything(splits) == {i.tobytes() for images in made.values() for i in images}
    if validation is None:
        assert 0 < len(splits.validation) < 10
    else:
        assert rows(splits.validation) == {image.tobytes() for image in made[validation]}
    assert splits.test.class_names == (("b", "c") if labelled else ())
    assert not capsys.readouterr().err


def test_classes_that_are_called_like_splits_are_classes(tmp_path):
    write(drawings(20), tmp_path / "train")
    write(drawings(20, seed=1), tmp_path / "plane")
    assert load_data(tmp_path).train.class_names == ("plane", "train")


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (
            ["train", "test", "extra"],
            r"for splits \(test, train\) beside .* \(extra\); move",
        ),
        (["val", "test", "extra"], r"for splits \(test, val\) beside others .* \(extra\); move"),
        (["val", "test"], r"has folders for splits \(test, val\), but none is train"),
    ],
)
def test_folders_beside_those_for_splits_are_refused(tmp_path, folders, says):
    for seed, name in enumerate(folders):
        write(drawings(20, seed=seed), tmp_path / name)
    with pytest.raises(ValueError, match=says):
        load_data(tmp_path)
    with pytest.raises(ValueError, match=says):
        image_shape(tmp_path)


def test_files_beside_class_folders_are_told_of(tmp_path, capsys):
    write(drawings(20), tmp_path / "one")
    write(drawings(1, seed=1), tmp_path)
    assert sum(map(len, three(load_data(tmp_path)))) == 20
    assert "1 image files beside the class folders" in capsys.readouterr().err


def test_damaged_files_are_named(tmp_path):
    write(drawings(20), tmp_path)
    for number in (3, 7):
        path = tmp_path / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(
        ValueError, match=r"^2 of the 20 image files in .* cannot be read: 003\.png, 007\.png \(the"
    ) as e:
        load_data(tmp_path)
    assert "\n" not in str(e.value)
    (tmp_path / "003.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"003\.png, 007\.png \(the first") as e:
        load_data(tmp_path)
    assert str(e.value).endswith(
        "(the first is not an image that can be read: its format is not known); repair or remove "
        "them."
    )


def test_files_of_many_kinds_in_one_folder(tmp_path):
    light = drawings(40)
    write(light[:10], tmp_path)
    write(light[10:20], tmp_path, "bmp")
    write(255 - light[20:30], tmp_path, "tif")
    for i, image in enumerate(light[30:]):
        Image.fromarray(np.stack([image] * 3, -1)).save(tmp_path / f"{i}.PNG")
    splits = load_data(tmp_path)
    assert everything(splits) == {image.tobytes() for image in light}
    assert splits.train.pixels.shape[1] == 1
    assert splits.inverted is None


def test_images_of_other_sizes_need_a_size(tmp_path):
    write(drawings(10), tmp_path / "a")
    write(drawings(10, size=20), tmp_path / "b")
    with pytest.raises(
        ValueError, match=r"different sizes \(12 x 12 and 20 x 20 pixels\): give --si"
    ):
        load_data(tmp_path)
    splits = load_data(tmp_path, size=10)
    assert splits.test.pixels.shape[1:] == image_shape(tmp_path, size=10) == (1, 10, 10)
    wide = np.zeros((5, 10, 30), np.uint8)
    with pytest.raises(
        ValueError, match="images of 30 x 10 pixels, and a model reads squares: give"
    ):
        load_data(wide)
    with pytest.raises(ValueError, match="30 x 10"):
        image_shape(wide)


def test_images_that_are_not_square_get_margins_of_their_border():
    wide = np.full((10, 8, 16), 51, np.uint8)
    wide[:, 2:6, 4:12] = 200 + np.arange(10)[:, None, None].astype(np.uint8)
    found = load_data(wide, size=16).train.pixels
    assert found[:, :, [0, 1, 2, 3, -1]].eq(51).all()
    assert found[0, 0, 8, 8] >= 200
    assert load_data(wide, size=8).train.pixels.shape[1:] == (1, 8, 8)


def test_scaling_is_antialiased():
    checks = np.indices((32, 32)).sum(0) % 2 * np.uint8(255)
    images = np.stack([np.where(np.arange(32)[:, None] < i, 0, checks) for i in range(3, 9)])
    found = load_data(images.astype(np.uint8), size=8).train.images
    assert (found[:, :, 4:] - 0.5).abs().max() < 0.1


def paper(count, seed=0):
    return 255 - drawings(count, seed=seed)


def test_grey_images_are_swapped_each_for_itself(capsys):
    mixed = np.concatenate([drawings(20), paper(20, seed=1)])
    splits = load_data(mixed)
    said = capsys.readouterr().err
    assert "20 of 40 images of the array are dark on a light ground" in said
    assert everything(splits) == everything(
        load_data(np.concatenate([mixed[:20], 255 - mixed[20:]]))
    )
    assert splits.inverted is None
    capsys.readouterr()
    plain = load_data(mixed, invert=False)
    assert everything(plain) == {image.tobytes() for image in mixed}
    assert everything(load_data(mixed, invert=True)) == {i.tobytes() for i in 255 - mixed}
    assert not capsys.readouterr().err
    assert (plain.inverted, load_data(mixed, invert=True).inverted) == (False, True)


def in_colour(grey, seed=0):
    """A drawing of another colour, on the same ground."""
    tint = np.random.default_rng(seed).random((len(grey), 1, 1, 3))
    return (255 - (255 - grey[..., None]) * tint).astype(np.uint8)


def test_images_in_colour_are_swapped_all_or_none(capsys):
    light_ground = np.concatenate([in_colour(paper(30)), 255 - in_colour(paper(10, seed=1))])
    splits = load_data(light_ground)
    assert splits.inverted is True
    assert "40 of 40 images" in capsys.readouterr().err
    assert everything(splits) == {
        image.tobytes()
        for image in np.ascontiguousarray((255 - light_ground).transpose(0, 3, 1, 2))
    }
    dark = load_data(255 - light_ground)
    assert dark.inverted is False
    assert not capsys.readouterr().err


@pytest.mark.parametrize("channels", [None, 1])
def test_photographs_stay(channels, capsys):
    from sklearn.datasets import load_sample_images

    patches = np.concatenate([
        photo[:416, :640].reshape(13, 32, 20, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
        for photo in load_sample_images().images
    ])  # fmt: skip
    splits = load_data(patches, channels=channels)
    assert splits.inverted is False
    assert splits.train.pixels.shape[1] == (channels or 3)
    grey = load_data(patches.mean(-1).astype(np.uint8))
    assert grey.inverted is False
    assert not capsys.readouterr().err


def test_light_images_that_are_no_drawings_stay_and_are_told_of(capsys):
    noise = np.random.default_rng(0).integers(100, 256, (30, 12, 12), dtype=np.uint8)
    assert load_data(noise).inverted is False
    assert "Most images of the array have a light border, but not" in capsys.readouterr().err


def test_channels_follow_the_images_unless_given():
    grey, colour = drawings(30), in_colour(paper(30))
    as_colour = np.stack([grey] * 3, -1)
    assert load_data(as_colour).train.pixels.shape[1:] == image_shape(as_colour) == (1, 12, 12)
    assert load_data(colour).train.pixels.shape[1:] == image_shape(colour) == (3, 12, 12)
    assert load_data(grey, channels=3).train.pixels.shape[1] == 3
    assert image_shape(grey, channels=3) == (3, 12, 12)
    found = load_data(colour, channels=1, invert=False).train.images
    wanted = load_data(colour, invert=False).train.images
    luma = (wanted * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    assert (found - luma).abs().max() < 0.01
    assert load_data("digits", channels=3).train.pixels.shape == (1257, 3, 28, 28)


def test_a_named_data_set_can_have_another_size():
    digits, large = load_data("digits"), load_data("digits", size=40)
    assert large.test.pixels.shape == (360, 1, 40, 40)
    assert image_shape("digits", size=40) == (1, 40, 40)
    assert torch.equal(large.test.labels, digits.test.labels)
    assert torch.equal(load_data("digits", invert=True).test.images, 1 - digits.test.images)
    strokes = load_data("strokes", size=14).test[:50]
    assert strokes.segments.shape == (50, 2, 14, 14)


@pytest.mark.parametrize("shape", ["nhw", "nhwc", "nchw", "nhw bool", "nhw float"])
def test_npy_files(tmp_path, shape):
    grey = np.where(drawings(30) > 0, 255, 0).astype(np.uint8)
    made = {
        "nhw": grey,
        "nhwc": np.stack([grey] * 3, -1),
        "nchw": np.stack([grey] * 3, 1),
        "nhw bool": grey > 0,
        "nhw float": (grey / 255).astype(np.float64),
    }[shape]
    np.save(tmp_path / "a.npy", made)
    splits = load_data(str(tmp_path / "a.npy"))
    found = torch.cat([split.images for split in three(splits)])
    assert {(255 * i).byte().numpy().tobytes() for i in found} == {i.tobytes() for i in grey}
    assert splits.train.pixels.dtype == (torch.float32 if "float" in shape else torch.uint8)


def test_npz_files_with_labels_and_splits(tmp_path):
    images, labels = drawings(40), np.arange(40) % 4
    file = tmp_path / "a.npz"
    np.savez(file, images=images, labels=labels)
    whole = load_data(file)
    assert sorted(torch.cat([s.labels for s in three(whole)]).tolist()) == sorted(labels)
    words = np.array(["train"] * 30 + ["val"] * 4 + ["test"] * 6)
    for split in (words, np.array([0] * 30 + [1] * 4 + [2] * 6)):
        np.savez(file, images=images, labels=np.array(list("abcd"))[labels], split=split)
        splits = load_data(file)
        np.savez(file, images=images, splits=split, mask=images > 0)
        assert [len(s) for s in three(load_data(file))] == [30, 4, 6]
        assert load_data(file).test.images.isnan().any()
        assert [len(s) for s in three(splits)] == [30, 4, 6]
        assert rows(splits.test) == {image.tobytes() for image in images[34:]}
        assert splits.test.class_names == ("a", "b", "c", "d")
        number = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
        assert [
            number[i.numpy().tobytes()] for i in splits.test.pixels
        ] == splits.test.labels.tolist()


def test_npz_files_as_medmnist_has_them(tmp_path):
    images, labels = drawings(40), (np.arange(40) % 4)[:, None].astype(np.uint8)
    parts = {"train": slice(30), "val": slice(30, 34), "test": slice(34, 40)}
    arrays = {f"{k}_images": images[v] for k, v in parts.items()}
    arrays |= {f"{k}_labels": labels[v] for k, v in parts.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    splits = load_data(tmp_path / "a.npz")
    assert [len(s) for s in three(splits)] == [30, 4, 6]
    assert sorted(splits.test.labels.tolist()) == sorted(labels[34:, 0].tolist())
    np.savez(tmp_path / "b.npz", **{k: v for k, v in arrays.items() if not k.startswith("val")})
    splits = load_data(tmp_path / "b.npz")
    assert len(splits.train) + len(splits.validation) == 30
    assert len(splits.test) == 6


def test_names_as_labels_are_numbered_over_all_splits(tmp_path):
    train, test = drawings(30), drawings(6, seed=1)
    np.savez(
        tmp_path / "a.npz",
        train_images=train,
        train_labels=np.array(["ant", "cat"] * 15),
        test_images=test,
        test_labels=np.array(["cat"] * 5 + ["yak"]),
    )
    splits = load_data(tmp_path / "a.npz")
    assert {split.class_names for split in three(splits)} == {("ant", "cat", "yak")}
    assert sorted(splits.test.labels.tolist()) == [1] * 5 + [2]
    for image, label in zip(splits.train.pixels, splits.train.labels, strict=True):
        assert label == (train == image.numpy()).all((1, 2)).nonzero()[0][0] % 2


@pytest.mark.parametrize("masked", ["train", "test"])
@pytest.mark.parametrize("size", [None, 8])
@pytest.mark.parametrize("dtype", [np.uint8, float])
def test_a_split_without_masks_is_seen_wholly(tmp_path, masked, size, dtype):
    white = 255 if dtype is float else 1
    arrays = {"train_images": drawings(30), "test_images": drawings(6, seed=1)}
    arrays = {name: (images / white).astype(dtype) for name, images in arrays.items()}
    arrays[f"{masked}_masks"] = np.ones(arrays[f"{masked}_images"].shape, bool)
    arrays[f"{masked}_masks"][:, :4] = False
    np.savez(tmp_path / "a.npz", **arrays)
    splits = load_data(tmp_path / "a.npz", size=size)
    missing = {"train": splits.train.images.isnan(), "test": splits.test.images.isnan()}
    assert missing.pop(masked)[:, :, :2].all()
    assert not any(there.any() for there in missing.values())


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"images": drawings(9), "sets": np.zeros(9), "lables": np.zeros(9)},
            r"holds sets, lables, which would be left out; it may hold images, labels, masks and s",
        ),
        ({"images": drawings(9), "val_images": drawings(2)}, "holds val_images, which would be"),
        ({"train_images": drawings(9), "val_labels": np.zeros(2)}, "holds val_labels, which would"),
        ({"train_images": drawings(9), "split": np.zeros(9)}, "holds split, which would be left"),
        (
            {"train_images": drawings(9), "train_labels": np.ones(9), "val_images": drawings(2)},
            r"has labels of train, but not of validation; give labels of all splits or of none",
        ),
        ({"a": np.zeros(3)}, r"must hold images, or train_images and the like; it holds a\."),
        (
            {"images": np.zeros((5, 784), np.uint8)},
            r"must have shape \(N, H, W\), .* got \(5, 784\)",
        ),
        ({"images": np.zeros((5, 8, 8, 4), np.uint8)}, "with 1 or 3 channels"),
        ({"images": np.zeros((5, 8, 8), int)}, "must hold bytes .*got int64; astype"),
        ({"images": np.full((5, 8, 8), 255.0)}, "floats in .* got values from 255 to 255; divide"),
        ({"images": drawings(9), "labels": np.zeros(8)}, "9 images, but labels of shape"),
        ({"images": drawings(9), "labels": np.full(9, -1)}, "must be whole numbers from 0"),
        ({"images": drawings(9), "labels": np.full(9, 0.5)}, "must be whole numbers from 0"),
        ({"images": drawings(9), "split": np.full(9, 7)}, "train, validation or test .*, got 7"),
        ({"images": drawings(9), "split": np.full(9, "test")}, "has no images to learn from"),
        (
            {"images": drawings(9), "masks": np.ones((9, 3, 3))},
            r"must have shape \(9, 12, 12\), got",
        ),
        ({"images": np.array([None, 1])}, "holds Python objects"),
    ],
)
def test_a_file_that_is_otherwise_is_refused_in_a_sentence(tmp_path, arrays, says):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=says) as raised:
        load_data(tmp_path / "a.npz")
    assert "a.npz" in str(raised.value)
    assert str(raised.value).count("cannot be read") <= 1


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK no")
    (tmp_path / "b.npy").write_bytes(b"\x93NUMPY no")
    (tmp_path / "c.csv").write_text("1,2")
    for name in ("a.npz", "b.npy"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            load_data(tmp_path / name)
    with pytest.raises(ValueError, match=r"c.csv is neither a folder of images nor a \.npy"):
        load_data(tmp_path / "c.csv")
    with pytest.raises(FileNotFoundError, match=r"The images .*d\.npz do not exist"):
        load_data(str(tmp_path / "d.npz"))


def test_missing_pixels_of_files(tmp_path):
    images, seen = drawings(30), np.random.default_rng(0).random((30, 12, 12)) < 0.8
    np.savez(tmp_path / "a.npz", images=images, masks=seen)
    masked = load_data(tmp_path / "a.npz")
    assert masked.train.pixels.dtype == torch.uint8
    floats = np.where(seen, images / 255, np.nan).astype(np.float32)
    np.save(tmp_path / "a.npy", floats)
    for splits in (masked, load_data(tmp_path / "a.npy"), load_data(images, masks=seen)):
        found = torch.cat([split.images for split in three(splits)])[:, 0].numpy()
        assert sorted(i.tobytes() for i in found) == sorted(i.tobytes() for i in floats)
    hidden = load_data(255 - images, masks=seen)
    assert hidden.train.images.nanmean() < 0.2, "the ground is found without them"


@pytest.mark.parametrize("masked", [True, False])
def test_scaling_with_missing_pixels(masked):
    images = np.full((9, 16, 16), 102, np.uint8) + np.arange(9, dtype=np.uint8)[:, None, None]
    seen = np.ones((9, 16, 16), bool)
    seen[:, 4:12, 4:12] = False
    if masked:
        splits = load_data(images, masks=seen, size=8, invert=False)
    else:
        floats = np.where(seen, images / 255, np.nan)
        splits = load_data(floats, size=8, invert=False)
    found = splits.train.images
    hole = found.isnan()
    assert hole[:, :, 3:5, 3:5].all()
    assert not hole[:, :, [0, 1, 6, 7]].any()
    known = found[~hole]
    assert known.min() > 0.39
    assert known.max() < 0.44


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, number):
        return self.items[number]


def test_torch_data_sets():
    images, labels = torch.from_numpy(drawings(30))[:, None], torch.arange(30) % 3
    wanted = {image.numpy().tobytes() for image in images}
    pictures = [Image.fromarray(image.numpy()[0]) for image in images]
    for items in (
        TensorDataset(images, labels),
        Items([(image, int(n)) for image, n in zip(images, labels, strict=True)]),
        Items(list(zip(pictures, labels.tolist(), strict=True))),
        Items(pictures),
        TensorDataset(images),
        Items([(picture,) for picture in pictures]),
        pictures,
        [image.numpy()[0] for image in images],
        Items([(image / 255, 0) for image in images]),
    ):
        splits = load_data(items)
        found = torch.cat([split.images for split in three(splits)])
        assert {(255 * i).round().byte().numpy().tobytes() for i in found} == wanted
    assert image_shape(Items(pictures)) == (1, 12, 12)
    with pytest.raises(ValueError, match="item 0 of the data set must be an image or .*, got str"):
        load_data(Items(["a", "b", "c"]))
    with pytest.raises(ValueError, match="The label of item 0 .* whole number from 0, got 'cat'"):
        load_data(Items([(pictures[0], "cat")] * 3))
    with pytest.raises(TypeError, match="Images come from a name, .* got float"):
        load_data(0.5)


@pytest.mark.parametrize("size", [None, 8])
def test_items_that_were_bytes_are_held_as_bytes(size):
    images = torch.from_numpy(drawings(30))[:, None].float() / 255
    splits = load_data(Items(images), size=size)
    assert splits.train.pixels.dtype == torch.uint8
    if size is None:
        found = torch.cat([split.images for split in three(splits)])
        assert {image.numpy().tobytes() for image in found} == {i.numpy().tobytes() for i in images}
    dim = (images > 0).byte()
    assert load_data(Items(dim), size=size).train.pixels.max() == 1
    for odd in (0.3, torch.nan):
        images[7, 0, 0, 0] = odd
        assert load_data(Items(images), size=size).train.pixels.dtype == torch.float32


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_or_channels_that_no_model_has(size):
    for source in ("digits", drawings(9), ImageSet(torch.rand(9, 1, 8, 8), torch.arange(9))):
        for call in (load_data, image_shape):
            with pytest.raises(ValueError, match=f"size must be at least 1 pixel, got {size}"):
                call(source, size=size)
            with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
                call(source, channels=2)
    with pytest.raises(ValueError, match=f"size must be at least 1 pixel, got {size}"):
        TrainConfig(size=size)
    assert TrainConfig(size=3).size == 3
    assert load_data(drawings(9), size=3).train.pixels.shape[1:] == (1, 3, 3)


def test_tensors_and_image_sets():
    images = torch.rand(30, 3, 8, 8)
    splits = load_data(images, labels=["a", "b", "c"] * 10, invert=False)
    assert splits.train.pixels.dtype == torch.float32
    assert splits.train.class_names == ("a", "b", "c")
    data = ImageSet(images, torch.arange(30))
    held = load_data(data)
    assert torch.equal(held.test.pixels, splits.test.pixels)
    assert torch.equal(held.test.pixels, images[held.test.labels])
    given = Splits(data[:20], data[20:25], data[25:])
    assert load_data(given).test.pixels is given.test.pixels
    assert load_data(given, size=4, channels=1).test.pixels.shape == (5, 1, 4, 4)
    assert image_shape(given, size=4) == (3, 4, 4)


@pytest.fixture
def kmnist(tmp_path):
    """A folder laid out as KMNIST's, whose format is MNIST's."""
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (name, n) in enumerate((("train", 60), ("t10k", 10))):
        idx(raw / f"{name}-images-idx3-ubyte", drawings(n, 28, seed))
        idx(raw / f"{name}-labels-idx1-ubyte", np.arange(n, dtype=np.uint8) % 10)
    return tmp_path


def test_torchvision_s_kmnist(kmnist):
    splits = load_data("torchvision:KMNIST", kmnist)
    assert len(splits.train) + len(splits.validation) == 60
    assert rows(splits.test) == {i.tobytes() for i in drawings(10, 28, 1)}
    assert sorted(splits.test.labels.tolist()) == list(range(10))
    assert splits.test.class_names[0] == "o"
    assert splits.train.pixels.dtype == torch.uint8
    assert image_shape("torchvision:KMNIST", kmnist) == (1, 28, 28)
    with pytest.raises(FileNotFoundError, match="data folder .* does not exist"):
        load_data("torchvision:KMNIST", kmnist / "no")


class Fake(torchvision.datasets.VisionDataset):
    """Like SVHN: a data set whose constructor takes a split."""

    words = ("train", "val", "test", "extra")
    classes = ("zero", "one")

    def __init__(self, root, split="train", transform=None, download=False, *, count=20):
        if split not in self.words:
            raise ValueError(f"Unknown value '{split}' for argument split.")
        seed = ("train", "valid", "val", "test", "extra").index(split)
        self.pictures = in_colour(paper(count, seed), seed)

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, number):
        return Image.fromarray(self.pictures[number]), number % 2


class Valid(Fake):
    words = ("train", "valid")


class Unsplit(torchvision.datasets.VisionDataset):
    def __init__(self, root, download=False):
        self.data, self.labels = in_colour(paper(50)), np.arange(50)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, number):
        return Image.fromarray(self.data[number]), self.labels[number]


@pytest.fixture
def fakes(monkeypatch):
    for fake in (Fake, Valid, Unsplit):
        monkeypatch.setattr(torchvision.datasets, fake.__name__, fake, raising=False)


def test_torchvision_data_sets_with_a_split(fakes, tmp_path):
    splits = load_data("torchvision:Fake:count=15", tmp_path, invert=False)
    assert [len(s) for s in three(splits)] == [15, 15, 15]
    wanted = Fake("", "test", count=15).pictures.transpose(0, 3, 1, 2)
    assert rows(splits.test) == {np.ascontiguousarray(i).tobytes() for i in wanted}
    assert splits.test.class_names == ("zero", "one")
    carved = load_data("torchvision:Valid", tmp_path)
    assert len(carved.validation) == 20
    assert len(carved.train) + len(carved.test) == 20
    extra = load_data("torchvision:Fake:split=extra", tmp_path)
    assert sum(map(len, three(extra))) == 20
    assert sum(map(len, three(load_data("torchvision:Unsplit", tmp_path)))) == 50
    for text, says in {
        "torchvision:Fake:colour=1": "Fake has no option 'colour'; it has split, count",
        "torchvision:Fake:split=more": "Unknown value 'more' for argument split",
        "torchvision:Fakes": r"torchvision has no data set 'Fakes' \(did you mean Fake\?\)",
        "torchvision:EMNIST": "EMNIST needs split: give torchvision:EMNIST:split=VALUE",
    }.items():
        with pytest.raises(ValueError, match=says):
            load_data(text, tmp_path)


def test_what_a_text_means_is_said():
    with pytest.raises(ValueError, match=re.escape("choose from digits, ")) as raised:
        load_data("drawings")
    assert "torchvision:NAME" in str(raised.value)
    assert ".npz file" in str(raised.value)
    assert str(raised.value).endswith(", but there is none at 'drawings'.")
    for name, meant in {
        "kmnist": "torchvision:KMNIST",
        "cifar-10:x=1": "torchvision:CIFAR10",
        "MNIST": "mnist",
        "omniglt": "omniglot",
    }.items():
        with pytest.raises(ValueError, match=rf"\(did you mean {meant}\?\); choose from digits"):
            load_data(name)
