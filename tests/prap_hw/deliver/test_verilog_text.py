"""The emitted Verilog is the same on every run, and says nothing of the machine it is made on."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from prap_hw.deliver.verilog import TOP, engine_verilog
from tests.support.layers.hand import TINY_ENGINE

SCRIPT = """
import sys
from prap_hw.deliver.verilog import engine_verilog
from tests.support.layers.hand import TINY_ENGINE
sys.stdout.write(engine_verilog(TINY_ENGINE, open_port=sys.argv[1] == "True"))
"""


def emitted(root, seed: str, open_port: bool) -> str:
    """The text that a process of its own writes under a hash seed."""
    environment = os.environ | {"PYTHONHASHSEED": seed}
    command = [sys.executable, "-c", SCRIPT, str(open_port)]
    result = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout


@pytest.mark.parametrize("open_port", [False, True])
def test_text_is_the_same_under_every_hash_seed_and_has_no_path(root, open_port):
    text = emitted(root, "0", open_port)
    other = emitted(root, "1", open_port)
    assert hashlib.sha256(text.encode()).digest() == hashlib.sha256(other.encode()).digest()
    assert re.search(rf"^module {TOP[open_port]}\(", text, re.MULTILINE)
    for place in (str(root), sys.prefix, str(Path.home()), "site-packages", ".py"):
        assert place not in text
    # No line that looks like an absolute path, and no attribute that names a source.
    assert not re.search(r"[\s\"'(]/[A-Za-z]\w*/\w", text)
    assert "src =" not in text


def test_the_open_port_is_a_port_of_the_top_and_the_closed_one_is_not():
    for open_port in (False, True):
        text = engine_verilog(TINY_ENGINE, open_port=open_port)
        header = re.search(rf"^module {TOP[open_port]}\((.*?)\);", text, re.MULTILINE | re.DOTALL)
        assert header
        ports = {port.strip() for port in header.group(1).split(",")}
        assert {"clk", "rst", "start", "busy", "i_load__payload", "o__valid"} <= ports
        assert ("crossbar__request__payload" in ports) == open_port
