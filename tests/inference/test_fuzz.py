"""No command line ends in a traceback: odd flags, values, files and folders."""

import contextlib
import functools
import io
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import inference.commands.benchmark
import inference.commands.explore
import inference.commands.reproduce
import inference.training
from inference.explore.server import listen
from inference.reproduction.experiments import Reproduction, read_experiments
from pyro_rnp import RNP, save
from tests.conftest import tiny

SCRIPTS = sorted((Path(__file__).parents[2] / "scripts").glob("*.py"))
ODD = [
    "", " ", "-", "--", "---", "=", "0", "-1", "1", "2", "1e999", "nan", "-inf", "1e-320", "null",
    "true", "~", "[", "]", "{", "{}", "[]", "[1,", "[[1]]", "[0]", "[nan]", "{a: 1}", ": :",
    "&a *a", "!!python/name:os.system", "@x", "\x00", "é", "a\nb", "%s", "${X}", "9" * 400,
    "mnist", "digits",
    "mixture:components=-1", "mixture:components={[]:1}", "flow:", "both,none", "a:b=c:d",
    "fast", ".", "/", "..", "~/x",
]  # fmt: skip


def flags(script):
    """The flags that `--help` shows."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [script.name, "--help"])
        with pytest.raises(SystemExit):
            runpy.run_path(str(script), run_name="__main__")
    return sorted(set(re.findall(r"--[\w.-]+", out.getvalue())) - {"--help", "--version"})


def run_script(script, args):
    """The exit status, and what was said; an exception of another kind is the traceback."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", [script.name, *args])
        patch.setattr(inference.training, "train", lambda config: None)
        patch.setattr(inference.commands.benchmark, "compare", lambda *_, **__: [])
        patch.setattr(inference.commands.benchmark, "scaling", lambda *_, **__: [])
        patch.setattr(inference.commands.explore, "serve", lambda _, *at: listen(*at[:2]).close())
        patch.setattr(subprocess, "run", lambda *_, **__: None)
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            return ended.code, err.getvalue()
    return 0, err.getvalue()


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A run folder, and files and folders that are none or damaged."""
    root = tmp_path_factory.mktemp("fuzz")
    save(RNP(tiny()), root / "run")
    save(RNP(tiny()), root / "cut")
    (root / "cut" / "model.safetensors").write_bytes(b"x")
    (root / "odd").mkdir()
    (root / "odd" / "config.json").write_text("[1]")
    (root / "null").mkdir()
    (root / "null" / "config.json").write_text('{"model": {"steps": 3}, "training": 4}')
    model = json.dumps(tiny().to_dict())
    for name, training in (("number", "4"), ("nothing-known", '{"colour": 1}')):
        (root / name).mkdir()
        (root / name / "config.json").write_text(f'{{"model": {model}, "training": {training}}}')
    (root / "list.yaml").write_text("- 1\n")
    (root / "broken.yaml").write_text("a: [\n")
    (root / "deep.yaml").write_text("model: {model: {model: 1}}\n")
    (root / "bytes").write_bytes(bytes(range(256)))
    (root / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return [*map(str, sorted(root.iterdir())), str(root / "nothing")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_command_line_ends_in_a_traceback(script, places, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    monkeypatch.setattr(Reproduction, "make", lambda *_: None)  # which takes days
    read = functools.cache(read_experiments)
    monkeypatch.setattr(inference.commands.reproduce, "read_experiments", read)
    values = st.one_of(
        st.sampled_from(ODD), st.sampled_from(places), st.text(max_size=8), st.integers().map(str)
    )
    known = st.sampled_from(flags(script))
    token = st.one_of(
        values,
        known,
        st.tuples(known, values).map("=".join),
        st.tuples(known, values).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    )

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(token, max_size=5))
    @example(["a\nb"])
    @example(["--resume", str(Path(places[0]).with_name("number"))])
    @example(["--resume", str(Path(places[0]).with_name("nothing-known"))])
    @example(["--config=--"])
    @example(["--batch_size=" + "9" * 400])
    @example(["--model.kl_weight=" + "9" * 400])
    def check(args):
        code, said = run_script(script, args)
        assert code in (0, 2), args
        assert "Traceback" not in said
        if code == 2:
            assert said.startswith("error: "), (args, said)
            assert said.count("\n") == 1, (args, said)

    check()
