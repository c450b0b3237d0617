"""Shipping a model."""

from pyro_rnp import load
from tests.scripts.helpers import call, refused


def test_ship(monkeypatch, capsys, run_folder, tmp_path):
    call(monkeypatch, "ship.py", run_folder, "--name=small", "--to", tmp_path)
    assert capsys.readouterr().out == f"{tmp_path / 'small'}\n"
    assert load(tmp_path / "small").config == load(run_folder).config
    wrong = (run_folder, "--name=small", "--to", tmp_path)
    assert "exists already" in refused(monkeypatch, capsys, "ship.py", *wrong)
