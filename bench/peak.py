"""The most memory that the badge's objects take at once, in the worst moment that a wearer can bring about.

tests/drills/worst_moment.toml plays it, and a watch looks three hundred times a second, between any two bytecodes, how
much of the heap is in use without garbage. That a heap of the limit is also whole enough to be used, every drill shows:
their badges have no other.
"""

import tempfile
from pathlib import Path
from typing import Any

from drill.play import Play
from drill.scenario import load
from drill.stage import Stage
from firmware.emulator.heap import IN_C, Heap

SCENARIO = Path(__file__).parents[1] / "tests" / "drills" / "worst_moment.toml"
BADGE = "alice"


async def measure() -> dict[str, Any]:
    """Bytes of a 64-bit interpreter at the peak, what of them is the badge's, and whether anything went wrong."""
    with tempfile.TemporaryDirectory(prefix="tocsin-bench-", ignore_cleanup_errors=True) as folder:
        stage = Stage(load(SCENARIO), Path(folder))
        try:
            await stage.start()
            client = stage.badges[BADGE]
            play = Play(stage)
            await play.begin()
            start = len(client.events)
            await client.do("watch_heap")
            await play.run()
            state = await client.state()
        finally:
            await stage.stop()
    events = client.events[start:]
    heap, used = Heap(**state["heap"]), int(state["heap_peak"])
    return {
        "peak": heap.of_the_badge(used),
        "in_use_by_the_interpreter": used,
        "not_on_a_badge": {"table_of_names": heap.names, "emulator": heap.shims},
        "set_aside_for_c_modules": IN_C,
        "faults": sum(event["type"] == "trace" and event["name"] == "fault" for event in events),
        "resets": sum(event["type"] == "state" and event["state"] == "booting" for event in events),
    }
