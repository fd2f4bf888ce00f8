"""The recovery ladder: a rung at a time, no higher than the trouble is worth, and down again when it works."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.recovery import (
    BUSY_MS,
    CERTAIN,
    CYCLE_CERTAIN_MS,
    CYCLE_DOUBTED_MS,
    FIRST,
    HAND_OVER_MS,
    HIGHEST,
    HUNG_MS,
    PAUSE_S,
    TIMES,
    Ladder,
    Step,
    Trouble,
)


def climb(ladder: Ladder, trouble: Trouble, every_ms: int, until_ms: int, busy: bool = False) -> list[Step]:
    """The steps of a trouble that comes again and again, from 0 on."""
    return [ladder.climb(trouble, at, busy) for at in range(0, until_ms, every_ms)]


def test_the_whole_ladder_in_its_order() -> None:
    steps = climb(Ladder(), Trouble.REFUSED, CYCLE_CERTAIN_MS, HAND_OVER_MS + 9 * CYCLE_CERTAIN_MS)
    order = [step for step in Step for _ in range(TIMES[step])]
    assert steps[: len(order)] == order


def test_nobody_hands_over_before_the_trouble_has_lasted() -> None:
    ladder = Ladder()
    for at in range(0, HAND_OVER_MS, 500):
        assert ladder.climb(Trouble.REFUSED, at) is not Step.HAND_OVER
    assert Step.HAND_OVER in [ladder.climb(Trouble.REFUSED, HAND_OVER_MS + at) for at in range(0, 30_000, 500)]


@pytest.mark.parametrize("trouble", Trouble)
def test_no_trouble_climbs_higher_than_its_worth(trouble: Trouble) -> None:
    steps = climb(Ladder(), trouble, 1000, 3_600_000)
    assert max(steps) is HIGHEST[trouble]


def test_a_stick_that_was_pulled_out_is_only_waited_for() -> None:
    ladder = Ladder()
    assert set(climb(ladder, Trouble.ABSENT, 1000, 600_000)) == {Step.RETRY}
    assert ladder.pause_s == PAUSE_S[-1]


def test_a_quiet_street_costs_a_power_cycle_in_five_minutes_at_the_most() -> None:
    ladder = Ladder()
    cycled = [at for at in range(0, 3_600_000, 60_000) if ladder.climb(Trouble.SILENT, at) is Step.POWER_CYCLE]
    assert len(cycled) > 5
    assert all(b - a >= CYCLE_DOUBTED_MS for a, b in itertools.pairwise(cycled))


def test_a_session_that_works_is_spared_for_half_a_minute_and_never_ended_by_handing_over() -> None:
    steps = climb(Ladder(), Trouble.REFUSED, 1000, 600_000, busy=True)
    assert max(steps[: BUSY_MS // 1000]) is Step.DROP
    assert max(steps) is Step.POWER_CYCLE


@pytest.mark.parametrize("trouble", [t for t in Trouble if t not in CERTAIN])
def test_what_may_be_nothing_never_cuts_a_session(trouble: Trouble) -> None:
    assert max(climb(Ladder(), trouble, 1000, 3_600_000, busy=True)) <= Step.DROP


def test_with_another_adapter_that_works_the_hub_does_not_end() -> None:
    ladder = Ladder()
    steps = [ladder.climb(Trouble.STUCK, at, False, False) for at in range(0, 600_000, 1000)]
    assert max(steps) is Step.POWER_CYCLE


def test_a_bluetoothd_that_answers_nothing_is_asked_for_nothing_else() -> None:
    steps = climb(Ladder(), Trouble.HUNG, 1000, HUNG_MS + 2000)
    assert steps == [*[Step.RETRY] * (HUNG_MS // 1000), Step.HAND_OVER, Step.HAND_OVER]
    assert set(climb(Ladder(), Trouble.HUNG, 1000, 600_000, busy=True)) == {Step.RETRY}


def test_a_bluetoothd_that_answers_again_was_slow_and_what_else_was_the_matter_still_is() -> None:
    ladder = Ladder()
    for at in range(0, 20 * HUNG_MS, HUNG_MS // 2):
        assert ladder.climb(Trouble.HUNG, at) is Step.RETRY
        ladder.well(Trouble.ABSENT, Trouble.NO_SERVICE, Trouble.HUNG)
        assert ladder.trouble is None
    begun = 20 * HUNG_MS
    steps = [ladder.climb(Trouble.REFUSED, begun)]
    ladder.climb(Trouble.HUNG, begun + 1000)
    ladder.well(Trouble.HUNG)
    assert ladder.trouble is Trouble.REFUSED
    steps += [ladder.climb(Trouble.REFUSED, begun + at) for at in range(2000, 60_000, 2000)]
    order = [step for step in Step for _ in range(TIMES[step])]
    assert [step for step in steps if step is not Step.RETRY][:2] == [Step.DROP, Step.POWER_CYCLE]
    assert steps[: TIMES[Step.RETRY] + 1] == order[: TIMES[Step.RETRY] + 1]


@pytest.mark.parametrize("trouble", [Trouble.HUNG, Trouble.STUCK, Trouble.REFUSED])
def test_badges_that_do_not_answer_shorten_the_patience_with_nothing_else(trouble: Trouble) -> None:
    """Anybody can be such a badge, for as long as he likes: a hub that ends at the first slow answer is his."""
    ladder = Ladder()
    climb(ladder, Trouble.UNANSWERED, 30_000, 3_600_000)
    least_ms = HUNG_MS if trouble is Trouble.HUNG else HAND_OVER_MS
    for at in range(0, least_ms, 1000):
        assert ladder.climb(trouble, 3_600_000 + at) is not Step.HAND_OVER
    assert Step.HAND_OVER in [ladder.climb(trouble, 3_600_000 + least_ms + at) for at in range(0, 30_000, 1000)]


def test_a_call_that_was_stuck_counts_towards_the_time_that_bluetoothd_hangs() -> None:
    ladder = Ladder()
    assert ladder.climb(Trouble.STUCK, 0) is Step.RETRY
    assert ladder.climb(Trouble.HUNG, HUNG_MS) is Step.HAND_OVER
    ladder.well(Trouble.HUNG)
    assert ladder.climb(Trouble.HUNG, HUNG_MS + 1) is Step.RETRY


def test_an_adapter_that_hears_badges_is_not_kept_from_it_because_they_do_not_answer() -> None:
    ladder = Ladder()
    climb(ladder, Trouble.UNANSWERED, 30_000, 3_600_000)
    assert ladder.pause_s == PAUSE_S[0]


def test_what_works_again_begins_at_the_bottom() -> None:
    ladder = Ladder()
    climb(ladder, Trouble.REFUSED, 1000, 5000)
    ladder.well(Trouble.SILENT)
    assert ladder.trouble is Trouble.REFUSED
    ladder.well()
    assert ladder.trouble is None
    assert ladder.climb(Trouble.REFUSED, 100_000) is Step.RETRY
    assert ladder.pause_s == PAUSE_S[0]


@given(st.lists(st.tuples(st.sampled_from(Trouble), st.integers(0, 20_000), st.booleans(), st.booleans()), max_size=60))
def test_whatever_comes_a_step_is_one_rung_higher_at_most(story: list[tuple[Trouble, int, bool, bool]]) -> None:
    ladder, now, before = Ladder(), 0, Step.RETRY
    cycled: int | None = None
    for trouble, wait_ms, busy, alone in story:
        now += wait_ms
        step = ladder.climb(trouble, now, busy, alone)
        if trouble is Trouble.HUNG:
            assert step in (Step.RETRY, Step.HAND_OVER)
            continue
        assert step <= min(HIGHEST[trouble], max(before + 1, FIRST.get(trouble, Step.RETRY)))
        assert not (step is Step.HAND_OVER and (busy or not alone))
        if step is Step.POWER_CYCLE:
            assert cycled is None or now - cycled >= CYCLE_CERTAIN_MS
            cycled = now
        before = max(before, step)
