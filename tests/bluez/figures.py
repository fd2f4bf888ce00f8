"""What is measured: name with unit -> value."""

import pytest

FIGURES: dict[str, float | str] = {}


def print_figures(config: pytest.Config) -> None:
    """One line each, on the terminal of whoever runs the tests."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is None:
        return
    with capture.global_and_fixture_disabled():
        print("\nmeasured through BlueZ:")
        for name, value in FIGURES.items():
            print(f"  {name:60} {value}")


def figure(name: str, value: float) -> None:
    """Keep one, to three digits."""
    FIGURES[name] = round(value, 3)
