"""Messages that refuse an ONNX file."""

from pathlib import Path

import pytest

from refmodel.errors import InputError
from refmodel.exchange.onnx.load import load_onnx


def refusal(path: Path) -> str:
    """The one line that refuses a file, which names it and says what was expected and found."""
    with pytest.raises(InputError) as caught:
        load_onnx(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("expected ")
    assert ", found" in message
    assert path.name in message
    return message
