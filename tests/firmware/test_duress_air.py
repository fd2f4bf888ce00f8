"""A forced end of a visit on the emulated badge, hand to hub: it looks and feels like a free one (A7)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from badge_central import Heard
from test_badge_air import Story, story
from test_sos_in_every_state import play

from protocol import kinds, patterns


async def ends_a_visit(told: Story, act: str) -> tuple[list[int], list[str]]:
    """Begin a visit and end it by a gesture: the kinds that the hub was shown, and what was felt."""
    sound = (kinds.AUDIO_START, kinds.AUDIO_END)
    await told.feels(patterns.PROTECTED)
    await told.badge.do({"do": "start_visit"})
    await told.feels(patterns.CHECKED_IN)
    for kind in (kinds.CHECK_IN, kinds.VISIT_START, kinds.AUDIO_START):  # all of the beginning has been announced
        await told.central.event(kind)
    felt, known = len(told.felt()), set(told.central.events)

    def fresh() -> list[Heard]:
        heard = sorted((h for i, h in told.central.events.items() if i not in known), key=lambda h: h.ident)
        return [h for h in heard if h.shown not in sound]

    await told.badge.do({"do": act})
    await told.central.until(lambda: patterns.CHECKED_IN in told.felt()[felt:])
    await told.central.until(lambda: len(fresh()) >= 2)
    await asyncio.sleep(1.5)  # and nothing more
    return [h.shown for h in fresh()], told.felt()[felt:]


def test_a_forced_end_of_a_visit_is_shown_and_felt_as_a_free_one(tmp_path: Path) -> None:
    async def scene() -> None:
        seen = []
        for act in ("end_visit", "duress_cancel"):
            (tmp_path / act).mkdir()
            async with story(tmp_path / act) as told:
                seen.append(await ends_a_visit(told, act))
                forced = told.central.find(kinds.DURESS)
                assert (forced is not None) == (act == "duress_cancel")
                assert told.central.find(kinds.VISIT_END) is not None
                assert told.badge.microphone.capturing == (forced is not None)
                if forced is not None:
                    # an operator takes it, and nobody present feels that
                    told.central.state(kinds.CLAIMED)
                    await asyncio.sleep(3)
                    assert patterns.OPERATOR_WITH_YOU not in told.felt()
        assert seen[0] == seen[1] == ([kinds.CHECK_IN, kinds.VISIT_END], [patterns.CHECKED_IN])

    play(scene)
