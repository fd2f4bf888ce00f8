"""What is done about an adapter that does not work: a ladder, climbed a rung at a time, and when it may be climbed.

Everything that a Bluetooth adapter has been seen to do wrong is one of these troubles. Each is answered first by trying
again, then by dropping what BlueZ still holds of a connection that nobody uses, then by switching the adapter off and
on, and last by ending this process with HAND_OVER_STATUS, so that systemd starts everything afresh. How high a trouble
may climb is in the table: nothing is switched off because the street is quiet, and the hub does not end because
somebody pulled a stick out.

While a session with a badge proves itself on this adapter, nothing above dropping is done for half a minute, and the
hub does not end at all: what works is not cut lightly for the sake of what does not. But an adapter that cannot scan is
deaf to the alarms of all other badges, and a power cycle costs a session two or three seconds.

What a stranger can bring about ends no hub: that badges do not answer is doubted for as long as one of them likes, and
counts nothing towards the time that another trouble has lasted.

Knows no adapter and no clock.
"""

from __future__ import annotations

import enum

HAND_OVER_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again


class HandOver(Exception):
    """This process cannot help itself any more; who started it should start it again. The text says why."""


class Trouble(enum.Enum):
    """What is wrong with an adapter."""

    ABSENT = "absent"  # not there, or blocked by rfkill
    NO_SERVICE = "no service"  # no D-Bus, or no bluetoothd on it
    REFUSED = "refused"  # BlueZ says no: InProgress sticks after a killed connect, NotReady after a reset
    SILENT = "silent"  # scans, and hears nothing at all
    DEAF = "deaf"  # scans, and hears nothing of badges that are surely there
    UNANSWERED = "unanswered"  # no badge answers, or none is understood, though they are heard
    STUCK = "stuck"  # scanning neither starts nor stops, or a connection does not end
    HUNG = "hung"  # bluetoothd answers nothing at all


class Step(enum.IntEnum):
    """The rungs, lowest first."""

    RETRY = 0
    DROP = 1  # what BlueZ still holds of badges that are not connected to us
    POWER_CYCLE = 2
    HAND_OVER = 3


HIGHEST: dict[Trouble, Step] = {
    Trouble.ABSENT: Step.RETRY,  # only a hand can plug it in; other adapters go on
    Trouble.NO_SERVICE: Step.HAND_OVER,  # the unit wants bluetooth.service, so starting the hub starts that
    Trouble.REFUSED: Step.HAND_OVER,
    Trouble.DEAF: Step.POWER_CYCLE,
    Trouble.SILENT: Step.POWER_CYCLE,  # there may be nothing to hear
    Trouble.UNANSWERED: Step.POWER_CYCLE,  # they may be at the edge of range
    Trouble.STUCK: Step.HAND_OVER,
    Trouble.HUNG: Step.HAND_OVER,
}
# where a trouble begins that was tried again before it was called one
FIRST: dict[Trouble, Step] = {Trouble.UNANSWERED: Step.DROP}
# how often a rung is tried before the next one is; five retries last nine seconds, in which a kernel has forgotten the
# discovery of a bluetoothd that was killed
TIMES: dict[Step, int] = {Step.RETRY: 5, Step.DROP: 1, Step.POWER_CYCLE: 2, Step.HAND_OVER: 1}
# s to wait after the first, second, ... step in a row; a restarted bluetoothd is back in one, a stick after two
PAUSE_S = (0.2, 0.5, 1.0, 2.0, 5.0)
# ms between two power cycles: often where something is surely wrong, seldom where it may be nothing
CERTAIN = (Trouble.REFUSED, Trouble.STUCK, Trouble.DEAF, Trouble.NO_SERVICE, Trouble.HUNG)
CYCLE_CERTAIN_MS = 10_000
CYCLE_DOUBTED_MS = 300_000
BUSY_MS = 30_000  # that a session is spared
HAND_OVER_MS = 30_000  # the least that a trouble has lasted: a restart takes the hub away for seconds
HUNG_MS = 10_000  # and where nothing at all is answered: with it nothing is heard, and nothing else can help


class Ladder:
    """Where one adapter stands on the ladder. `trouble`: the last one, None while all is well."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        self.steps = 0  # taken since it worked
        self._since_ms: int | None = None  # something has surely been wrong
        self._mute_ms: int | None = None  # bluetoothd has perhaps answered nothing
        self._before: Trouble | None = None  # what was the matter when it was found to hang
        self._step = Step.RETRY
        self._taken = 0  # of this rung
        self._cycled_ms: int | None = None

    def climb(self, trouble: Trouble, now_ms: int, busy: bool = False, alone: bool = True) -> Step:
        """What to do about a trouble now.

        `busy`: a session on this adapter proves itself. `alone`: no other adapter of this hub works.
        """
        if trouble is Trouble.HUNG and self.trouble is not Trouble.HUNG:
            self._before = self.trouble
        if trouble in CERTAIN and self._since_ms is None:
            self._since_ms = now_ms
        if trouble in (Trouble.STUCK, Trouble.HUNG) and self._mute_ms is None:
            self._mute_ms = now_ms
        self.trouble = trouble
        self.steps += 1
        if trouble is Trouble.HUNG:  # every other rung is something to be asked of whom does not answer
            assert self._mute_ms is not None
            return Step.HAND_OVER if alone and not busy and now_ms - self._mute_ms >= HUNG_MS else Step.RETRY
        lasted_ms = 0 if self._since_ms is None else now_ms - self._since_ms
        step = self._step
        if self._taken >= TIMES[step] and step < Step.HAND_OVER:
            step = Step(step + 1)
        step = max(step, FIRST.get(trouble, Step.RETRY))
        step = min(step, HIGHEST[trouble])
        if busy and (trouble not in CERTAIN or lasted_ms < BUSY_MS):
            step = min(step, Step.DROP)
        if step is Step.HAND_OVER and (busy or not alone or lasted_ms < HAND_OVER_MS):
            step = Step.POWER_CYCLE
        if step is Step.POWER_CYCLE:
            every_ms = CYCLE_CERTAIN_MS if trouble in CERTAIN else CYCLE_DOUBTED_MS
            if self._cycled_ms is not None and now_ms - self._cycled_ms < every_ms:
                return Step.RETRY  # and the rung stays where it is
            self._cycled_ms = now_ms
        self._taken = self._taken + 1 if step is self._step else 1
        self._step = step
        return step

    def well(self, *troubles: Trouble) -> None:
        """It works, as far as these troubles go: without any named, as far as all of them go."""
        if not troubles or Trouble.HUNG in troubles:
            self._mute_ms = None
            if self.trouble is Trouble.HUNG:  # whatever else was the matter still is: nobody could look
                self.trouble = self._before
                if self.trouble not in CERTAIN:
                    self._since_ms = None
        if self.trouble is None or not troubles or self.trouble in troubles:
            self.trouble = self._since_ms = None
            self.steps = 0
            self._step = Step.RETRY
            self._taken = 0

    @property
    def pause_s(self) -> float:
        """How long to wait after the step that was just taken. An adapter that hears is not kept from it for long."""
        if self.trouble is Trouble.UNANSWERED:
            return PAUSE_S[0]
        return PAUSE_S[min(max(self.steps - 1, 0), len(PAUSE_S) - 1)]
