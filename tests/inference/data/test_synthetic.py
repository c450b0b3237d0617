"""Made characters: seeded, in the grammar, with a true part for every inked pixel."""

import torch

from inference.data.synthetic import CHARACTERS, MAX_PARTS, MAX_STROKES, strokes


def test_the_same_seed_draws_the_same_images():
    for a, b in zip(strokes(20, seed=3), strokes(20, seed=3), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(strokes(20, seed=3)[0], strokes(20, seed=4)[0])


def test_each_inked_pixel_and_no_other_has_a_part_and_a_stroke_of_it():
    images, labels, segments = strokes(300)
    assert images.min() == 0
    assert images.max() == 1
    part, stroke = segments.unbind(1)
    assert ((part >= 0) == (images[:, 0] > 0)).all()
    assert ((stroke >= 0) == (part >= 0)).all()
    inked = part >= 0
    assert (stroke[inked] // MAX_STROKES == part[inked]).all()
    assert part.max() < MAX_PARTS
    assert labels.unique().tolist() == list(range(CHARACTERS))


def test_a_pixel_lies_by_its_own_part():
    _, _, segments = strokes(200)
    at = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij"), -1)
    right = total = 0
    for part in segments[:, 0]:
        names = part.unique()[1:]
        centres = torch.stack([at[part == name].mean(0) for name in names])
        nearest = names[torch.cdist(at[part >= 0], centres).argmin(1)]
        right += (nearest == part[part >= 0]).sum().item()
        total += len(nearest)
    assert right / total > 0.9


def test_a_stroke_is_one_line():
    _, _, segments = strokes(200)
    at = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij"), -1)
    spread = {"own": [], "part": []}
    for part, stroke in segments:
        for name in stroke.unique()[1:]:
            own = at[stroke == name]
            whole = at[part == part[stroke == name][0]]
            spread["own"].append((own - own.mean(0)).norm(dim=1).mean())
            spread["part"].append((whole - whole.mean(0)).norm(dim=1).mean())
    own, part = (torch.stack(values).mean() for values in spread.values())
    assert own < 0.75 * part


def test_characters_have_two_to_four_parts_of_two_or_three_strokes():
    _, labels, segments = strokes(400)
    for character in range(CHARACTERS):
        mine = segments[labels == character]
        parts = mine[:, 0].unique()
        assert 2 <= len(parts[parts >= 0]) <= 4
        for part in parts[parts >= 0]:
            own = mine[:, 1][mine[:, 0] == part].unique()
            assert 2 <= len(own) <= 3


def test_images_of_a_character_are_alike_and_of_two_are_not():
    images, labels, _ = strokes(600)
    means = torch.stack([images[labels == c].mean(0) for c in range(CHARACTERS)])
    nearest = torch.cdist(images.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == labels).float().mean() > 0.95


def test_ink_stays_inside():
    images, _, _ = strokes(400)
    border = torch.ones(28, 28, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert images[:, 0, border].mean() < 0.01
    assert 0.08 < images.mean() < 0.3


def test_lines_are_antialiased():
    images, _, _ = strokes(100)
    grey = ((images > 0.1) & (images < 0.9)).float().mean()
    assert grey > 0.2 * (images > 0).float().mean()
