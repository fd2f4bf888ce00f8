"""SIGKILL at any instant: nothing that a badge was promised is lost, nothing is handled twice (B3).

The hub's own code, a real broker and the real station; the badges speak the real protocol over a socket instead of a
radio, and forget at once what they were promised. `make kill-test RUNS=300` does more of it.
"""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest
from kill_runs import runs
from neighbours import on_disk, until
from pocket import Pocket, pocket
from pocket_hub import NAMES

from protocol import kinds

RUNS = int(os.environ.get("TOCSIN_KILL_RUNS", "60"))


def test_a_hub_that_is_killed_anywhere_loses_nothing_and_doubles_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = random.randrange(1 << 32)
    tally, fired, faults = asyncio.run(runs(tmp_path, RUNS, seed))
    with capsys.disabled():
        print(f"\nseed {seed}: {tally}")
    assert tally.clean, f"seed {seed}: {tally}"
    assert faults == []
    # a machine that is busy with other things gets less done in a life
    assert tally.held > RUNS / 2, "badges were promised something in many lives"
    assert len(fired) > len(NAMES) / 2, f"points reached: {fired}"


async def _found_out(chain: Pocket, sabotage: str) -> None:
    badge = chain.badges[0]
    badge.resends = False
    await chain.kill()
    if sabotage == "held_early":
        chain.gate.open = False
    else:
        chain.station.bus._arrived = lambda arrived: None  # it loses what the broker gives it
    await chain.start_hub(sabotage=sabotage)
    await until(lambda: badge.established, what="a session")
    alarm = badge.raise_event(kinds.SOS)
    await until(lambda: alarm in badge.held, what="a promise")
    if sabotage != "held_early":
        await until(lambda: alarm not in on_disk(chain.folder / "hub/outbox.db"), what="deleted by its PUBACK")
    chain.gate.close()
    await chain.kill()
    chain.station.bus._arrived = chain.station.worker.put
    chain.gate.open = True
    badge.kind = kinds.STATUS
    await chain.start_hub()
    assert (await chain.settled()).lost == 1


@pytest.mark.parametrize("sabotage", ["held_early", "retired_by_puback"])
def test_a_hub_that_promises_too_early_or_trusts_the_broker_is_found_out(tmp_path: Path, sabotage: str) -> None:
    """The check can fail: with a defect of this kind in the hub it does."""

    async def story() -> None:
        async with pocket(tmp_path, 1) as chain:
            await _found_out(chain, sabotage)

    asyncio.run(story())
