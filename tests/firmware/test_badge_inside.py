"""Checks that run inside the real MicroPython, one process a file; each function there is a test here."""

from __future__ import annotations

import ast
import fcntl
import os
from collections.abc import Callable
from functools import cache
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


@pytest.fixture(scope="session")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """What the checks of a file print: run once, whichever worker wants it first."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @cache
    def of(name: str) -> str:
        told = shared / f"{name}.txt"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not told.exists():
                told.write_text(run(name), encoding="utf-8")
        return told.read_text(encoding="utf-8")

    return of


@pytest.mark.parametrize(("name", "test"), CASES, ids=[f"{name}:{test}" for name, test in CASES])
def test_inside_micropython(printed: Callable[[str], str], name: str, test: str) -> None:
    out = printed(name)
    assert f"ok {test}\n" in out, out
