"""Sets of whole numbers that mostly follow one another, such as the packets of a capture."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator


class Ranges:
    """A set kept as its runs: memory for each gap, not for each number."""

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._runs: list[list[int]] = []  # [first, end) ascending, never touching
        for number in numbers:
            self.add(number)

    def add(self, number: int) -> None:
        """Put a number in."""
        runs = self._runs
        at = bisect_right(runs, number, key=lambda run: run[0])
        before = runs[at - 1] if at else None
        after = runs[at] if at < len(runs) else None
        if before is not None and number < before[1]:
            return
        joins_before = before is not None and before[1] == number
        joins_after = after is not None and after[0] == number + 1
        if joins_before and joins_after and before is not None and after is not None:
            before[1] = after[1]
            del runs[at]
        elif joins_before and before is not None:
            before[1] = number + 1
        elif joins_after and after is not None:
            after[0] = number
        else:
            runs.insert(at, [number, number + 1])

    def fill(self, first: int, end: int) -> None:
        """Put in all from first up to end, without end."""
        if first >= end:
            return
        start, stop, kept = first, end, []
        for run in self._runs:
            if run[1] < start or run[0] > stop:
                kept.append(run)
            else:
                start, stop = min(start, run[0]), max(stop, run[1])
        kept.append([start, stop])
        self._runs = sorted(kept)

    def remove(self, first: int, last: int) -> None:
        """Take first to last out, both included."""
        if first > last:
            return
        kept: list[list[int]] = []
        for start, end in self._runs:
            if end <= first or start > last:
                kept.append([start, end])
                continue
            if start < first:
                kept.append([start, first])
            if end > last + 1:
                kept.append([last + 1, end])
        self._runs = kept

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._runs, number, key=lambda run: run[0])
        return at > 0 and number < self._runs[at - 1][1]

    def __len__(self) -> int:
        return sum(end - first for first, end in self._runs)

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __iter__(self) -> Iterator[int]:
        for first, end in self._runs:
            yield from range(first, end)

    def gaps(self) -> int:
        """How many runs there are beyond the first."""
        return max(0, len(self._runs) - 1)

    def first_missing(self) -> int:
        """The number after the first run; 0 for an empty set."""
        return self._runs[0][1] if self._runs else 0

    def following(self, number: int) -> int | None:
        """The lowest number in the set that is not below the given one."""
        at = bisect_right(self._runs, number, key=lambda run: run[0])
        if at and number < self._runs[at - 1][1]:
            return number
        return self._runs[at][0] if at < len(self._runs) else None
