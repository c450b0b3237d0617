"""The page of the reproduction says what the files say, and no more."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from inference.config import TrainConfig
from inference.plotting import COLOURS, parse_figure
from inference.reproduction.artifacts import collect_artifacts, prune_pictures
from inference.reproduction.report import BEGIN, END, report, with_results, write_report
from inference.reproduction.tables import AUTHORS, learned, results_table
from inference.run import Run
from pyro_rnp import RNP, RNPConfig, save
from tests.conftest import tiny

pytestmark = pytest.mark.usefixtures("unchecked")
SMALL = {"network_units": 3, "encoder_units": 3, "encoder_channels": 2}


def like(data, **changes):
    """A model in the setting of the authors' logs."""
    size, steps = {"mnist": (16, (4, 4)), "omniglot": (64, (5, 5))}[data]
    return RNPConfig.preset("fast", program_size=size, steps=steps, **SMALL, **changes)


def made(folder, sse, points=(), model=None, **changes):
    """A run folder of a model that was never trained; the second point is after half an epoch."""
    config = TrainConfig(model=model or tiny(), **{"optimizer": "Adam"} | changes)
    notes = asdict(config)
    del notes["model"]
    save(RNP(config.model), folder, {"training": notes})
    metrics = {"test_sse": sse, "seconds": 120.0, "skipped_steps": 0, "hardware": "an abacus"}
    metrics |= {
        "images_seen": 15000,
        "images_per_second": 125.0,
        "parameters": 1234,
        "test_elbo": -100.75,
        "test_sse_error": 0.125,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "curves").mkdir()
    seen = [100, 150]  # an epoch, and half of one
    lines = [f"{e},{seen[e]},{sse}" for e, sse in enumerate(points)]
    text = "\n".join(["epoch,images_seen,val_sse", *lines])
    (folder / "curves" / "metrics.csv").write_text(text + "\n")


def score(out, run, flags, found):
    """What `pyro-rnp evaluate` says of a run."""
    folder = out / f"score-{run}"
    folder.mkdir()
    how = {"of": run, "asked": flags, "weights": Run(out / run).fingerprint, "seconds": 600.0}
    how["hardware"] = "pebbles"
    (folder / "score.json").write_text(json.dumps({**found, "made": how}))


@pytest.fixture
def runs(template, tmp_path):
    """A folder of runs, which a test may change."""
    return shutil.copytree(template, tmp_path / "runs")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The runs that each test has a copy of."""
    out = tmp_path_factory.mktemp("all") / "runs"
    made(out / "mnist", 6.54321, [30.0, 20.04], like("mnist"), data="mnist", epochs=2)
    flat = like("mnist", program="flat")
    made(out / "mnist-flat", 7.25, [31.0, 22.5], flat, data="mnist", minutes=1.0)
    made(out / "mnist-other", 5.0, [3.0], data="mnist", epochs=1)
    made(out / "mnist-some", 5.0, [3.0], like("mnist"), data="mnist", epochs=1, classes=[1, 2])
    made(out / "mnist-flow", 5.0, [3.0], like("mnist", guide="flow"), data="mnist", epochs=1)
    made(out / "mnist-seed-1", 7.0, [31.0], like("mnist"), data="mnist", epochs=2, seed=1)
    how = {"data": "omniglot", "minutes": 1.0, "rotated_classes": True, "jitter": 0.1}
    made(out / "omniglot", 13.5, [45.0, 40.0], like("omniglot"), **how)
    for name in ("mnist-binary", "mnist-binary-seed-1"):
        made(out / name, 7.5, [9.0], data="mnist", epochs=1, binarize=True)
    (out / "unfinished").mkdir()
    figures = out / "mnist-figures"
    figures.mkdir()
    Image.new("RGB", (30, 20), (200, 30, 40)).save(figures / "figure-3.png")
    numbers = {"3": {"sse_level_2": 6.5432, "explained_by_step": [0.5, 0.25]}}
    numbers["5"] = {"recall": 0.75}
    numbers["6"] = {"omniglot": 40.25, "omniglot_error": 0.5, "omniglot_blank": 48.25}
    Image.new("RGB", (9, 9)).save(figures / "figure-6-omniglot.png")
    made_by = {"num": 2000, "seed": 4, "seconds": 90, "hardware": "a slide rule"}
    numbers["made"] = {**made_by, "weights": Run(out / "mnist").fingerprint}
    (figures / "figures.json").write_text(json.dumps(numbers))
    (out / "transfer-x").mkdir()
    blank = {"model": "blank", "unseen": 60.25, "unseen_error": 1.5, "seen": 9.5, "omniglot": 40.0}
    rows = [
        blank,
        {
            "model": "flat-all",
            "images_seen": 1500,
            "unseen": 17.25,
            "unseen_error": 0.5,
            "seen": 8.0,
        },
    ]
    told = {
        "flags": "--x=1 --flags='--config ../../there/mnist.yaml'",
        "cases": [{"unseen": "7", "images": 1028, "rows": rows}],
    }
    weights = {"omniglot": Run(out / "omniglot").fingerprint}
    told["made"] = {"seconds": 7200.0, "hardware": "beads", "weights": weights}
    (out / "transfer-x" / "transfer.json").write_text(json.dumps(told))
    Image.new("RGB", (20, 20), (0, 30, 40)).save(out / "transfer-x" / "7-parts.png")
    bound = {"test_elbo": -101.26, "test_elbo_error": 0.5}
    bound |= {"test_iw_bound": -95.04, "test_iw_bound_error": 0.4}
    score(out, "mnist-binary", ["--particles=70", "--num=80"], bound)
    score(out, "mnist-binary-seed-1", ["--particles=90"], bound)
    score(out, "omniglot", ["--guide=refined:steps=9", "--num=1200"], {"test_sse": 11.125})
    score(out, "mnist", ["--guide=refined"], {"test_sse": 6.25})
    return out


def test_the_page_says_of_how_many_images_each_figure_is(runs, tmp_path):
    file = runs / "mnist-figures" / "figures.json"
    numbers = json.loads(file.read_text())
    del numbers["made"]["num"]
    for fourth, fifth, said in ((2000, 2000, "2,000"), (2000, 900, "900, 2,000")):
        more = {"4": {"images": fourth}, "5": {"images": fifth, "recall": 0.75}}
        numbers["3"]["images"] = 10_000
        file.write_text(json.dumps(numbers | more))
        collect_artifacts(runs, tmp_path / "docs")
        text = report(tmp_path / "docs", "")
        assert f"| mnist | {said} | 4 | 1.5 | a slide rule |" in text


def test_the_page_has_what_the_files_say(runs, tmp_path):
    artifacts = tmp_path / "docs"
    collect_artifacts(runs, artifacts)
    text = report(artifacts, "It *differs*.\n")
    assert "| mnist | 2 | 15,000 | 6.54 ± 0.12 |" in text
    assert "| 1,234 | 2 | 125 | an abacus | 0 |" in text
    assert "- mnist: `pyro-rnp train --data=mnist --epochs=2" in text
    assert "| mnist, validation | 30.0 |  |  |" in text, "half an epoch is not two"
    assert "|  | 6.54 ± 0.12 |\n" in text, "the test images' at the end of the curve"
    assert "| mnist-flat (flat VAE), validation | 31.0 |  |" in text
    for other in ("mnist-other", "mnist-some", "mnist-flow", "mnist-binary", "omniglot"):
        assert f"{other}, validation" not in text, "of another setting"
    assert "| authors | 29 |  | 12.5 |  | 15.9 |" in text
    name = "omniglot (with rotated images, jittered)"
    assert f"| {name} | 1.5 | 15,000 | 40.00 |  | 13.50 ± 0.12 |" in text
    said = "Mean of mnist, mnist-seed-1: 6.77, standard deviation of a run 0.32."
    assert said in text
    assert "Mean of mnist, mnist-flat" not in text
    assert "![MNIST](mnist-figures/figure-3.png)" in text
    with Image.open(artifacts / "mnist-figures" / "figure-3.png") as picture:
        assert picture.size == (30, 20)
        assert picture.convert("RGB").getpixel((5, 5)) == (200, 30, 40)
    assert "Figure 4a" not in text, "nothing of it is there"
    assert "| mnist |  |  | 6.543 | 0.5, 0.25 |  |" in text
    assert "| mnist |  |  | 0.75 |  |" in text
    assert "| mnist | 2,000 | 4 | 1.5 | a slide rule |" in text, "an older file, of one number"
    flags = "--x=1 --flags='--config mnist.yaml'"
    assert f"`pyro-rnp transfer {flags} --data-root DIR`, 2.0 hours on beads" in text
    assert "Unseen: 7, 1,028 images." in text
    assert "| blank |  | 60.2 ± 1.5 | 9.5 | 40.0 |" in text
    assert "| flat-all | 1,500 | 17.2 ± 0.5 | 8.0 |  |" in text
    assert "| mnist | 6.5 ± 0.12 | 40.2 ± 0.5 (blank 48.2) |  |" in text
    assert "](mnist-figures/figure-6-omniglot.png)" in text
    assert "![transfer-x, 7-parts](transfer-x/7-parts.png)" in text
    assert "| omniglot, refined:steps=9, 1,200 of the test images |  |  |  |  | 11.12 |" in text
    assert "`pyro-rnp evaluate omniglot --guide=refined:steps=9 --num=1200 --data-root" in text
    assert f"| mnist, refined, all test images |{'  |' * 7} 6.25 |" in text
    assert "- mnist, refined, all test images: `pyro-rnp evaluate mnist --guide=ref" in text
    row = (
        "| mnist-binary | 3 | 70 | 80 | 101.3 ± 0.5 | 95.0 ± 0.4 | 100.8 | 10 minutes on pebbles |"
    )
    assert row in text
    assert "| mnist-binary-seed-1 | 3 | 90 | all | 101.3 ± 0.5 |" in text
    assert text.index("blue, red, green, orange") < text.index("![MNIST]")
    order = [f"| {name} |" for name in ("mnist", "mnist-other", "mnist-flat", "omniglot")]
    places = [text.index(name) for name in [*order, "| mnist-binary |"]]
    assert places == sorted(places)
    assert "| IWAE, k = 50 (published) |  |  |  |  | 87.1 |  |  |" in text
    assert "unfinished" not in text
    assert "Pretrained models of the project" not in text, (
        "a model of that name does, but not this run's"
    )
    assert "silhouette" not in text
    assert "DRAW" not in text
    assert text.endswith("It *differs*.\n")


def test_what_takes_no_model_is_beside_the_numbers_of_runs_that_have_it(runs, tmp_path):
    collect_artifacts(runs, tmp_path)
    assert "of the mean image" not in report(tmp_path, "")
    file = tmp_path / "mnist" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics |= {"test_sse_mean_image": 52.75, "test_sse_blank": 89.25}
    file.write_text(json.dumps(metrics))
    file = tmp_path / "mnist-figures" / "figures.json"
    figures = json.loads(file.read_text())
    figures["3"] |= {"sse_blank": 89.25, "explained_mean_image": 0.375}
    figures["6"] |= {"omniglot_mean_image": 44.75}
    file.write_text(json.dumps(figures))
    text = report(tmp_path, "")
    assert "| at the mean | of the mean image | of a blank | KL |" in text
    assert "| 6.54 ± 0.12 |  | 52.75 | 89.25 |  |" in text
    assert "| mnist |  |  | 6.543 | 89.25 | 0.5, 0.25 | 0.375 |  |" in text
    assert "40.2 ± 0.5 (blank 48.2, mean image 44.8)" in text


def test_curves_are_those_of_the_runs_beside_the_authors(runs, tmp_path):
    collect_artifacts(runs, tmp_path)
    authors, *others = learned(tmp_path).items()
    assert authors == ("authors, test", AUTHORS)
    assert dict(others) == {
        "mnist, validation": {1: 30.0, 1.5: 20.04},
        "mnist-seed-1, validation": {1: 31.0},
        "mnist-flat (flat VAE), validation": {1: 31.0, 1.5: 22.5},
    }


def test_what_is_kept_is_small_and_says_the_same_again(runs, tmp_path):
    artifacts = tmp_path / "docs"
    collect_artifacts(runs, artifacts)
    before = report(artifacts, "")
    assert not list(artifacts.rglob("*.safetensors"))
    assert not (artifacts / "unfinished").exists()
    for file in runs.rglob("*.png"):
        assert (artifacts / file.relative_to(runs)).exists()
    collect_artifacts(tmp_path / "nowhere", artifacts)
    collect_artifacts(runs, artifacts)
    assert report(artifacts, "") == before


def test_pictures_that_the_page_does_not_show_are_not_kept(runs, tmp_path):
    artifacts = tmp_path / "docs"
    Image.new("RGB", (9, 9)).save(runs / "mnist-figures" / "figure-7.png")
    half = runs / "mnist-figures.part"
    half.mkdir()
    shutil.copyfile(runs / "mnist-figures" / "figures.json", half / "figures.json")
    flat = runs / "mnist-flat-figures"
    flat.mkdir()
    for name in ("3", "5"):
        Image.new("RGB", (9, 9)).save(flat / f"figure-{name}.png")
    made_by = {"num": 2000, "seed": 4, "seconds": 90, "hardware": "a slide rule"}
    made_by["weights"] = Run(runs / "mnist-flat").fingerprint
    (flat / "figures.json").write_text(json.dumps({"made": made_by}))
    collect_artifacts(runs, artifacts)
    assert (artifacts / "mnist-figures" / "figure-7.png").exists()
    assert not (artifacts / half.name).exists(), "it is not whole"
    Image.new("RGB", (9, 9)).save(artifacts / "own.png")
    text = report(artifacts, "")
    assert "![MNIST, by the flat VAE](mnist-flat-figures/figure-5.png)" in text
    prune_pictures(artifacts, text)
    assert {p.relative_to(artifacts).as_posix() for p in artifacts.rglob("*.png")} == {
        "own.png", "mnist-figures/figure-3.png", "mnist-figures/figure-6-omniglot.png",
        "mnist-flat-figures/figure-5.png", "transfer-x/7-parts.png",
    }  # fmt: skip


def test_the_colours_of_parts_are_kept(runs, tmp_path):
    random = np.random.default_rng(0)
    blue, *others = (matplotlib.colors.to_rgb(name) for name in COLOURS[:4])
    ink = random.dirichlet([0.5] * 3, (400, 400)) * random.random((400, 400, 1))
    shades = 1 - ink @ (1 - np.array(others))  # much ink in mixed shades, and thin blue lines
    shades[::40] = blue
    shades[20:380:40] = random.random((9, 400, 1))
    pixels = (255 * shades).round().astype(np.uint8)
    Image.fromarray(pixels).save(runs / "mnist-figures" / "figure-3.png")
    collect_artifacts(runs, tmp_path / "docs")
    with Image.open(tmp_path / "docs" / "mnist-figures" / "figure-3.png") as picture:
        found = np.asarray(picture.convert("RGB"))
    far = np.abs(found.astype(int) - pixels)
    assert far.max() < 16
    assert not far[::40].any(), "thin lines keep their colour"


def test_faint_ink_of_a_parse_is_not_tinted(rnp, images, runs, tmp_path):
    picture = "mnist-figures/figure-3.png"
    parse_figure(rnp.parse(images), runs / picture, images)
    collect_artifacts(runs, tmp_path / "docs")
    full, small = (
        np.asarray(Image.open(folder / picture).convert("RGB")).astype(int)
        for folder in (runs, tmp_path / "docs")
    )
    greys = np.ptp(full, axis=-1) == 0
    assert np.ptp(small[greys], axis=-1).max() <= 4
    assert np.abs(small - full)[greys].max() < 16
    assert (tmp_path / "docs" / picture).stat().st_size < 0.6 * (runs / picture).stat().st_size


def test_what_is_of_other_weights_has_no_place_on_the_page(runs, tmp_path):
    artifacts = tmp_path / "docs"
    collect_artifacts(runs, artifacts)
    for name in ("mnist", "mnist-binary", "mnist-binary-seed-1", "omniglot"):  # again
        (runs / name / "model.safetensors").write_bytes(name.encode())
    collect_artifacts(runs, artifacts)
    text = report(artifacts, "")
    assert "a slide rule" not in text
    assert "IWAE" not in text
    assert "refined" not in text
    assert "![" not in text
    assert "beads" not in text
    assert "| mnist | 2 | 15,000 |" in text


def test_runs_with_random_levels_or_another_optimizer_are_named_as_such(runs, tmp_path):
    model = like("mnist", stochastic="both", learn_scales="predicted")
    how = {"data": "mnist", "epochs": 2, "optimizer": "Muon"}
    made(runs / "mnist-random", 4.5, [11.0, 9.0], model, **how)
    figures = runs / "mnist-random-figures"
    figures.mkdir()
    for name in ("3", "4a", "5"):
        Image.new("RGB", (9, 9)).save(figures / f"figure-{name}.png")
    made_by = {"num": 2000, "seed": 4, "seconds": 90, "hardware": "a slide rule"}
    made_by["weights"] = Run(runs / "mnist-random").fingerprint
    (figures / "figures.json").write_text(json.dumps({"made": made_by}))
    collect_artifacts(runs, tmp_path)
    text = report(tmp_path, "")
    assert "| mnist-random (with random levels, by Muon), validation | 11.0 |" in text
    for name in ("3", "5"):
        assert f"![MNIST, with random levels](mnist-random-figures/figure-{name}.png)" in text
    assert "mnist-random-figures/figure-4a.png" not in text
    rows = results_table(tmp_path).splitlines()
    assert "| MNIST | RNP, 2 epochs, random levels, by Muon | 4.50 | -100.8 |  | 1 |" in rows


def test_a_run_with_held_out_alphabets_stands_beside_those_with_the_same_test_images(
    runs, tmp_path
):
    model = like("omniglot", stochastic="both")
    made(runs / "omniglot-random", 11.5, [14.0, 12.25], model, data="omniglot-alphabets", epochs=2)
    collect_artifacts(runs, tmp_path)
    text = report(tmp_path, "")
    name = "omniglot-random (with random levels)"
    assert f"| {name} | 2 | 15,000 |  | 12.25 | 11.50 ± 0.12 |" in text
    assert "| 15,000 | 40.00 |  | 13.50 ± 0.12 |" in text
    rows = results_table(tmp_path).splitlines()
    what = "| Omniglot, unseen characters | RNP, 2 epochs, random levels"
    assert [row for row in rows if row.startswith(f"{what} | 11.50 |")]


def test_of_nothing_there_is_a_page_too(tmp_path):
    text = report(tmp_path, "")
    assert "| authors, test | 47.9 |" in text
    assert "Figure" not in text
    assert "Likelihood" not in text


def test_the_page_in_the_documentation_is_made_of_what_is_kept():
    root = Path(__file__).parents[3]
    remarks = (root / "inference" / "reproduction" / "differences.md").read_text()
    folder = root / "docs" / "reproduction"
    assert (folder / "index.md").read_text() == report(folder, remarks)


def test_the_readme_has_the_results_of_the_artifacts():
    root = Path(__file__).parents[3]
    text = (root / "README.md").read_text()
    assert with_results(text, root / "docs" / "reproduction") == text


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END} {BEGIN}\n"])
def test_a_readme_without_both_markers_is_left_alone(runs, tmp_path, text):
    collect_artifacts(runs, tmp_path)
    readme, page = tmp_path / "README.md", tmp_path / "index.md"
    readme.write_text(text)
    write_report(page, readme, tmp_path / "none")
    assert readme.read_text() == text
    assert page.read_text() == report(tmp_path, "")
    readme.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    write_report(page, readme, tmp_path / "none")
    assert readme.read_text() == f"a\n{BEGIN}\n{results_table(tmp_path)}\n{END}\nb\n"


def test_the_table_of_results_has_what_the_files_say(runs, tmp_path):
    collect_artifacts(runs, tmp_path)
    rows = results_table(tmp_path).splitlines()
    assert "| MNIST | RNP, 2 epochs | 6.54, 7.00 | -100.8, -100.8 |  | 2 |" in rows
    assert "| MNIST | flat VAE, equal time | 7.25 | -100.8 |  | 1 |" in rows
    assert "| MNIST | authors' log, 28 epochs | 7.2 |  |  |  |" in rows
    unseen = "| Omniglot, unseen characters |"
    assert f"{unseen} authors' log, 29 epochs | 15.9 |  |  |  |" in rows
    assert not [row for row in rows if "None" in row or "Fashion" in row]
    assert len(rows) == 9
    with pytest.raises(ValueError, match="has no <!-- results -->"):
        with_results("# Mine\n", tmp_path)
