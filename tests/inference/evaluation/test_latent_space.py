"""The space of programs: clusters and paths of known shape."""

from dataclasses import replace

import pytest
import torch

from inference.data import ImageSet
from inference.evaluation.latent_space import (
    Cluster,
    LatentSpace,
    clusters,
    collect_programs,
    embed,
    interpolate,
    latent_space_metrics,
    run_level,
    sample_cluster,
)


def heaps(n=30):
    """Images' programs in two heaps by class, and parts' far from both."""
    z = 0.1 * torch.randn(3 * n, 3)
    labels = (torch.arange(n) < n // 3).long().repeat(3)[: 2 * n]
    z = z[: 2 * n]
    z[:n, 0] += 3 * labels[:n]
    z[n:, 1] += 5
    levels = torch.tensor([2] * n + [1] * n)
    return LatentSpace(z, levels, torch.rand(2 * n, 1, 8, 8), labels)


def test_what_is_apart_is_told_apart_and_what_is_not_is_not():
    found = latent_space_metrics(heaps(), train=heaps())
    assert found["level_probe"] == 1
    assert found["class_probe"] == 1
    assert found["silhouette_of_levels"] > 0.5
    mixed = heaps(60)
    noise = LatentSpace(torch.randn(120, 3), mixed.levels, mixed.canvases, mixed.labels)
    found = latent_space_metrics(noise, train=noise)
    assert found["level_probe"] < 0.75
    assert abs(found["silhouette_of_levels"]) < 0.1


def test_of_classes_only_training_images_say_which_is_which():
    test, train = heaps(), heaps()
    wrong = replace(train, labels=1 - train.labels)
    assert latent_space_metrics(test, wrong)["class_probe"] == 0
    turned = replace(train, programs=-train.programs)  # all of the test images are of its first
    assert latent_space_metrics(test, turned)["class_probe"] == pytest.approx(2 / 3)
    other = replace(train, labels=train.labels + 2)
    assert latent_space_metrics(test, other).keys() == {"silhouette_of_levels", "level_probe"}


def test_clusters_are_the_heaps_largest_first():
    space = heaps()
    first, second = clusters(space, 2, level=2)
    torch.testing.assert_close(first.centre, torch.zeros(3), atol=0.15, rtol=0)
    torch.testing.assert_close(second.centre, torch.tensor([3.0, 0, 0]), atol=0.15, rtol=0)
    for cluster in (first, second):
        far = (space.programs[:30] - cluster.centre).norm(dim=1)
        assert cluster.nearest == far.argmin()
        assert (cluster.scale < 0.3).all()
    with pytest.raises(ValueError, match=r"count must lie in \[1, 30\]"):
        clusters(space, 31, level=1)


def test_programs_are_those_of_images_and_of_their_parts(rnp, images):
    space = collect_programs(rnp, ImageSet(images, torch.arange(4)), batch_size=4)
    tree = rnp.parse(images)
    assert torch.equal(space.programs[:4], tree.program)
    for i in range(4):
        assert torch.equal(space.programs[4 + i], tree[i % 2].program[i])
    assert space.levels.tolist() == [2] * 4 + [1] * 4
    assert space.labels.tolist() == [0, 1, 2, 3] * 2
    assert space.canvases.shape == (8, 1, 8, 8)
    assert torch.equal(space.canvases[:4], tree.canvas)


def test_a_program_runs_at_either_level(rnp, images):
    tree = rnp.parse(images)
    assert torch.equal(run_level(rnp, tree.program, 2), tree.canvas)
    torch.testing.assert_close(run_level(rnp, tree[1].program, 1), tree[1].canvas)
    for level in (0, 3):
        with pytest.raises(ValueError, match=r"level must lie in \[1, 2\]"):
            run_level(rnp, tree.program, level)


def test_paths_and_samples(rnp):
    first, last = torch.zeros(3), 2 * torch.ones(3)
    images, unevenness = interpolate(rnp, first, last, 5, level=2)
    ends = run_level(rnp, torch.stack([first, last]), 2)
    torch.testing.assert_close(images[[0, -1]], ends)
    assert 1 <= unevenness < 4
    change = (images[1:] - images[:-1]).flatten(1).norm(dim=1)
    assert unevenness == pytest.approx((change.max() / change.mean()).item())
    still = Cluster(first, torch.zeros(3), 0, 2)
    made = sample_cluster(rnp, still, 3)
    torch.testing.assert_close(made, ends[:1].expand(3, -1, -1, -1))
    wide = sample_cluster(rnp, Cluster(first, torch.ones(3), 0, 2), 3)
    assert not torch.equal(wide[0], wide[1])


def test_the_plane_keeps_heaps_apart():
    space = heaps()
    plane = embed(space.programs)
    assert plane.shape == (60, 2)
    parts = plane[30:]
    assert (parts - parts.mean(0)).norm(dim=1).mean() < (plane - plane.mean(0)).norm(dim=1).mean()


def test_of_fewer_distinct_programs_there_are_fewer_clusters():
    programs = torch.tensor([[0.0, 0.0], [0.0, 0.0], [5.0, 5.0], [5.0, 5.0], [0.0, 0.0]])
    same = LatentSpace(
        programs, torch.full((5,), 2), torch.zeros(5, 1, 4, 4), torch.zeros(5).long()
    )
    found = clusters(same, 4, 2)
    assert [c.centre.tolist() for c in found] == [[0.0, 0.0], [5.0, 5.0]]
