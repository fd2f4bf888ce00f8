"""What others say, made fit to be stored, shown and sent on: any JSON may come in, and only plain JSON goes on.

JSON can hold what UTF-8 cannot (half of a surrogate pair), what PostgreSQL refuses (the character NUL) and, as
Python reads it, numbers that browsers do not (NaN). One such value in one alarm would fail wherever it is shown.
"""

import json
import math
from typing import Any

DEPTH_MAX = 8  # of objects and lists within each other; the deepest that a hub sends has 3


def text(given: str) -> str:
    """The text with a question mark for each character that is none."""
    return given.encode("utf-8", "replace").decode().replace("\0", "?")


def clean(given: Any, depth: int = DEPTH_MAX) -> Any:
    """The same JSON value with plain text throughout; None where there is no such number, or beyond the depth."""
    if isinstance(given, str):
        return text(given)
    if isinstance(given, float):
        return given if math.isfinite(given) else None
    if isinstance(given, dict | list | tuple):
        if depth <= 0:
            return None
        if isinstance(given, dict):
            return {text(str(name)): clean(value, depth - 1) for name, value in given.items()}
        return [clean(value, depth - 1) for value in given]
    return given


def compact(data: Any) -> str:
    """JSON on one line, in ASCII: whatever is in it, it can be sent, and it can be read."""
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(clean(data), allow_nan=False, separators=(",", ":"))
