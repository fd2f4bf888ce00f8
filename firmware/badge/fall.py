"""Man-down: a fall after which the wearer lies still. Felt as "check in, please" for 30 s, then an alarm.

Off unless the setting `fall_alarm` is on; this file is loaded only then, and the sensor sleeps without it.

A fall is three things one after the other: for a moment the body is light (below 0.6 g), within a second something
hits it (above 2.5 g), and within ten seconds after that it lies still for a whole second. Sitting down, a swinging
lanyard and running lack one of the three. The numbers are from the literature on fall detectors worn on the chest and
were not tried on people: whoever turns this on must try it (docs/technician.md).

The sensor (LIS2DH12, ST DocID025056) measures fifty times a second into its own memory of 32 samples, and is read
five times a second: no sample is lost, and nothing is interrupted.
"""

from micropython import const

from protocol.patterns import CHECK_IN_DUE

from . import trace

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable

    from .retained import Retained

CANCEL_S = const(30)
_REMIND_MS = const(5000)
_READ_MS = const(200)
_RETRY_MS = const(60000)

# one g is 250 of the sensor's steps of 4 mg; a sample is 20 ms
_LIGHT = const(22500)  # (0.6 g)^2
_HIT = const(390625)  # (2.5 g)^2
_LIGHT_SAMPLES = const(4)
_HIT_WITHIN = const(50)
_STILL_SAMPLES = const(50)
_STILL_WITHIN = const(500)
_STILL = const(30)  # 0.12 g on every axis: breathing is less, walking is more

_HZ = const(400000)
_WHO_AM_I = const(0x0F)
_ITS_NAME = const(0x33)
# register, value: 50 Hz on three axes (CTRL_REG1), whole samples only, +-8 g, high resolution (CTRL_REG4), and its own
# memory (CTRL_REG5) of the newest 32 (FIFO_CTRL)
_SET_UP = b"\x20\x47\x23\xa8\x24\x40\x2e\x80"
_CTRL_REG1 = const(0x20)
_FIFO_SRC = const(0x2F)
_OUT = const(0xA8)  # OUT_X_L, and on from there
_SAMPLE = const(6)
_SAMPLES = const(32)


class Fall:
    """Recognises a fall in samples of three axes, in steps of 4 mg, 50 a second. Allocates nothing."""

    def __init__(self) -> None:
        self._light = 0  # samples in a row that were light
        self._hit = 0  # samples left in which something may hit
        self._watch = 0  # samples left in which stillness may begin
        self._still = 0
        self._x = self._y = self._z = 0

    def feed(self, x: int, y: int, z: int) -> bool:
        """One sample; True when a fall is complete."""
        force = x * x + y * y + z * z
        if force < _LIGHT:
            self._light += 1
            if self._light >= _LIGHT_SAMPLES:
                self._hit = _HIT_WITHIN
        else:
            self._light = 0
            if self._hit:
                self._hit -= 1
                if force > _HIT:
                    self._hit = 0
                    self._watch = _STILL_WITHIN
                    self._still = 0
        if not self._watch:
            return False
        self._watch -= 1
        if abs(x - self._x) > _STILL or abs(y - self._y) > _STILL or abs(z - self._z) > _STILL:
            self._x, self._y, self._z = x, y, z
            self._still = 0
            return False
        self._still += 1
        if self._still < _STILL_SAMPLES:
            return False
        self._watch = 0
        return True


class Accelerometer:
    """The sensor on the board's bus. One that does not answer is said, and asked again after a minute."""

    def __init__(self, board: "Any") -> None:
        self._board = board
        self._bus: "Any" = None
        self._data = bytearray(_SAMPLE * _SAMPLES)
        self._view = memoryview(self._data)
        self._byte = bytearray(1)
        self._again_ms = 0

    def _open(self) -> None:
        from machine import I2C, Pin

        board = self._board
        bus = I2C(board.I2C_ID, scl=Pin(board.I2C_SCL), sda=Pin(board.I2C_SDA), freq=_HZ)
        bus.readfrom_mem_into(board.ACCEL, _WHO_AM_I, self._byte)
        if self._byte[0] != _ITS_NAME:
            raise OSError(19)  # ENODEV
        for at in range(0, len(_SET_UP), 2):
            self._write(bus, _SET_UP[at], _SET_UP[at + 1])
        self._bus = bus

    def _write(self, bus: "Any", register: int, value: int) -> None:
        self._byte[0] = value
        bus.writeto_mem(self._board.ACCEL, register, self._byte)

    def close(self) -> None:
        """Let it sleep."""
        bus, self._bus = self._bus, None
        if bus is not None:
            try:
                self._write(bus, _CTRL_REG1, 0)
            except OSError as error:
                trace.fault("accelerometer", error)

    def read(self, now_ms: int, fall: Fall) -> bool:
        """Hand over what it has measured; True when that was a fall."""
        if now_ms < self._again_ms:
            return False
        try:
            if self._bus is None:
                self._open()
            bus = self._bus
            bus.readfrom_mem_into(self._board.ACCEL, _FIFO_SRC, self._byte)
            count = self._byte[0] & 0x1F or (_SAMPLES if self._byte[0] & 0x40 else 0)
            if not count:
                return False
            bus.readfrom_mem_into(self._board.ACCEL, _OUT, self._view[: count * _SAMPLE])
        except (OSError, ValueError) as error:
            trace.fault("accelerometer", error)
            self._bus = None
            self._again_ms = now_ms + _RETRY_MS
            return False
        found = False
        for at in range(0, count * _SAMPLE, _SAMPLE):
            if fall.feed(self._axis(at), self._axis(at + 2), self._axis(at + 4)):
                found = True
        return found

    def _axis(self, at: int) -> int:
        # 12 bits, left-justified, two's complement
        value = self._data[at + 1] << 4 | self._data[at] >> 4
        return value - 4096 if value & 0x800 else value


class ManDown:
    """The warning after a fall. `tick` says when it has run out unanswered."""

    def __init__(self, board: "Any", retained: "Retained", play: "Callable[[str], None]", now_ms: int) -> None:
        self._sensor = Accelerometer(board)
        self._fall = Fall()
        self._retained = retained
        self._play = play
        self._read_ms = now_ms
        self._until_ms = 0
        self._remind_ms = 0
        self._left_s = 0
        if retained.valid and retained.fall_s:
            self._warn(now_ms, retained.fall_s)

    @property
    def warning(self) -> bool:
        """Whether the wearer is being asked."""
        return bool(self._until_ms)

    def _warn(self, now_ms: int, seconds: int) -> None:
        self._until_ms = now_ms + 1000 * seconds
        self._remind_ms = now_ms
        trace.say("fell", "seconds=%d" % seconds)

    def stop(self) -> None:
        """The wearer answered, or it is an alarm."""
        self._until_ms = 0
        self._left_s = 0
        self._retained.set_fall(0)

    def close(self) -> None:
        """Turned off."""
        self.stop()
        self._sensor.close()

    def tick(self, now_ms: int) -> bool:
        """What is due; True when nobody answered."""
        if now_ms >= self._read_ms:
            self._read_ms = now_ms + _READ_MS
            if self._sensor.read(now_ms, self._fall) and not self._until_ms:
                self._warn(now_ms, CANCEL_S)
        if not self._until_ms:
            return False
        if now_ms >= self._until_ms:
            return True  # stop() comes after the alarm is latched: a reset between the two must not lose it
        if now_ms >= self._remind_ms:
            self._remind_ms = now_ms + _REMIND_MS
            self._play(CHECK_IN_DUE)
        left = (self._until_ms - now_ms + 999) // 1000
        if left != self._left_s:
            self._left_s = left
            self._retained.set_fall(left)
        return False
