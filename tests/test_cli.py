"""Command lines: precedence, presets, files, and one sentence for a mistake."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentError

from inference.cli import run, train_config
from inference.settings import TrainConfig
from pyro_rnp import PRESETS, RNP, RNPConfig, save
from pyro_rnp.registry import GUIDES, PRIORS

CONFIGS = Path(__file__).parents[1] / "scripts" / "configs"


def test_nothing_given_is_the_default():
    assert train_config([]) == TrainConfig()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_a_field_of_it(name):
    config = train_config(["--model.steps", "[2,3]", "--preset", name, "--model.sigma=0.3"])
    assert config.model == RNPConfig.preset(name, steps=(2, 3), sigma=0.3)


def test_a_preset_has_a_learning_rate_of_its_own():
    assert train_config(["--preset=mnist"]).learning_rate == 1e-4
    assert train_config(["--preset=mnist", "--learning_rate=2e-4"]).learning_rate == 2e-4
    assert train_config(["--preset=fast"]).learning_rate == TrainConfig().learning_rate == 1e-3


def test_fields_of_the_model_need_no_prefix():
    short = train_config(["--prior", "flow", "--stochastic=both,none", "--composed", "true"])
    long = train_config(
        ["--model.prior", "flow", "--model.stochastic=both,none", "--model.composed", "true"]
    )
    assert short == long
    assert (short.model.prior, short.model.composed) == ("flow", True)


def test_a_file_and_a_flag_over_it(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"preset": "mnist", "epochs": 3, "model": {"program_size": 16}}))
    config = train_config(["--config", str(file), "--epochs", "5"])
    assert config.model == RNPConfig.preset("mnist", program_size=16)
    assert config.epochs == 5


@pytest.mark.parametrize("flag", ["--data-root", "--data_root"])
def test_the_data_folder(flag):
    assert train_config([flag, "here"]).data_root == "here"


def test_resuming_takes_the_run_s_own_configuration(tmp_path):
    model = RNPConfig.preset("fast", steps=(2, 2))
    training = {
        "data": "strokes", "minutes": 2.0, "epochs": None, "seed": 4, "preset": "fast"
    }  # fmt: skip
    save(RNP(model), tmp_path, {"training": training})
    config = train_config(["--resume", str(tmp_path)])
    assert (config.model, config.data, config.minutes, config.seed) == (model, "strokes", 2.0, 4)
    longer = train_config(["--resume", str(tmp_path), "--epochs", "7"])
    assert (longer.epochs, longer.minutes, longer.seed) == (7, None, 4)
    with pytest.raises(ValueError, match="is of preset fast; leave out --preset"):
        train_config(["--resume", str(tmp_path), "--preset", "mnist"])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--preset", "minst"], "preset"),
        (["--data", "cifar"], "data"),
        (["--minuts", "3"], "--minuts"),
        (["--epochs", "many"], "epochs"),
        (["--model.steps", "[four]"], "steps"),
        (["--model.sigma", "-1"], "sigma must be finite and not negative"),
        (["--epochs", "0"], "epochs must be positive"),
        (["--kl_weight", "0"], "kl_weight must be positive"),
        (["--kl_warmup", "1"], "kl_warmup must be in [0, 1)"),
        (["--prior", "flwo"], "did you mean flow?"),
        (["--elbo", "ELBO"], "There is no objective 'ELBO'"),
        (["--elbo", "RenyiELBO:alpha=1.0"], "an alpha other than 1"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--resume", "nowhere"], "nowhere/config.json does not exist"),
        (["extra"], "extra"),
    ],
)
def test_a_mistake_ends_with_one_sentence(args, words, capsys):
    with pytest.raises(SystemExit) as ended:
        run(lambda: train_config(args))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert "Traceback" not in said.err


def test_pieces_of_one_s_own_join_by_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(PRIORS, "pieces", dict(PRIORS.pieces))
    monkeypatch.setattr(GUIDES, "pieces", dict(GUIDES.pieces))
    file = tmp_path / "mine.py"
    blocks = re.findall(
        r"```python\n(.*?)```", (CONFIGS.parents[1] / "README.md").read_text(), re.S
    )
    file.write_text(next(block for block in blocks if "class LaplacePrior" in block))
    monkeypatch.setenv("PYRO_RNP_PIECES", str(file))
    found = []
    run(lambda: found.append(train_config(["--prior=laplace", "--guide=linear"])))
    assert type(RNP(found[0].model).model.prior).__name__ == "LaplacePrior"
    file.write_text("def (")
    for wrong in (file, tmp_path / "no.py"):
        monkeypatch.setenv("PYRO_RNP_PIECES", str(wrong))
        with pytest.raises(SystemExit):
            run(lambda: None)
        assert f"{wrong}, which PYRO_RNP_PIECES names, does not run" in capsys.readouterr().err


def test_the_traceback_can_be_had(monkeypatch):
    monkeypatch.setenv("PYRO_RNP_TRACEBACK", "1")
    with pytest.raises(ArgumentError):
        run(lambda: train_config(["--minuts", "3"]))


def test_help_explains_every_field(capsys):
    with pytest.raises(SystemExit) as ended:
        train_config(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for cls, prefix in ((TrainConfig, ""), (RNPConfig, "model.")):
        for name in cls.__dataclass_fields__:
            flag = f"--{prefix}{name}".replace("--data_root", "--data-root")
            assert flag in text, name
    words = " ".join(text.split())
    for piece in ("studentt:df=4.0", "refined:steps=3,rate=0.1", "noisy_or", "bottom_up"):
        assert piece in words
    for explained in ("Images per step.", "|z|: length of a program", "Run folder to make"):
        assert explained in words


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda f: f.name)
def test_the_recipes_can_be_read(file):
    config = train_config(["--config", str(file)])
    if file.stem == "one-shot":
        assert (config.data, config.preset, config.drawings) == ("omniglot", "fast", 2)
        return
    assert config.data == file.stem.partition("-")[0]
    if file.stem.endswith("-paper"):
        assert config.model == RNPConfig.preset(config.data)
        assert config.learning_rate == 4e-5
        assert (config.schedule, config.warmup) == ("constant", 0), "one rate, as in the paper"
    else:
        assert (config.preset, config.minutes) == ("fast", None)


def test_starting_from_a_run_takes_its_model_alone(tmp_path):
    model = RNPConfig.preset("fast", steps=(2, 2))
    save(RNP(model), tmp_path, {"training": {"data": "strokes", "seed": 4, "preset": "fast"}})
    config = train_config(["--start", str(tmp_path), "--learn=guide", "--classes=[1,2]"])
    assert (config.model, config.data, config.seed) == (model, "digits", 0)
    assert (config.learn, config.classes) == ("guide", [1, 2])
    save(RNP(model), tmp_path / "b", {"training": {"preset": "mnist", "learning_rate": 0.5}})
    config = train_config(["--start", str(tmp_path / "b")])
    assert (config.preset, config.learning_rate) == ("mnist", 1e-4), "what suits its preset"
    with pytest.raises(ValueError, match="is of preset mnist; leave out --preset"):
        train_config(["--start", str(tmp_path / "b"), "--preset=fashion"])
    with pytest.raises(ValueError, match="learn must be all with the prior vamp"):
        train_config(["--learn=guide", "--prior=vamp", "--start", str(tmp_path)])
    with pytest.raises(ValueError, match="give --start"):
        train_config(["--learn=guide"])
    with pytest.raises(ValueError, match="classes must name one or more"):
        train_config(["--classes=[]"])


def test_processes_that_train_together_end_at_once(monkeypatch, capsys):
    def mistaken():
        raise ValueError("One was lost.")

    ended = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr("os._exit", ended.append)
    with pytest.raises(SystemExit):  # as that exit was no exit
        run(mistaken)
    assert ended == [2]
    assert capsys.readouterr().err == "error: One was lost.\n"
    monkeypatch.undo()
    with pytest.raises(SystemExit, match="2"):
        run(mistaken)
