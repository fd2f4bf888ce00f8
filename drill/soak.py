"""All drills again and again, in random order with random seeds, to find what happens once in a hundred times."""

import asyncio
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import BinaryIO

from drill.processes import command

# drills mostly wait; more at once than cores would measure the machine and not the chain
AT_ONCE = 2
GIVE_UP_S = 300.0


async def soak(folder: Path, rounds: int, seed: int, keep: Path, at_once: int = AT_ONCE) -> int:
    """Plays every drill of a folder `rounds` times and returns how many failed; their reports stay in `keep`."""
    order = _shuffled(folder, rounds, seed)
    print(f"{len(order)} drills, {at_once} at a time; order and seeds from --seed {seed}", flush=True)
    failed: list[str] = []
    started = time.monotonic()
    queue = iter(enumerate(order, 1))

    async def worker() -> None:
        for number, (file, own_seed) in queue:
            status, why = await _one(file, own_seed, keep / f"{number:03}-{file.stem}")
            print(f"{number:4}/{len(order)}  {file.stem:<20} seed {own_seed:<11} {why}", flush=True)
            if status != 0:
                failed.append(f"{file.stem} with seed {own_seed}")

    await asyncio.gather(*(worker() for _ in range(at_once)))
    minutes = (time.monotonic() - started) / 60
    print(f"{len(order) - len(failed)} of {len(order)} passed in {minutes:.1f} minutes", flush=True)
    for name in failed:
        print(f"failed: {name}", file=sys.stderr)
    return len(failed)


def _shuffled(folder: Path, rounds: int, seed: int) -> list[tuple[Path, int]]:
    chance = random.Random(seed)
    order = [(file, chance.randrange(2**31)) for file in sorted(folder.glob("*.toml")) for _ in range(rounds)]
    chance.shuffle(order)
    return order


def _opened(file: Path) -> BinaryIO:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file.open("wb")


async def _one(file: Path, seed: int, keep: Path) -> tuple[int, str]:
    """Exit status of one drill, and a word about it; what it left is deleted when it passed."""
    report = keep / "report.json"
    arguments = ["run", str(file), "--seed", str(seed), "--json", str(report)]
    log = _opened(keep / "drill.log")
    process = await asyncio.create_subprocess_exec(*command("tocsin-drill"), *arguments, stderr=log, stdout=log)
    try:
        async with asyncio.timeout(GIVE_UP_S):
            status = await process.wait()
    except TimeoutError:
        process.terminate()
        await process.wait()
        return 1, f"gave up after {GIVE_UP_S:g} s"
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    finally:
        log.close()
    if status == 0:
        shutil.rmtree(keep)
        return 0, "ok"
    return status, f"FAILED with status {status}: {_why(report) or 'see ' + str(keep / 'drill.log')}"


def _why(report: Path) -> str:
    """The first reason that a report gives for not being ok."""
    try:
        body = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    reasons = [f"{body[key]} {word}" for key, word in (("lost", "lost"), ("duplicates", "seen twice")) if body[key]]
    reasons += [f"{error['part']}: {error['text'][:120]}" for error in body["errors"][:2]]
    reasons += [f"{failed['expect']}: {failed['text'][:120]}" for failed in body["failed"][:2]]
    return "; ".join(reasons)
