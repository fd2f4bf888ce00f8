"""Figures that the tests of the real Bluetooth stack measure on their way, printed at the end."""

from __future__ import annotations

import pytest
from figures import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line each."""
    if FIGURES:
        terminalreporter.section("measured through BlueZ")
        for name, value in FIGURES.items():
            terminalreporter.write_line(f"{name:60} {value}")
