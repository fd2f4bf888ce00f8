"""The technician's side of an update, against a badge of paper on a cable that loses, doubles, damages and breaks."""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Callable

import pytest

from firmware.tools import update
from firmware.tools.update import UpdateError, Updater
from protocol.image import HEAD, Head

DATA = bytes(range(256)) * 20
HEADING = Head("emulator", "0.2.0", 2, len(DATA) - HEAD, 30, bytes(32))


class Paper:
    """A badge that takes an update as firmware/badge/update.py says; `now` moves when nobody speaks."""

    def __init__(self, bad: Callable[[bytes], list[bytes]] = lambda line: [line]) -> None:
        self.bad = bad
        self.now = 0.0
        self.got = bytearray()
        self.size = 0
        self.out = b""
        self.broken = 0  # the next calls fail
        self.opened = 0
        self.closed = 0
        self.mute = False
        self.needed: list[str] = []  # why it takes nothing, a try each
        self.after = [
            "@update state=checked version=0.2.0",
            "@update state=restart version=0.2.0 trial=30",
            "@booted x=1",
        ]
        self.end = ["@update state=trial version=0.2.0 seconds=30 start=1", "@update state=stays version=0.2.0"]

    # --- the port

    def open(self) -> Paper:
        self.opened += 1
        self._fail()
        return self

    def close(self) -> None:
        self.closed += 1

    def _fail(self) -> None:
        if self.broken:
            self.broken -= 1
            raise OSError("the port is gone")

    @property
    def in_waiting(self) -> int:
        return len(self.out)

    def read(self, size: int) -> bytes:
        self._fail()
        out, self.out = self.out[:size], self.out[size:]
        if not out:
            self.now += 0.1
        return out

    def reset_input_buffer(self) -> None:
        self.out = b""

    def write(self, data: bytes) -> None:
        self._fail()
        for line in data.split(b"\n"):
            for heard in self.bad(line) if line else []:
                if not self.mute:
                    self.obey(heard.decode("latin-1").split(" "))

    # --- the badge

    def say(self, *lines: str) -> None:
        for line in lines:
            for heard in self.bad(line.encode()):
                self.out += heard + b"\r\n"

    def obey(self, words: list[str]) -> None:
        if self.needed:
            self.say("@update at=0 why=" + self.needed.pop(0))
        elif words[:2] == ["update", "begin"] and len(words) == 4:
            self.size = int(words[2]) if words[2].isdigit() else 0
            self.ask()
        elif words[:2] == ["update", "at"] and len(words) == 5:
            self.piece(words)
        else:
            self.say("@update at=0 why=begin_first")

    def piece(self, words: list[str]) -> None:
        try:
            piece = base64.b64decode(words[4], validate=True)
            if zlib.crc32(piece, int(words[2])) != int(words[3], 16):
                raise ValueError
        except ValueError:
            self.say(f"@update at={len(self.got)} why=damaged")
            return
        if int(words[2]) == len(self.got) < len(DATA):
            self.got += piece
        self.ask()

    def ask(self) -> None:
        if len(self.got) < len(DATA):
            self.say(f"@update at={len(self.got)}")
        else:
            self.out += "".join(line + "\r\n" for line in [*self.after, *self.end]).encode()

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def run(badge: Paper) -> list[str]:
    said: list[str] = []
    Updater(DATA, HEADING, badge.open, said.append, lambda: badge.now, badge.sleep).run()
    return said


def test_a_good_cable_and_a_good_update() -> None:
    badge = Paper()
    said = run(badge)
    assert badge.got == DATA
    assert said[-1] == "0.2.0 has reached a hub, and stays"
    assert badge.closed == 1


@pytest.mark.parametrize("seed", range(6))
def test_lines_that_are_lost_doubled_or_damaged_are_said_again(seed: int) -> None:
    dice = random.Random(seed)

    def bad(line: bytes) -> list[bytes]:
        what = dice.randrange(14)
        if what == 0:
            return []
        if what == 1:
            return [line, line]
        if what == 2 and line.startswith(b"update at"):
            at = dice.randrange(12, len(line))
            return [line[:at] + b"~" + line[at + 1 :]]
        return [line]

    badge = Paper(bad)
    assert run(badge)[-1] == "0.2.0 has reached a hub, and stays"
    assert badge.got == DATA


def test_twice_the_same_answer_does_not_double_everything_from_then_on() -> None:
    once = [True]

    def bad(line: bytes) -> list[bytes]:
        if once and line.startswith(b"@update at=256"):
            once.clear()
            return [line, line]
        return [line]

    badge = Paper(bad)
    said: list[str] = []
    updater = Updater(DATA, HEADING, badge.open, said.append, lambda: badge.now, badge.sleep)
    updater.run()
    assert updater.sent <= len(DATA) / 128 + 2


def test_a_cable_that_comes_out_is_waited_for_and_one_that_stays_out_is_said() -> None:
    badge = Paper()
    badge.needed = ["an_alarm_is_open"]
    once = [9]

    def out(seconds: float) -> None:
        badge.now += seconds
        badge.broken = once.pop() if once else badge.broken

    badge.sleep = out  # type: ignore[method-assign]
    said = run(badge)
    assert "the cable is gone; waiting for it" in said
    assert badge.got == DATA
    badge = Paper()
    badge.needed = ["an_alarm_is_open"]

    def away(seconds: float) -> None:
        badge.now += seconds
        badge.broken = 10**6

    badge.sleep = away  # type: ignore[method-assign]
    with pytest.raises(UpdateError, match="put the cable in"):
        run(badge)


def test_a_badge_that_is_needed_is_waited_for() -> None:
    badge = Paper()
    badge.needed = ["an_alarm_is_open"] * 400 + ["a_visit_is_running"] * 3
    said = run(badge)
    waits = [line for line in said if "needed" in line]
    assert len(waits) == 2
    assert "a visit is running" in waits[1]
    badge = Paper()
    badge.needed = ["memory_is_short"] * 200
    with pytest.raises(UpdateError, match="off and on"):
        run(badge)


def test_needed_just_before_the_restart_it_is_sent_again() -> None:
    badge = Paper()
    after, badge.after = badge.after, ["@update state=checked version=0.2.0", "@update at=0 why=a_button_is_down"]
    end, badge.end = badge.end, []
    ask = badge.ask

    def again() -> None:
        ask()
        if len(badge.got) == len(DATA):
            badge.after, badge.end = after, end

    badge.ask = again  # type: ignore[method-assign]
    assert run(badge)[-1] == "0.2.0 has reached a hub, and stays"


def test_firmware_on_trial_is_watched_and_never_sent_again() -> None:
    """The words of its restart are lost on the cable, or the command is run anew meanwhile."""
    badge = Paper()
    badge.after = badge.end = []
    ask = badge.ask

    def restarts() -> None:
        ask()
        if len(badge.got) == len(DATA):
            badge.needed = ["on_trial\r\n@update state=stays version=0.2.0"]

    badge.ask = restarts  # type: ignore[method-assign]
    said = run(badge)
    assert said[-1] == "0.2.0 has reached a hub, and stays"
    assert any("on trial; waiting" in line for line in said)
    anew = Paper()
    anew.needed = ["on_trial\r\n@update at=0 why=on_trial\r\n@update state=stays version=0.2.0"]
    assert run(anew)[-1] == "0.2.0 has reached a hub, and stays"
    assert not anew.got


def test_when_even_the_word_that_it_stays_is_lost_the_badge_says_that_it_has_it() -> None:
    badge = Paper()
    badge.after, badge.end = badge.after[:2], []
    obey = badge.obey

    def stayed(words: list[str]) -> None:
        if badge.now > update.MARGIN_S + HEADING.trial:
            badge.say("@update at=0", "@refused why=0.2.0_runs_already")
        else:
            obey(words)

    badge.obey = stayed  # type: ignore[method-assign]
    assert run(badge)[-1] == "0.2.0 runs on the badge already, and stays"


def test_what_the_badge_refuses_and_what_becomes_of_it_is_said_with_what_to_do() -> None:
    badge = Paper()
    badge.needed = ["x\r\n@refused why=the_signature_is_not_that_of_this_badge's_update_key"]
    with pytest.raises(UpdateError, match="refuses: the signature"):
        run(badge)
    badge = Paper()
    badge.needed = ["x\r\n@refused why=no_such_command:_update"]
    with pytest.raises(UpdateError, match="too old"):
        run(badge)
    badge = Paper()
    badge.mute = True
    with pytest.raises(UpdateError, match="another program"):
        run(badge)
    badge = Paper()
    badge.end = [
        "@update state=trial seconds=30",
        "@update state=failed version=0.2.0",
        "@update state=back version=0.2.0",
    ]
    with pytest.raises(UpdateError, match=r"did not reach a hub in 30 s .* went back"):
        run(badge)
    badge = Paper()
    badge.end = []
    with pytest.raises(UpdateError, match="switch it off and on"):
        run(badge)
    assert badge.now >= 30 + update.MARGIN_S
    badge = Paper()
    badge.broken = 1
    with pytest.raises(UpdateError, match="the port is gone"):
        run(badge)
