"""The wearer's card says what the badge does. `python tests/firmware/test_badge_card.py` prints both tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from firmware.badge.card import GESTURES
from protocol import patterns

CARD = Path(__file__).resolve().parents[2] / "docs" / "wearer.md"
SHORT_MS = 800
TIMES = {1: "once", 2: "twice"}

# what the wearer wants, and what comes after the gesture
WANTS = {
    "sos": ("**help, now**", ""),
    "sos_presses": ("help, now (the other way)", ""),
    "start_visit": ("to start a visit, and say where you are", ", let go, then speak"),
    "check_in": ('to say "I am all right"', ""),
    "extend": ("more time", ""),
    "amber": ("to leave a spoken note", ""),
    "self_test": ("to try the whole path", ""),
    "end_visit": ("to end the visit", ""),
    "cancel": ("to take an alarm back", ""),
    "duress": ("somebody **makes you** say that you are all right", ""),
    "duress_cancel": ("somebody **makes you** take the alarm back", ""),
    "off_duty": ("to go off duty", ', until it says "no path to the station"'),
    "on_duty": ("to go on duty again", ', and wait for "protected"'),
    "pair": ("to introduce the badge to a new hub", ""),
}
# pieces of the emulator's hand that are no gestures of a wearer
NOT_ON_THE_CARD = {"press", "side_press", "side_double", "side_hold"}


def seconds(ms: int) -> str:
    whole, rest = divmod(ms, 1000)
    return f"{whole}½ seconds" if rest == 500 else f"{ms / 1000:g} seconds"


def how(act: str) -> str:
    button, pulses = GESTURES[act]
    name = "hidden" if button == "sos" else "side"
    if pulses[0][0] >= SHORT_MS:
        what = f"hold it for about {seconds(pulses[0][0])}"
    elif len(pulses) == 1:
        what = "press once"
    else:
        what = f"press {TIMES.get(len(pulses), f'{len(pulses)} times')}, quickly"
    squeeze = ", and squeeze the hidden button shortly while you do" if button == "side+sos" else ""
    return f"{name} button: {what}{squeeze}{WANTS[act][1]}"


def drawn(name: str) -> str:
    pulses = patterns.pulses(name)
    marks = [
        next(mark for most, mark in ((120, "·"), (250, "–"), (400, "——"), (9999, "————")) if on <= most)
        for on, _ in pulses
    ]
    gap = "   " if pulses[0][1] > 300 and pulses[0][0] < 120 else " "
    return gap.join(marks)


def what_you_do() -> str:
    rows = [f"| {WANTS[act][0]} | {how(act)} |" for act in WANTS]
    return "\n".join(["| you want | do this |", "| --- | --- |", *rows])


def what_you_feel() -> str:
    rows = [f"| `{drawn(name)}` | {patterns.TABLE[name][1]} |" for name in patterns.TABLE]
    return "\n".join(["| it goes | it means |", "| --- | --- |", *rows])


@pytest.mark.parametrize(("name", "table"), [("what you do", what_you_do), ("what you feel", what_you_feel)])
def test_the_card_is_what_the_badge_does(name: str, table: object) -> None:
    assert callable(table)
    text = CARD.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"\n<!-- {name}: end -->"
    assert text[text.index(begin) + len(begin) : text.index(end)] == table()


def test_every_gesture_is_on_the_card() -> None:
    assert set(WANTS) | NOT_ON_THE_CARD == set(GESTURES)


def test_no_two_vibrations_are_drawn_alike() -> None:
    drawings = [drawn(name) for name in patterns.TABLE]
    assert len(set(drawings)) == len(drawings)


def test_the_card_to_print_says_the_same_on_one_side() -> None:
    """`make card` was run after the last change; that it fits was looked at, and that it stays so is counted here."""
    spec = importlib.util.spec_from_file_location("wearer_card", CARD.parent / "wearer_card.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.card()
    assert (CARD.parent / "wearer-card.html").read_text(encoding="utf-8") == page, "run: make card"
    for act, (want, _) in WANTS.items():
        assert (module.bold(want) in page) == (want not in module.LEFT_OUT), act
    for _, meaning, _ in patterns.TABLE.values():
        assert meaning in page
    assert page.count("<tr") <= len(WANTS) + len(patterns.TABLE)


if __name__ == "__main__":
    print(what_you_do(), what_you_feel(), sep="\n\n")
