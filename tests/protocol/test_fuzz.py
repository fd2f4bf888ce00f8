"""Every decoder meets mutated and random bytes for a moment, on both interpreters; `make fuzz` does it for longer."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


@pytest.mark.parametrize("interpreter", ["python", "micropython"])
def test_no_decoder_raises_what_it_does_not_document(interpreter: str) -> None:
    program = Path(sys.executable).with_name(interpreter)
    done = subprocess.run(
        [program, HERE / "fuzz_decoders.py", REPOSITORY, "2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) inputs to (\d+) decoders, 0 findings", done.stdout)
    assert counted is not None, done.stdout
    assert int(counted[1]) > 500


def test_every_decoder_of_the_protocol_has_a_target() -> None:
    source = (HERE / "fuzz_decoders.py").read_text()
    for module in (REPOSITORY / "protocol").glob("*.py"):
        for name in re.findall(r"^def ((?:open|unpack|parse|route|verify|decode|match)\w*)", module.read_text(), re.M):
            if name in ("unpack", "parse_block"):  # ident.unpack and parse_block take only what was checked before
                continue
            assert f".{name}" in source, f"{module.stem}.{name} has no fuzz target"
