"""Distances, nearest parts and primitives."""

import pytest
import torch

from inference.evaluation.part_dictionary import (
    PartLocation,
    PartTable,
    build_dictionary,
    collect_parts,
)
from pyro_rnp import RNP
from tests.conftest import tiny


@pytest.fixture
def parts():
    """Three images of two parts, of three kinds: canvases of 0, 1 and 3."""
    kinds = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 3.0])
    canvases = kinds.view(-1, 1, 1, 1).expand(-1, 1, 2, 2) + 0.01 * torch.rand(6, 1, 2, 2)
    return PartTable(torch.arange(12.0).view(6, 2), canvases, ((0,), (1,)))


def test_parts_are_found_where_they_are(images):
    rnp = RNP(tiny()).eval()
    tree = rnp.parse(images)
    for depth, paths in ((1, [(0,), (1,)]), (2, [(0, 0), (0, 1), (1, 0), (1, 1)])):
        parts = collect_parts(rnp, images, depth, batch_size=3)
        assert len(parts) == 4 * len(paths)
        for image in range(4):
            for path in paths:
                i = parts.index(PartLocation(image, path))
                node = tree
                for j in path:
                    node = node[j]
                assert parts.place(i) == PartLocation(image, path)
                torch.testing.assert_close(parts.programs[i], node.program[image])
                torch.testing.assert_close(parts.canvases[i], node.canvas[image])


def test_the_nearest_are_those_that_draw_alike(parts):
    found = parts.nearest(PartLocation(0, (1,)), k=1)
    assert found[0][0] == PartLocation(2, (0,))
    assert found[0][1] == pytest.approx(
        (parts.canvases[1] - parts.canvases[4]).square().sum().sqrt().item()
    )
    by_program = parts.nearest(PartLocation(0, (1,)), k=2, by="program")
    assert {place for place, _ in by_program} == {PartLocation(0, (0,)), PartLocation(1, (0,))}
    assert len(parts.nearest(PartLocation(0, (0,)), k=100)) == 5, "never itself"


def test_primitives_are_sorted_by_use(parts):
    found = build_dictionary(parts, 3)
    assert [sorted(m.tolist()) for m in found.members] == [[0, 2, 3], [1, 4], [5]]
    assert found.usage.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])
    torch.testing.assert_close(found.canvases[1], parts.canvases[[1, 4]].mean(0))
    middle = parts.canvases[[0, 2, 3]].mean(0)
    far = [(parts.canvases[i] - middle).square().sum().item() for i in found.members[0]]
    assert far == sorted(far), "the most typical first"


@pytest.mark.parametrize("count", [0, 7])
def test_a_dictionary_has_no_more_entries_than_parts(count, parts):
    with pytest.raises(ValueError, match=r"count must lie in \[1, 6\]"):
        build_dictionary(parts, count)


def test_a_level_that_is_not_there(images):
    with pytest.raises(ValueError, match=r"depth must lie in \[1, 2\], got 3"):
        collect_parts(RNP(tiny()), images, 3)
