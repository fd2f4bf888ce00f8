"""The board's outline and holes, for the board and for the case around it (board coordinates, mm)."""

# The outline: an L around the battery, which lies right of the arm. Corners with their radius.
WIDTH, ARM, INNER, HEIGHT = 53.0, 16.5, 54.5, 84.0
OUTLINE = ((0, 0, 2.0), (ARM, 0, 1.0), (ARM, INNER, 1.5), (WIDTH, INNER, 1.0), (WIDTH, HEIGHT, 2.0), (0, HEIGHT, 2.0))
# Pins of the case go through these holes: x, y, diameter. None within 15 mm of the antenna.
HOLES = ((2.8, 8.0, 2.2), (50.2, 56.9, 1.6), (2.6, 79.6, 2.2))
FIDUCIALS = ((2.0, 3.4), (51.0, 81.6), (14.4, 52.6))


def from_board(x: float, y: float) -> tuple[float, float]:
    """Case coordinates of a point of the board."""
    return x - 26.5, 42.0 - y
