"""Checks that run inside the real MicroPython, one process a file; each function there is a test here."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

import pytest
from interpreter import run

FOLDER = Path(__file__).parent / "on_badge"
CASES = [
    (path.stem, node.name)
    for path in sorted(FOLDER.glob("check_*.py"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
]


@lru_cache
def printed(name: str) -> str:
    return run(name)


@pytest.mark.parametrize(("name", "test"), CASES, ids=[f"{name}:{test}" for name, test in CASES])
def test_inside_micropython(name: str, test: str) -> None:
    out = printed(name)
    assert f"ok {test}\n" in out, out
