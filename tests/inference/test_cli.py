"""Command lines: precedence, presets, files, and one sentence for a mistake."""

import io
import os
import re
import signal
import subprocess
import sys
from contextlib import redirect_stdout, suppress
from importlib import import_module

import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from jsonargparse.typing import PositiveInt

from inference.cli import CONFIGS, _Parser, parser, run, sentence, train_config
from inference.commands import COMMANDS
from inference.config import TrainConfig
from pyro_rnp import PRESETS, RNP, RNPConfig, save
from pyro_rnp.registry import GUIDES, PRIORS


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


def printed(capsys, *args, how=""):
    """The configuration file that a command line prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        train_config([*args, f"--print_config{how}"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("how", ["", "=skip_default", "=skip_unset"])
@pytest.mark.parametrize("kind", [*PRESETS, "start", "resume", "longer", "changed"])
def test_a_printed_configuration_trains_the_same_model(tmp_path, capsys, kind, how):
    model, folder = RNPConfig.preset("mnist", steps=(2, 2), sigma=0.3), str(tmp_path / "run")
    training = {
        "data": "strokes", "classes": [1, 2], "preset": "mnist", "epochs": 3, "seed": 4,
        "learning_rate": 2e-4, "data_root": "there", "start": "which is no longer there",
    }  # fmt: skip
    save(RNP(model), folder, {"training": training})
    args = {
        "start": ["--start", folder, "--classes=1,2"],
        "resume": ["--resume", folder],
        "longer": ["--resume", folder, "--minutes=9"],
        "changed": ["--preset=mnist", "--prior=flow", "--steps=2,3", "--learning_rate=3e-4"],
    }.get(kind, [f"--preset={kind}"])
    wanted = train_config(args)
    if kind in ("start", "resume", "longer"):
        assert wanted.model == model
    file = tmp_path / "printed.yaml"
    file.write_text(printed(capsys, *args, how=how))
    assert train_config(["--config", str(file)]) == wanted
    if not how:
        everything = yaml.safe_load(file.read_text())
        assert everything.keys() == set(TrainConfig.__dataclass_fields__)
        assert everything["model"].keys() == set(RNPConfig.__dataclass_fields__)


def test_a_configuration_that_cannot_train_is_not_printed(capsys):
    with pytest.raises(ValueError, match="epochs must be positive"):
        train_config(["--epochs=0", "--print_config"])
    assert capsys.readouterr().out == ""


def test_flags_go_before_a_file_a_file_before_a_run_and_a_run_before_a_preset(tmp_path):
    model = RNPConfig.preset("mnist", program_size=5, sigma=0.2, encoder_units=9)
    training = {"preset": "mnist", "data": "strokes", "epochs": 7, "batch_size": 11, "seed": 3}
    save(RNP(model), tmp_path, {"training": training})
    file = tmp_path / "config.yaml"
    for place, of_run in (("resume", ("strokes", 3)), ("start", ("strokes", 0))):
        file.write_text(
            f"{place}: {tmp_path}\nbatch_size: 12\nwarmup: 13\nsigma: 0.4\nprogram_size: 6\n"
        )
        flags = ["--warmup=14", "--program_size=8"]
        for args in (["--config", str(file), *flags], [*flags, "--config", str(file)]):
            config = train_config(args)
            assert (config.data, config.seed) == of_run
            assert (config.batch_size, config.warmup, config.preset) == (12, 14, "mnist")
            assert (config.model.program_size, config.model.sigma) == (8, 0.4)
            assert config.model.encoder_units == 9
            assert config.model.patch_size == RNPConfig.preset("mnist").patch_size
        assert getattr(config, place) == str(tmp_path)


LISTS = ["4,3", "4, 3", "4 3", "(4,3)", "( 4, 3, )", "[4,3]", "[4, 3]", "[4 3]", "(4 3)"]
WAYS = ("{},{}", "{} {}", "{}, {}", "({},{})", "({}, {})", "[{},{}]", "[{} {}]")
OPTIONS = {
    "train": {
        "steps": ["4", "3"], "model.steps": ["4", "3"], "classes": ["1", "7"],
        "devices": ["0", "1"], "stochastic": ["both", "none"],
        "mask_training": ["halves", "none"],
    },
    "benchmark": {
        "presets": ["fast", "mnist"],
        "compiled": ["fast", "mnist"],
        "batch_sizes": ["8", "16"],
        "tasks": ["train", "parse"],
    },
    "evaluate": {"methods": ["guide", "svi"]},
    "figures": {"across": ["omniglot", "mnist"]},
    "transfer": {
        "unseen": ["7", "8"], "learned": ["runs/a-1", "runs/b"], "across": ["omniglot", "mnist"],
    },
}  # fmt: skip
"""All options that take lists, with values; evaluate and figures have a run before them."""


class _ReadError(Exception):
    pass


def read(monkeypatch, command, *words):
    """The options of a command as it reads them."""
    if command == "train":
        config = train_config(words)
        return {**vars(config), **{f"model.{k}": v for k, v in vars(config.model).items()}}
    plain, found = _Parser.parse_args, {}

    def parse_args(self, *args, **kwargs):
        found.update(vars(plain(self, *args, **kwargs)))
        raise _ReadError

    with monkeypatch.context() as patch, suppress(_ReadError):
        patch.setattr(_Parser, "parse_args", parse_args)
        patch.setattr(sys, "argv", ["pyro-rnp", command, *words])
        import_module(f"inference.commands.{command}").main()
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("command", "option"), [(c, o) for c in OPTIONS for o in OPTIONS[c]])
def test_every_list_may_be_written_in_any_usual_way(monkeypatch, tmp_path, command, option, way):
    values = OPTIONS[command][option]
    text, run = way.format(*values), ["RUN"] * (command in ("evaluate", "figures"))
    lines = [[f"--{option}", text], [f"--{option}={text}"], [f"--{option}", *text.split(" ")]]
    if command == "train":
        file = tmp_path / "config.yaml"
        file.write_text(f"{option}: {text}\n")
        lines.append(["--config", str(file)])
    for words in lines:
        found = read(monkeypatch, command, *run, *words)
        kept = found[option if option in found else f"model.{option}"]
        if isinstance(kept, str):
            assert kept == ",".join(values)
        else:
            assert [str(value) for value in kept] == values
        assert not run or found["run"] == "RUN"


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_that_takes_a_list_is_left_out(monkeypatch, command):
    plain, lists = _Parser.parse_args, set()

    def parse_args(self, *args, **kwargs):
        lists.update(self._lists() | self.in_text)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(_Parser, "parse_args", parse_args)
    monkeypatch.setattr(sys, "argv", ["pyro-rnp", command, "--help"])
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        import_module(f"inference.commands.{command}").main()
    known = set(OPTIONS.get(command, {})) - {"steps", "stochastic"}
    known |= {"model.stochastic"} if command == "train" else set()
    assert {name.rstrip("+") for name in lists} == known


def test_one_device_of_a_list_is_not_a_number_of_devices():
    assert train_config(["--devices=[1]"]).devices == "1,"
    assert train_config(["--devices=2"]).devices == "2"
    assert train_config(["--stochastic=[both]"]).model.stochastic == "both"


def test_words_after_a_list_belong_to_the_command_until_it_has_its_own(monkeypatch):
    found = read(monkeypatch, "evaluate", "--methods", "guide", "RUN")
    assert (found["run"], [*found["methods"]]) == ("RUN", ["guide"])
    found = read(monkeypatch, "evaluate", "RUN", "--methods", "guide", "OTHER")
    assert (found["run"], [*found["methods"]]) == ("RUN", ["guide", "OTHER"])


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--num_samples=0", "--num_samples must be a whole number above 0, got 0."),
        ("--num_samples=many", "--num_samples must be a whole number above 0, got many."),
        ("--keep=-3", "--keep must be a whole number above 0, got -3."),
        ("--tolerance=0", "--tolerance must be a number above 0, got 0."),
        ("--tolerance=x", "--tolerance must be a number above 0, got x."),
        ("--answers=0", "--answers must be a whole number above 0, got 0."),
        ("--answers=many", "--answers must be a whole number above 0, got many."),
    ],
)
def test_a_number_that_is_not_above_0_is_told_in_one_short_sentence(monkeypatch, flag, said):
    with pytest.raises(ArgumentError) as error:
        read(monkeypatch, "query", "RUN", flag)
    assert sentence(error.value) == f"{said} Try --help."


@pytest.mark.parametrize("text", LISTS)
def test_lists_of_numbers_may_be_written_in_any_usual_way(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(f"steps: {text}\nclasses: {text}\nepochs: 2\n")
    for args in (
        ["--steps", text, "--classes", text, "--epochs", "2"],
        [f"--model.steps={text}", f"--classes={text}", "--epochs=2"],
        ["--config", str(file)],
    ):
        config = train_config(args)
        assert (config.model.steps, config.classes, config.epochs) == ((4, 3), [4, 3], 2)
    assert train_config(["--steps=4", "--classes=4"]).model.steps == (4,)
    assert train_config(["--classes=null"]).classes is None


@pytest.mark.parametrize("text", [*LISTS, "4,3 "])
def test_lists_of_other_commands_may_be_too(text):
    arguments = parser("A command.")
    arguments.add_argument("--numbers", type=list[PositiveInt] | None)
    arguments.add_argument("--words", type=list[str], default=["x"])
    arguments.add_argument("--text", type=str)
    arguments.add_argument("--files", type=str, nargs="*", default=[])
    words = ["--words", "a b,c", f"--text={text}", "--files", text, "d,e"]
    found = arguments.parse_args(["--numbers", text, *words])
    assert (found.numbers, found.words, found.text) == ([4, 3], ["a b", "c"], text)
    assert found.files == [text, "d,e"], "what takes no list is as it was written"
    assert arguments.parse_args(["--words=['a, b']"]).words == ["a, b"]


@pytest.mark.parametrize("numbers", [["4", "3"], ["4,", "3"], ["4", "3", "--seed", "1"]])
def test_numbers_of_a_list_may_be_words_of_their_own(numbers):
    config = train_config(["--steps", *numbers])
    assert config.model.steps == (4, 3)
    with pytest.raises(ArgumentError, match="unrecognized arguments: 3"):
        train_config(["--epochs", "4", "3"])


def test_flags_for_another_command_are_passed_on_as_they_are():
    arguments = parser("A command that runs another.")
    arguments.add_argument("--flags", type=str)
    value = "--config=file.yaml --steps 4 3"
    assert arguments.parse_args(["--flags", value]).flags == value


def test_a_file_has_the_short_names_that_flags_have(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("prior: mixture\nsteps: 4,3\nseed: 2\nmodel:\n  guide: flow\n")
    config = train_config(["--config", str(file), "--sigma=0.3"])
    wanted = RNPConfig.preset("fast", prior="mixture", guide="flow", steps=(4, 3), sigma=0.3)
    assert (config.model, config.seed) == (wanted, 2)
    file.write_text("prior: mixture\nmodel:\n  prior: flow\n")
    with pytest.raises(ValueError, match=r"gives model\.prior twice"):
        train_config(["--config", str(file)])
    for text in ("", "- 1\n", "words\n"):
        file.write_text(text)
        with pytest.raises(ValueError, match="holds fields with their values"):
            train_config(["--config", str(file)])


@pytest.mark.parametrize(
    ("former", "present", "value"),
    [("drawings", "images_per_class", 4), ("turned", "rotated_classes", True)],
)
def test_former_names_of_fields_work_with_one_note(tmp_path, capsys, former, present, value):
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({former: value}))
    for args in (
        [f"--{former}={value}".lower()], [f"--{former}", f"{value}".lower()],
        ["--config", str(file)], ["--config", str(file), f"--{former}={value}".lower()],
    ):  # fmt: skip
        assert getattr(train_config(args), present) == value
        assert capsys.readouterr().err == (
            f"note: {former} is called {present} now; use that name.\n"
        )
    file.write_text(yaml.safe_dump({former: value, present: value}))
    with pytest.raises(ValueError, match=f"gives {present} twice"):
        train_config(["--config", str(file)])
    with pytest.raises(SystemExit):
        train_config(["--help"])
    said = capsys.readouterr().out
    assert f"--{present}" in said
    assert f"--{former}" not in said


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


@pytest.mark.parametrize("wrong", [{"preset": "xyz"}, {"preset": ["fast"]}, {"epochs": "many"}])
def test_a_run_whose_configuration_was_damaged_is_named(tmp_path, wrong):
    save(RNP(RNPConfig.preset("fast", steps=(2, 2))), tmp_path, {"training": wrong})
    for place in ("start", "resume"):
        if place == "start" and "epochs" in wrong:  # which it takes no notice of
            continue
        with pytest.raises(ValueError, match=f"The configuration in {tmp_path} cannot be read"):
            train_config([f"--{place}", str(tmp_path)])


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
        (["--lower_warmup", "-0.1"], "lower_warmup must be in [0, 1)"),
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
        r"```python\n(.*?)```", (CONFIGS.parents[2] / "CONTRIBUTING.md").read_text(), re.S
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
        assert (config.data, config.start, config.images_per_class) == ("omniglot", "omniglot", 4)
        return
    assert config.data.partition("-")[0] == file.stem.partition("-")[0]
    if file.stem.endswith("-paper"):
        assert config.model == RNPConfig.preset(config.data)
        assert config.learning_rate == 4e-5
        assert (config.schedule, config.warmup) == ("constant", 0), "one rate, as in the paper"
    else:
        assert (config.preset, config.minutes) == ("fast", None)


def test_starting_from_a_run_takes_its_model_and_its_images_alone(tmp_path):
    model = RNPConfig.preset("fast", steps=(2, 2))
    save(RNP(model), tmp_path, {"training": {"data": "strokes", "seed": 4, "preset": "fast"}})
    config = train_config(["--start", str(tmp_path), "--learn=guide", "--classes=[1,2]"])
    assert (config.model, config.data, config.seed) == (model, "strokes", 0)
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


def test_a_flag_of_several_values_that_stands_twice_is_refused():
    arguments = parser("A command.")
    arguments.add_argument("--remove", type=str, nargs="*", default=[])
    assert arguments.parse_args(["--remove", "0", "1"]).remove == ["0", "1"]
    with pytest.raises(ArgumentError, match=r"--remove stands twice; .* --remove A B"):
        arguments.parse_args(["--remove", "0", "--remove", "1"])


def test_a_flag_that_is_cut_short_is_a_mistake():
    with pytest.raises(ArgumentError, match="learning_rat"):
        train_config(["--learning_rat", "0.1"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--compile", "maybe"], "--compile must be one of true, false, auto, got maybe. Try"),
        (
            ["--mask_training", "halfs"],
            "--mask_training must be one of halves, quadrants, blocks, pixels, none, got halfs.",
        ),
        (["--invert", "maybe"], "--invert must be one of true, false, auto, got maybe. Try"),
        (["--schedule", "linear"], "--schedule must be one of cosine, constant, got linear. Try"),
        (["--batch_size", "many"], "--batch_size must be a whole number, got many. Try"),
        (["--config", "/nowhere.yaml"], "--config: the file /nowhere.yaml does not exist. Try"),
        (["--data", "digitz"], "There is no data set 'digitz' (did you mean digits?)"),
        (["--minutes", "soon"], "--minutes must be a number, got soon. Try"),
        (["--no_such_flag"], "unrecognized arguments: --no_such_flag. Try"),
        (["--epoch", "3"], "There is no --epoch (did you mean --epochs?). Try"),
    ],
)
def test_a_wrong_value_is_told_in_one_short_sentence(flags, said, capsys):
    with pytest.raises(SystemExit) as end:
        run(lambda: train_config(flags))
    assert end.value.code == 2
    assert f"error: {said}" in capsys.readouterr().err


def test_a_closed_pipe_ends_a_command_in_silence():
    out, into = os.pipe()
    os.close(out)
    code = "from inference.cli import run; run(lambda: print('x' * 100_000))"
    ended = subprocess.run([sys.executable, "-c", code], stdout=into, stderr=subprocess.PIPE)
    os.close(into)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")
