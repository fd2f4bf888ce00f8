"""What survives a reset: an open alarm and a running visit, in the RTC's memory.

RTC().memory() outlives watchdog, panic and software resets, and is garbage after power-on: magic and check tell.
The record is one preallocated buffer. Latching an alarm writes bytes into it and hands it over, and allocates nothing:
it must work when the heap is full, broken up, or locked. So the check is a Fletcher sum of small integers and not
crc32, whose result is too large for a 32-bit small integer.

    0 magic 4 | 4 flags u8 | 5 kind u8 | 6 ident 8 | 14 incident 8 | 22 felt u8 | 23 level u8 | 24 age s u24 | 27 reason
    28 visit state u8 | 29 audio u8 | 30 visit number u32 | 34 ref 8 | 42 interval s u24 | 45 grace s u16
    47 remaining s u24 | 50 beacon rotation u16 | 52 cause u8 | 53 zeros | 60 check u16
"""

from machine import RTC
from micropython import const

_LENGTH = const(62)
_MAGIC = b"TOC2"
_CHECK_AT = const(60)

# flags
OPEN = 1  # an alarm is open
SILENT = 2  # its wearer must not feel it
RECEIPTED = 4  # the station has the event that opened it
CAPTURING = 8  # the microphone was on

# causes of a reset that the firmware itself makes
CAUSE_NONE = 0
CAUSE_TASK = 1  # a task died and could not be restarted
CAUSE_PROVISIONED = 2
CAUSE_COMMAND = 3

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
        self.write()

    def restore_alarm(self, kind: int, ident: bytes, flags: int, felt: int) -> None:
        """Put an alarm here that was found in the journal on flash."""
        self._buffer[_FLAGS] = flags
        self._buffer[_KIND] = kind
        for i in range(8):
            self._buffer[_IDENT + i] = ident[i]
            self._buffer[_INCIDENT + i] = ident[i]
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
