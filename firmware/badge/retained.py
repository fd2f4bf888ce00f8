"""What survives a reset: an open alarm and a running visit, in the RTC's memory.

RTC().memory() outlives watchdog, panic and software resets, and is garbage after power-on: magic and check tell.
The record is one preallocated buffer. Latching an alarm writes bytes into it and hands it over, and allocates nothing:
it must work when the heap is full, broken up, or locked. So the check is a Fletcher sum of small integers and not
crc32, whose result is too large for a 32-bit small integer.

    0 magic 4 | 4 flags u8 | 5 kind u8 | 6 ident 8 | 14 incident 8 | 22 felt u8 | 23 level u8 | 24 age s u24 | 27 reason
    28 visit state u8 | 29 audio u8 | 30 visit number u32 | 34 ref 8 | 42 interval s u24 | 45 grace s u16
    47 remaining s u24 | 50 beacon rotation u16 | 52 cause u8 | 53 SOS not raised u8 | 54 seconds to answer a fall u8
    55 ident of the newest press 8 | 63 task u8 | 64 faults u8 | 65 handler faults u8 | 66 radio restarts u8
    67 minutes up u16 | 69 free heap / 64 u16 | 71 zeros | 78 check u16
"""

from machine import RTC
from micropython import const

_LENGTH = const(80)
_MAGIC = b"TOC3"
_CHECK_AT = const(78)

# flags
OPEN = 1  # an alarm is open
SILENT = 2  # its wearer must not feel it
RECEIPTED = 4  # the station has the event that opened it
CAPTURING = 8  # the microphone was on
PRESSED_AGAIN = 16  # the station does not have the newest press yet

# causes of a reset that the firmware itself makes
CAUSE_NONE = 0
CAUSE_TASK = 1  # a task died and could not be restarted
CAUSE_PROVISIONED = 2
CAUSE_COMMAND = 3
CAUSE_WORN_OUT = 4  # the beacons of the boot were used up
CAUSE_UPDATED = 5  # new firmware is in its slot, and runs on trial
CAUSE_WENT_BACK = 6  # it did not reach a hub: the firmware of before runs again

_FLAGS = const(4)
_KIND = const(5)
_IDENT = const(6)
_INCIDENT = const(14)
_FELT = const(22)
_LEVEL = const(23)
_AGE = const(24)
_REASON = const(27)
_VISIT = const(28)
_ROTATION = const(50)
_CAUSE = const(52)
_WANTED = const(53)
_FALL = const(54)
_PRESS = const(55)
_TASK = const(63)
_COUNTERS = const(64)
_MINUTES = const(67)
_HEAP = const(69)


class Retained:
    """The one record. `valid` says whether a reset left it to us."""

    def __init__(self) -> None:
        self._rtc = RTC()
        self._buffer = bytearray(_LENGTH)
        self.valid = False
        try:
            before = self._rtc.memory()
        except OSError:
            before = b""
        if len(before) >= _LENGTH and before[:4] == _MAGIC:
            for i in range(_LENGTH):
                self._buffer[i] = before[i]
            check = self._fletcher()
            self.valid = self._buffer[_CHECK_AT] == check >> 8 and self._buffer[_CHECK_AT + 1] == check & 0xFF
        if not self.valid:
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        for i in range(_LENGTH):
            self._buffer[i] = 0
        for i in range(4):
            self._buffer[i] = _MAGIC[i]

    def _fletcher(self) -> int:
        a = 1  # so that a buffer of zeros does not pass
        b = 0
        buffer = self._buffer
        for i in range(_CHECK_AT):
            a = (a + buffer[i]) % 255
            b = (b + a) % 255
        return b << 8 | a

    def write(self) -> None:
        """Hand the record to the RTC. Allocates nothing."""
        check = self._fletcher()
        self._buffer[_CHECK_AT] = check >> 8
        self._buffer[_CHECK_AT + 1] = check & 0xFF
        self._rtc.memory(self._buffer)

    # --- the alarm

    @property
    def open(self) -> bool:
        """Whether an alarm is open."""
        return bool(self._buffer[_FLAGS] & OPEN)

    @property
    def flags(self) -> int:
        """OPEN, SILENT, RECEIPTED, CAPTURING."""
        return self._buffer[_FLAGS]

    @property
    def kind(self) -> int:
        """What opened the alarm."""
        return self._buffer[_KIND]

    @property
    def ident(self) -> bytes:
        """The event that opened it."""
        return bytes(self._buffer[_IDENT : _IDENT + 8])

    @property
    def incident(self) -> bytes:
        """The incident; the same as `ident` unless the event joined an older one."""
        return bytes(self._buffer[_INCIDENT : _INCIDENT + 8])

    @property
    def felt(self) -> int:
        """The highest custody level that the wearer was told of."""
        return self._buffer[_FELT]

    @property
    def reason(self) -> int:
        """Why the microphone was on."""
        return self._buffer[_REASON]

    @property
    def age_s(self) -> int:
        """Seconds since the alarm was raised, when it was last written."""
        return self._number(_AGE, 3)

    @property
    def rotation(self) -> int:
        """The number of the latest beacon."""
        return self._number(_ROTATION, 2)

    def keep_rotation(self, rotation: int) -> None:
        """Note the number of the latest beacon; write() hands it over."""
        self._store(_ROTATION, 2, rotation)

    @property
    def cause(self) -> int:
        """Why the firmware reset itself, CAUSE_NONE if it did not."""
        return self._buffer[_CAUSE]

    def set_cause(self, cause: int) -> None:
        """Leave word of why, before a reset."""
        self._buffer[_CAUSE] = cause
        self.write()

    # --- the last words of a run

    def note(self, faults: int, handler_faults: int, radio_restarts: int, minutes: int, heap: int) -> None:
        """How the run stands, for the one after a reset; write() hands it over. Allocates nothing."""
        buffer = self._buffer
        buffer[_COUNTERS] = min(faults, 255)
        buffer[_COUNTERS + 1] = min(handler_faults, 255)
        buffer[_COUNTERS + 2] = min(radio_restarts, 255)
        self._store(_MINUTES, 2, min(minutes, 0xFFFF))
        self._store(_HEAP, 2, min(heap >> 6, 0xFFFF))

    def blame(self, task: int) -> None:
        """The task (1: the first that the supervisor got) that hangs, in case the watchdog bites; 0: none."""
        if self._buffer[_TASK] != task:
            self._buffer[_TASK] = task
            self.write()

    def last_words(self) -> "tuple[int, int, int, int, int, int]":
        """task, faults, handler faults, radio restarts, minutes, free heap of the run before. Then they are gone."""
        buffer = self._buffer
        words = (
            buffer[_TASK],
            buffer[_COUNTERS],
            buffer[_COUNTERS + 1],
            buffer[_COUNTERS + 2],
            self._number(_MINUTES, 2),
            self._number(_HEAP, 2) << 6,
        )
        for at in range(_TASK, _HEAP + 2):
            buffer[at] = 0
        return words

    # --- what was about to become an alarm

    @property
    def wanted(self) -> bool:
        """An SOS was made, in standby perhaps, and its alarm is not raised yet."""
        return bool(self._buffer[_WANTED])

    def want(self, help_wanted: bool = True) -> None:
        """The wearer wants help, and no alarm says so yet; or one does. Allocates nothing."""
        self._buffer[_WANTED] = 1 if help_wanted else 0
        self.write()

    @property
    def fall_s(self) -> int:
        """Seconds that are left to answer the warning after a fall; 0: there is none."""
        return self._buffer[_FALL]

    def set_fall(self, seconds: int) -> None:
        """The warning after a fall; hands it over."""
        self._buffer[_FALL] = min(seconds, 255)
        self.write()

    # --- latching

    def latch(self, kind: int, boot: bytes, seq: int, silent: bool) -> None:
        """An alarm is raised: note it where a reset cannot reach it. Allocates nothing."""
        buffer = self._buffer
        buffer[_FLAGS] = OPEN | SILENT if silent else OPEN
        buffer[_KIND] = kind
        for at in (_IDENT, _INCIDENT):
            for i in range(6):
                buffer[at + i] = boot[i]
            buffer[at + 6] = seq >> 8
            buffer[at + 7] = seq & 0xFF
        buffer[_FELT] = 0
        buffer[_LEVEL] = 0
        buffer[_AGE] = buffer[_AGE + 1] = buffer[_AGE + 2] = 0
        buffer[_REASON] = 0
        buffer[_WANTED] = 0
        for i in range(8):
            buffer[_PRESS + i] = 0
        self.write()

    def latch_press(self, boot: bytes, seq: int) -> None:
        """The wearer pressed again in an open alarm. Allocates nothing."""
        buffer = self._buffer
        for i in range(6):
            buffer[_PRESS + i] = boot[i]
        buffer[_PRESS + 6] = seq >> 8
        buffer[_PRESS + 7] = seq & 0xFF
        buffer[_FLAGS] |= PRESSED_AGAIN | OPEN
        buffer[_FLAGS] &= 0xFF ^ SILENT
        buffer[_WANTED] = 0
        self.write()

    @property
    def press(self) -> bytes:
        """The event of the newest press, zeros if it is the one that opened the alarm."""
        return bytes(self._buffer[_PRESS : _PRESS + 8])

    def restore_alarm(self, kind: int, ident: bytes, incident: bytes, press: bytes, flags: int, felt: int) -> None:
        """Put an alarm here that was found in the journal on flash."""
        self._buffer[_FLAGS] = flags
        self._buffer[_KIND] = kind
        for i in range(8):
            self._buffer[_IDENT + i] = ident[i]
            self._buffer[_INCIDENT + i] = incident[i]
            self._buffer[_PRESS + i] = press[i]
        self._buffer[_FELT] = felt
        self.write()

    def update(self, flags: int, felt: int, level: int, age_s: int, reason: int) -> None:
        """What changed while the alarm is open; write() hands it over. Allocates nothing."""
        self._buffer[_FLAGS] = flags
        self._buffer[_FELT] = felt
        self._buffer[_LEVEL] = level
        self._buffer[_REASON] = reason
        self._store(_AGE, 3, age_s)

    def close(self) -> None:
        """The alarm is over."""
        self._buffer[_FLAGS] = 0
        self.write()

    # --- the visit

    def set_visit(
        self, state: int, audio: bool, number: int, ref: bytes, interval_s: int, grace_s: int, remaining_s: int
    ) -> None:
        """The running visit, state 0 for none; write() hands it over."""
        buffer = self._buffer
        buffer[_VISIT] = state
        buffer[_VISIT + 1] = 1 if audio else 0
        self._store(_VISIT + 2, 4, number)
        for i in range(8):
            buffer[_VISIT + 6 + i] = ref[i]
        self._store(_VISIT + 14, 3, interval_s)
        self._store(_VISIT + 17, 2, grace_s)
        self._store(_VISIT + 19, 3, max(0, remaining_s))

    def visit(self) -> "tuple[int, bool, int, bytes, int, int, int]":
        """state, audio agreed, number, ref, interval s, grace s, remaining s (0 when it is over)."""
        buffer = self._buffer
        return (
            buffer[_VISIT],
            bool(buffer[_VISIT + 1]),
            self._number(_VISIT + 2, 4),
            bytes(buffer[_VISIT + 6 : _VISIT + 14]),
            self._number(_VISIT + 14, 3),
            self._number(_VISIT + 17, 2),
            self._number(_VISIT + 19, 3),
        )

    def _store(self, at: int, count: int, value: int) -> None:
        for i in range(count):
            self._buffer[at + count - 1 - i] = value & 0xFF
            value >>= 8

    def _number(self, at: int, count: int) -> int:
        value = 0
        for i in range(count):
            value = value << 8 | self._buffer[at + i]
        return value
