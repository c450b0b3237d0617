"""The importance-weighted bound and the file that keeps bounds."""

from inference.evaluation.bounds import bounds_file
from pyro_rnp import RNP, save
from tests.conftest import tiny


def test_what_is_kept_of_bounds_is_of_one_question(tmp_path):
    save(RNP(tiny()), tmp_path / "run")
    asked = [(None, "test", 5, 3, 0, None), (None, "test", 5, 3, 1, None)]
    asked += [(None, "test", 5, 3, 0, f"refined:steps={steps}") for steps in (1, 2)]
    files = [bounds_file(tmp_path / "kept", tmp_path / "run", what) for what in asked]
    assert len(set(files)) == len(asked)
    assert {file.parent for file in files} == {tmp_path / "kept"}
    assert bounds_file(tmp_path / "kept", tmp_path / "run", asked[0]) == files[0]
