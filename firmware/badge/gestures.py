"""What the wearer's hand means: levels of two buttons in, acts out. Pure: no pins, no clock, nothing allocated.

Two recognisers run side by side and know almost nothing of each other:

- The hidden button raises SOS, by being held for `hold_to_sos` or by five rapid presses. Nothing that the side button
  does can prevent or delay it.
- The side button counts short presses until it has been quiet for a while, or measures one long one. A squeeze of the
  hidden button while the side button is down marks the gesture as made under duress. An SOS voids whatever the side
  button was about to say: a hand that grips the whole badge means SOS and nothing else.

Both buttons are debounced: a level counts once it has been steady for 30 ms, and counts from the moment it began, so
that debouncing never lengthens or shortens a hold.

`now_ms` is any millisecond count that wraps like MicroPython's `ticks_ms`; differences are taken modulo its period.
"""

from micropython import const

# The hidden button. How long it is held to alarm is a setting (hold_to_sos).
_RAPID_PRESSES = const(5)
_RAPID_GAP_MS = const(700)  # from one press to the next; slower ones are a hand that fidgets

# The side button.
_SHORT_MAX_MS = const(800)
_HOLD_MIN_MS = const(1000)  # between _SHORT_MAX_MS and this a press is neither and does nothing
_HOLD_MAX_MS = const(5000)
_PAIR_MS = const(8000)
_MULTI_GAP_MS = const(450)  # after this long without another press, the presses are counted

_DEBOUNCE_MS = const(30)

# ticks_ms wraps at 2^30 on the badge (small integers of a 32-bit MicroPython), at 2^62 on the 64-bit one
_PERIOD = const(1 << 30)

# Acts. Strings that exist once: handing one out allocates nothing.
SOS = "sos"
CHECK_IN = "side_1"
EXTEND = "side_2"
AMBER = "side_3"
SELF_TEST = "side_4"
HOLD = "side_hold"
PAIR = "side_pair"
OFF_DUTY = "side_off"
DURESS_CHECK_IN = "duress_1"
DURESS_HOLD = "duress_hold"

# How many short presses of the side button mean what: the ordinary act and the one under duress.
_SHORT_ACTS = (
    (None, None),
    (CHECK_IN, DURESS_CHECK_IN),
    (EXTEND, EXTEND),
    (AMBER, AMBER),
    (SELF_TEST, SELF_TEST),
)

# One long press of the side button, by its length in ms: (from, before, ordinary act, act under duress).
_LONG_ACTS = (
    (_SHORT_MAX_MS, _HOLD_MIN_MS, None, None),
    (_HOLD_MIN_MS, _HOLD_MAX_MS, HOLD, DURESS_HOLD),
    (_HOLD_MAX_MS, _PAIR_MS, OFF_DUTY, None),  # who is made to switch it off squeezes, and it stays on
)


def _since(now_ms: int, then_ms: int) -> int:
    return (now_ms - then_ms) & (_PERIOD - 1)


class _Button:
    """One debounced button: its level, and since when."""

    def __init__(self) -> None:
        self.down = False
        self.since = 0  # when the debounced level began
        self.edge = 0  # 1 in the step in which it went down, -1 when it came up
        self.held = 0  # how long it was down, valid with edge -1
        self._raw = False
        self._raw_since = 0

    def feed(self, now_ms: int, raw: bool) -> None:
        self.edge = 0
        # judged before the level changes again: whatever held the badge, a press between two samples was a press
        if self._raw != self.down and _since(now_ms, self._raw_since) >= _DEBOUNCE_MS:
            if self.down:
                self.held = _since(self._raw_since, self.since)
            self.down = self._raw
            self.since = self._raw_since
            self.edge = 1 if self.down else -1
        if raw != self._raw:
            self._raw = raw
            self._raw_since = now_ms

    def settled_down(self) -> bool:
        """Down, and not about to come up: the raw level agrees."""
        return self.down and self._raw

    def settled_up(self) -> bool:
        """Up, and not about to go down."""
        return not self.down and not self._raw


class Recogniser:
    """Feed it both levels every 10 ms or so (and at every edge); it says what the wearer just did, or None."""

    def __init__(self, hold_to_sos_ms: int = 1500) -> None:
        self.hold_to_sos_ms = hold_to_sos_ms
        self._sos = _Button()
        self._side = _Button()
        self._presses = 0  # rapid presses of the hidden button so far
        self._last_press = 0
        self._fired = False  # the present hold of the hidden button has already alarmed
        self._shorts = 0  # short presses of the side button so far
        self._squeezed = False
        self._void = False  # the side button's present gesture means nothing
        self._waiting: "str | None" = None  # an act under duress, until the hidden button is let go
        self._paired = False

    def began_pressed(self, at_ms: int) -> None:
        """The hidden button is down, and was since `at_ms`: it woke the badge."""
        button = self._sos
        button._raw = button.down = True
        button._raw_since = button.since = self._last_press = at_ms

    def feed(self, now_ms: int, sos_level: bool, side_level: bool) -> "str | None":
        """The act that is complete at `now_ms`, with the levels as they are (True: pressed)."""
        self._sos.feed(now_ms, sos_level)
        self._side.feed(now_ms, side_level)
        alarm = self._feed_sos(now_ms)
        act = self._feed_side(now_ms)
        if alarm:
            self._shorts = 0
            self._waiting = None
            self._void = self._side.down or side_level
            return SOS
        # while the hidden button is still down it may yet become an SOS, and then nothing else was meant
        if act is not None and self._squeezed and (self._sos.down or sos_level):
            self._waiting = act
            return None
        if self._waiting is not None and not self._sos.down and not sos_level:
            act = self._waiting
            self._waiting = None
        return act

    def busy(self) -> bool:
        """Whether a button is down or a gesture is under way."""
        return self._sos.down or self._side.down or self._shorts > 0

    def _feed_sos(self, now_ms: int) -> bool:
        button = self._sos
        if button.edge == 1:
            self._fired = False
            rapid = self._presses > 0 and _since(button.since, self._last_press) <= _RAPID_GAP_MS
            self._presses = self._presses + 1 if rapid else 1
            self._last_press = button.since
            if self._presses == _RAPID_PRESSES:
                self._presses = 0
                self._fired = True
                return True
        # a release that is still bouncing is not a hold: wait until the level says so
        if button.settled_down() and not self._fired and _since(now_ms, button.since) >= self.hold_to_sos_ms:
            self._fired = True
            self._presses = 0
            return True
        if button.edge == -1 and not self._fired and button.held >= self.hold_to_sos_ms:
            # the threshold was passed between two samples that came late
            self._fired = True
            self._presses = 0
            return True
        return False

    def _feed_side(self, now_ms: int) -> "str | None":
        button = self._side
        if button.edge == 1:
            if self._shorts == 0:
                self._squeezed = False
            self._paired = False
        if button.down and self._sos.down:
            self._squeezed = True
        if self._void:
            if button.edge == -1:
                self._void = False
                self._shorts = 0
            return None
        if button.settled_down():
            if not self._paired and self._shorts == 0 and _since(now_ms, button.since) >= _PAIR_MS:
                self._paired = True
                return PAIR
            return None
        if button.edge == -1:
            if button.held < _SHORT_MAX_MS:
                self._shorts += 1
                return None
            act = self._long(button.held) if self._shorts == 0 else None
            self._shorts = 0
            return act
        if self._shorts and button.settled_up() and _since(now_ms, button.since) >= _MULTI_GAP_MS:
            count = self._shorts
            self._shorts = 0
            if count < len(_SHORT_ACTS):
                return _SHORT_ACTS[count][1 if self._squeezed else 0]
        return None

    def _long(self, held_ms: int) -> "str | None":
        for least, before, act, duress in _LONG_ACTS:
            if least <= held_ms < before:
                return duress if self._squeezed else act
        return None
