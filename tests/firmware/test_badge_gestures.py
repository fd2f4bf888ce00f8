"""What the hand means: SOS is never missed, never made by accident, and never confused with anything else."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# MicroPython's compiler folds these numbers; on CPython they are themselves
sys.modules.setdefault("micropython", types.SimpleNamespace(const=lambda value: value))  # type: ignore[arg-type]

from firmware.badge.card import GESTURES, SQUEEZE_AT_MS, SQUEEZE_MS  # noqa: E402

# by name: what the badge imports is type-checked against MicroPython, not against CPython (mypy-badge.ini)
gestures: Any = importlib.import_module("firmware.badge.gestures")

PERIOD = 1 << 30
REST = 1500  # ms of quiet after which no gesture is under way

# each example feeds seconds of samples
quick = settings(max_examples=40, deadline=None)

Pulses = list[tuple[int, int]]  # (pressed ms, released ms)


def intervals(start: int, pulses: Pulses) -> list[tuple[int, int]]:
    """When a line is down: [from, to)."""
    out, at = [], start
    for pressed, released in pulses:
        out.append((at, at + pressed))
        at += pressed + released
    return out


def play(
    sos: list[tuple[int, int]],
    side: list[tuple[int, int]],
    hold_ms: int = 1500,
    origin: int = 0,
    step: int = 10,
    phase: int = 0,
) -> list[tuple[int, str]]:
    """Feed both lines, sampled every `step` ms; the acts, with when each was said."""
    recogniser = gestures.Recogniser(hold_ms)
    end = max([to for _, to in sos + side], default=0) + REST
    acts = []
    for now in range(phase, end, step):
        down = [any(a <= now < b for a, b in line) for line in (sos, side)]
        act = recogniser.feed((origin + now) % PERIOD, *down)
        if act:
            acts.append((now, act))
    return acts


def names(acts: list[tuple[int, str]]) -> list[str]:
    return [act for _, act in acts]


thresholds = st.sampled_from([500, 1000, 1500, 2500, 4000])
origins = st.sampled_from([0, PERIOD - 1, PERIOD - 700, PERIOD - 3000, 123456])
pulses = st.lists(st.tuples(st.integers(40, 3000), st.integers(40, 1200)), max_size=8)


@quick
@given(hold=thresholds, held=st.integers(1, 9000), origin=origins, phase=st.integers(0, 9))
def test_a_hold_longer_than_the_threshold_alarms_and_a_shorter_one_never(
    hold: int, held: int, origin: int, phase: int
) -> None:
    acts = play([(100, 100 + held)], [], hold, origin, phase=phase)
    if held >= hold + 50:
        assert names(acts) == ["sos"]
        assert hold <= acts[0][0] - 100 <= hold + 50
    elif held <= hold - 50:
        assert acts == []
    else:
        assert names(acts) in ([], ["sos"])


@quick
@given(hold=thresholds, origin=origins, press=st.integers(60, 300), side=pulses)
def test_nothing_that_the_side_button_does_prevents_or_delays_an_sos(
    hold: int, origin: int, press: int, side: Pulses
) -> None:
    alone = play([(1000, 1000 + hold + 200)], [], hold, origin)
    both = play([(1000, 1000 + hold + 200)], intervals(0, side), hold, origin)
    assert [act for act in alone if act[1] == "sos"] == [act for act in both if act[1] == "sos"]
    rapid = intervals(1000, [(press, 150)] * 5)
    assert "sos" in names(play(rapid, intervals(0, side), 1500, origin))


@quick
@given(side=pulses, origin=origins)
def test_nothing_that_the_side_button_does_alone_is_an_sos_or_a_duress(side: Pulses, origin: int) -> None:
    acts = names(play([], intervals(0, side), origin=origin))
    assert not [act for act in acts if act in (gestures.SOS, gestures.DURESS_CHECK_IN, gestures.DURESS_HOLD)]


@quick
@given(count=st.integers(1, 9), press=st.integers(50, 400), gap=st.integers(50, 280), origin=origins)
def test_five_rapid_presses_alarm_at_the_fifth_and_four_do_not(count: int, press: int, gap: int, origin: int) -> None:
    line = intervals(100, [(press, gap)] * count)
    acts = play(line, [], origin=origin)
    assert len(acts) == count // 5
    if acts:
        assert 0 <= acts[0][0] - line[4][0] <= 50


def test_slow_presses_are_a_hand_that_fidgets() -> None:
    assert play(intervals(0, [(200, 700)] * 12), []) == []


@quick
@given(
    bounces=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=4),
    held=st.integers(200, 3000),
    phase=st.integers(0, 4),
)
def test_bouncing_contacts_change_nothing(bounces: Pulses, held: int, phase: int) -> None:
    line = intervals(0, bounces)
    start = line[-1][1] + 5 if line else 0
    line.append((start, start + held))
    tail = start + held
    for down, up in bounces:
        line.append((tail + up, tail + up + down))
        tail += up + down
    acts = names(play(line, [], step=5, phase=phase))
    total = tail - start
    if held >= 1600:
        assert acts == ["sos"]
    elif total <= 1400:
        assert acts == []


@quick
@given(on=st.integers(1, 29), at=st.integers(0, 500))
def test_a_glitch_shorter_than_the_debounce_is_nothing(on: int, at: int) -> None:
    assert play([(at, at + on)], [(at, at + on)], step=1) == []


@pytest.mark.parametrize(
    ("act", "meant"),
    [
        ("sos", gestures.SOS),
        ("sos_presses", gestures.SOS),
        ("press", None),
        ("check_in", gestures.CHECK_IN),
        ("extend", gestures.EXTEND),
        ("amber", gestures.AMBER),
        ("self_test", gestures.SELF_TEST),
        ("start_visit", gestures.HOLD),
        ("end_visit", gestures.HOLD),
        ("cancel", gestures.HOLD),
        ("pair", gestures.PAIR),
        ("duress", gestures.DURESS_CHECK_IN),
        ("duress_cancel", gestures.DURESS_HOLD),
    ],
)
@pytest.mark.parametrize("hold_ms", [500, 1500])
def test_every_gesture_of_the_card_means_what_the_card_says(act: str, meant: str | None, hold_ms: int) -> None:
    button, wanted = GESTURES[act]
    line = intervals(200, list(wanted))
    sos, side = (line, []) if button == "sos" else ([], line)
    if button == "side+sos":
        sos = [(line[0][0] + SQUEEZE_AT_MS, line[0][0] + SQUEEZE_AT_MS + SQUEEZE_MS)]
    assert names(play(sos, side, hold_ms)) == ([meant] if meant else [])


@quick
@given(held=st.integers(50, 9500))
def test_one_press_of_the_side_button_means_one_thing_by_its_length(held: int) -> None:
    acts = names(play([], [(0, held)]))
    if held < 750:
        assert acts == [gestures.CHECK_IN]
    elif 1050 <= held < 4950:
        assert acts == [gestures.HOLD]
    elif held >= 8050:
        assert acts == [gestures.PAIR]
    elif 5050 <= held <= 7950:
        assert acts == [gestures.OFF_DUTY]
    elif 850 <= held <= 950:
        assert acts == []


@quick
@given(start=st.integers(-1000, 1000), squeeze=st.integers(60, 400), held=st.integers(100, 700))
def test_any_squeeze_while_the_side_button_is_down_is_a_duress(start: int, squeeze: int, held: int) -> None:
    side = [(1000, 1000 + held)]
    sos = [(1000 + start, 1000 + start + squeeze)]
    overlap = min(side[0][1], sos[0][1]) - max(side[0][0], sos[0][0])
    acts = names(play(sos, side))
    if overlap >= 50:
        assert acts == [gestures.DURESS_CHECK_IN]
    elif overlap <= -50:
        assert acts == [gestures.CHECK_IN]


def test_a_grip_of_the_whole_badge_is_an_sos_and_nothing_else() -> None:
    for shift in (-300, 0, 300):
        for held in (1600, 3000, 9000):
            assert names(play([(500, 500 + held)], [(500 + shift, 500 + held + shift)])) == [gestures.SOS]


@quick
@given(sos=pulses, side=pulses, origin=origins, hold=thresholds)
def test_an_sos_is_exactly_what_the_hidden_button_says_whatever_else_happens(
    sos: Pulses, side: Pulses, origin: int, hold: int
) -> None:
    together = [act for act in play(intervals(0, sos), intervals(50, side), hold, origin) if act[1] == gestures.SOS]
    alone = play(intervals(0, sos), [], hold, origin)
    assert together == alone


@quick
@given(late=st.integers(10, 400))
def test_a_sample_that_comes_late_neither_makes_nor_loses_an_alarm(late: int) -> None:
    recogniser = gestures.Recogniser(1000)
    acts = []
    edges = {100: (True, False), 1300: (False, False)}
    now = 0
    while now < 4000:
        for at in [at for at in sorted(edges) if at <= now]:
            acts.append(recogniser.feed(at, *edges.pop(at)))
        acts.append(recogniser.feed(now, 100 <= now < 1300, False))
        now += late
    assert [act for act in acts if act] == [gestures.SOS]


def fed(*steps: tuple[int, bool, bool]) -> list[str]:
    """Acts, where only these (time, hidden button down, side button down) were ever fed: edges, and one look later."""
    recogniser = gestures.Recogniser(1500)
    acts = [recogniser.feed(at, sos, side) for at, sos, side in steps]
    return [act for act in acts if act]


def test_a_press_between_two_samples_is_a_press() -> None:
    """Something held the badge while a button was pressed and let go: there are its two edges and nothing between."""
    assert fed((0, False, False), (50, True, False), (2050, False, False), (2600, False, False)) == ["sos"]
    taps = [(at + edge, edge == 0, False) for at in range(50, 1550, 300) for edge in (0, 120)]
    assert fed((0, False, False), *taps, (2600, False, False)) == ["sos"]
    assert fed((0, False, False), (50, False, True), (200, False, False), (800, False, False), (900, False, False)) == [
        "side_1"
    ]
    squeezed = ((50, False, True), (150, True, True), (350, False, True), (450, False, False))
    assert fed((0, False, False), *squeezed, (1000, False, False), (1100, False, False)) == ["duress_1"]


def test_a_bounce_between_two_samples_is_none() -> None:
    bounces = [(at, i % 2 == 0, i % 2 == 0) for i, at in enumerate(range(50, 50 + 25 * 40, 25))]
    assert fed((0, False, False), *bounces, (3000, False, False), (3500, False, False)) == []
