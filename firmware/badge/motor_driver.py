"""The chip between the badge's pin and its motor, where a board has one: its registers are written once at start.

A linear motor needs a driver that finds its resonance (DRV2605L, Texas Instruments SLOS854). What to write is in the
board's file (HAPTIC_I2C); afterwards the HAPTIC pin alone switches the motor, like a plain one.
"""

from machine import I2C, Pin

from . import trace

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any

_HZ = 400000
_TRIES = 3  # a bus that a reset left in the middle of a byte answers at the second try


def prepare(board: "Any") -> bool:
    """Write the driver's registers; False, said once in the trace, when it does not answer."""
    enable = Pin(board.HAPTIC, Pin.OUT, value=1)
    error: "OSError | None" = None
    try:
        for _ in range(_TRIES):
            try:
                bus = I2C(board.I2C_ID, scl=Pin(board.I2C_SCL), sda=Pin(board.I2C_SDA), freq=_HZ)
                for address, register, value in board.HAPTIC_I2C:
                    bus.writeto_mem(address, register, bytes((value,)))
                return True
            except OSError as failed:
                error = failed
    finally:
        enable.value(0)
    if error is not None:
        trace.fault("motor driver", error)
    return False
