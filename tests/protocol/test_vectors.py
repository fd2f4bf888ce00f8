"""Both interpreters give the published vectors and our own, and our own file is what its maker gives."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


@pytest.mark.parametrize("interpreter", ["python", "micropython"])
def test_every_vector_holds_on(interpreter: str) -> None:
    program = Path(sys.executable).with_name(interpreter)
    done = subprocess.run(
        [program, HERE / "run_vectors.py", REPOSITORY], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 wrong" in done.stdout


def test_the_file_of_vectors_is_what_its_maker_gives() -> None:
    spec = importlib.util.spec_from_file_location("make_vectors", HERE / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads((HERE / "vectors.json").read_text()) == module.make()
