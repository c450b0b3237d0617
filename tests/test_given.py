"""What a query is given."""

import pytest

from inference.given import hiding


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
        seen = hiding(side, size).tolist()
        wanted = [[not hidden(row, column) for column in range(size)] for row in range(size)]
        assert seen == wanted
