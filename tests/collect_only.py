"""Says which tests a pytest command line would run: `python tests/collect_only.py ARGUMENTS` prints JSON.

An object: the node id of each test, and why it would never run (a mark, or a skip that nothing decides), else null.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import json
import sys
import textwrap

import pytest


def _first_statement_skips(item: pytest.Item) -> bool:
    function = getattr(item, "function", None)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):
        return False
    body = [node for node in getattr(tree.body[0], "body", []) if not _is_text(node)]
    first = body[0] if body else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Call):
        return False
    return ast.unparse(first.value.func) in ("pytest.skip", "pytest.xfail", "pytest.fail")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def never_passes(item: pytest.Item) -> str | None:
    """Why a test can show nothing, None if it can."""
    for mark in item.iter_markers():
        if mark.name in ("skip", "xfail"):
            return f"is marked {mark.name}"
        if mark.name == "skipif" and mark.args[:1] == (True,):
            return "is marked skipif(True)"
    return "skips itself at once" if _first_statement_skips(item) else None


class Lister:
    """Keeps what was collected."""

    def __init__(self) -> None:
        self.found: dict[str, str | None] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """The hook that pytest calls when it knows its tests."""
        self.found = {item.nodeid: never_passes(item) for item in session.items}


def main(arguments: list[str]) -> int:
    """Collect and print. The status is pytest's own."""
    lister = Lister()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main([*arguments, "--collect-only", "-q"], plugins=[lister])
    if status != pytest.ExitCode.OK:
        print(said.getvalue(), file=sys.stderr)
        return int(status)
    print(json.dumps(lister.found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
