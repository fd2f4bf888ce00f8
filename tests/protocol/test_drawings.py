"""The drawings in the documentation are what their generator gives today."""

import importlib.util
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_every_committed_drawing_is_what_the_generator_gives() -> None:
    spec = importlib.util.spec_from_file_location("drawings", DOCS / "drawings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, text in module.drawings().items():
        assert (DOCS / "img" / name).read_text() == text, f"docs/img/{name} is old: run `make drawings`"
