"""Tools that some machines lack."""

from collections.abc import Callable

import pytest

from refmodel.errors import InputError


def required(require: Callable[[], object]) -> None:
    """Call what refuses where a tool is missing, and skip the test with what it says then."""
    try:
        require()
    except InputError as missing:
        pytest.skip(str(missing))
