"""The list of what the emulator shows of the real modules is complete, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from interpreter import ROOT

HERE = Path(__file__).parent
ROWS = [
    [cell.strip() for cell in line.strip("|\n ").split(" | ")]
    for line in (HERE / "conformance.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| manner", "| ---"))
]


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_manner_has_a_test_that_exists_or_a_reason() -> None:
    outside = set().union(*(_tests(path) for path in HERE.glob("test_*.py")))
    for manner, _, proof in ROWS:
        if proof.startswith("not shown: "):
            assert len(proof) > 30, manner
            continue
        name, _, test = proof.rpartition(":")
        known = _tests(HERE / "on_badge" / f"{name}.py") if name else outside
        assert test in known, f"{manner}: there is no {proof}"


def test_every_shim_is_in_the_list() -> None:
    shims = {path.stem for path in (ROOT / "firmware/emulator/shims").glob("*.py")}
    assert shims <= {shim for _, shim, _ in ROWS}


def test_every_fact_that_the_badge_is_built_on_is_in_the_list() -> None:
    """The subjects of the facts about MicroPython on the ESP32 that the project collected before it was built."""
    text = (HERE / "conformance.md").read_text().lower()
    for subject in (
        "bond", "exception in the handler", "memoryviews", "20 bytes", "enomem", "mtu 23", "31 bytes", "indication",
        "l2cap", "light sleep", "deep sleep", "80 mhz", "i2s", "viper", "aes", "urandom", "nvs", "littlefs", "retained",
        "watchdog", "pin interrupts", "80 kb", "typing", "2^30", "garbage", "6 kb", "subscriptions", "brownout",
    ):  # fmt: skip
        assert re.search(re.escape(subject), text), subject
