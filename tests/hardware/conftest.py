"""What the tests of the board and the case need: KiCad, and the packages of the extra `hardware`."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP))
OUT = TOP / "hardware" / "out"


@pytest.fixture(scope="session")
def kicad() -> str:
    """The path of kicad-cli."""
    found = shutil.which("kicad-cli")
    if found is None:
        pytest.skip("KiCad 9 is missing: run hardware/install-kicad as root")
    return found


@pytest.fixture(scope="session")
def cad() -> None:
    """build123d and what goes with it."""
    if any(importlib.util.find_spec(name) is None for name in ("build123d", "numba", "matplotlib")):
        pytest.skip("packages are missing: .venv/bin/python -m pip install -c constraints.txt -e '.[hardware]'")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the committed KiCad project, to be spoilt."""
    copy = tmp_path / "kicad"
    shutil.copytree(OUT / "kicad", copy)
    return copy
