"""What is measured: name with unit -> value."""

import pytest

FIGURES: dict[str, float | str] = {}


def print_figures(config: pytest.Config) -> None:
    """One line each, on the terminal of whoever runs the tests."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None and FIGURES:
        terminal.section("measured through BlueZ")
        for name, value in FIGURES.items():
            terminal.write_line(f"{name:60} {value}")


def figure(name: str, value: float) -> None:
    """Keep one, to three digits."""
    FIGURES[name] = round(value, 3)
