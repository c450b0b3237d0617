"""What a query is given."""

import json

import pytest

from inference.posterior.evidence import half_mask, read_sites
from pyro_rnp.affine import FIELDS


@pytest.mark.parametrize(
    ("side", "hidden"),
    [
        ("left", lambda row, column: column < 2),
        ("right", lambda row, column: column >= 2),
        ("top", lambda row, column: row < 2),
        ("bottom", lambda row, column: row >= 2),
    ],
)
def test_the_half_that_is_named_is_hidden(side, hidden):
    for size in (4, 5):
        seen = half_mask(side, size).tolist()
        wanted = [[not hidden(row, column) for column in range(size)] for row in range(size)]
        assert seen == wanted


@pytest.mark.parametrize("side", ["Right", "rigth", ""])
def test_a_side_that_there_is_not_hides_nothing_in_silence(side, unchecked):
    with pytest.raises(ValueError, match=f"one of left, right, top, bottom; got {side}"):
        half_mask(side, 4)


def test_an_action_may_be_written_as_a_parse_has_it(tmp_path):
    file = tmp_path / "given.json"
    action = dict(zip(FIELDS, [0.3, 0.4, 0.1, 0.0, -0.2, 0.5], strict=True))
    shuffled = dict(sorted(action.items()))
    file.write_text(json.dumps({"a/0": shuffled}))
    assert read_sites(file)["a/0"].tolist() == pytest.approx([*action.values()])
    file.write_text(json.dumps({"a/0": {"scale_x": 1}}))
    with pytest.raises(ValueError, match="an action as a parse has it, with scale_x, scale_y"):
        read_sites(file)
    file.write_bytes(b"\xea\x00")
    with pytest.raises(ValueError, match=r"given.json is not JSON"):
        read_sites(file)
