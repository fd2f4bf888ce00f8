"""Kill a hub as often as asked, at named points and at random, and say what was lost: kill_runs.py 300 [SEED]."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pocket import Tally, free_of_errors, lives, pocket, random_plan
from pocket_hub import NAMES


async def runs(folder: Path, count: int, seed: int) -> tuple[Tally, Counter[str], list[str]]:
    """The tally, how often each point killed, and lines of the hub's log that should not be there."""
    chance = random.Random(seed)
    async with pocket(folder) as chain:
        tally, fired = await lives(chain, random_plan(NAMES, count, chance), chance)
    return tally, fired, free_of_errors(folder / "hub.log")


def main() -> int:
    """Exit status: 0 nothing was lost or doubled, 1 something was."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tocsin-kill-") as folder:
        tally, fired, faults = asyncio.run(runs(Path(folder), count, seed))
    print(f"seed {seed}: {tally}; {time.monotonic() - started:.0f} s")
    print("killed at:", ", ".join(f"{name} {fired[name]}" for name in NAMES if fired[name]))
    if missed := [name for name in NAMES if not fired[name]]:
        print("never reached:", ", ".join(missed))
    for line in faults:
        print(line)
    return 0 if tally.clean and not faults else 1


if __name__ == "__main__":
    sys.exit(main())
