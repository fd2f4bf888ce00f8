"""What is measured: name with unit -> value."""

FIGURES: dict[str, float | str] = {}


def figure(name: str, value: float) -> None:
    """Keep one, to three digits."""
    FIGURES[name] = round(value, 3)
