"""Opening a serial port so that whatever is wrong with it is an OSError."""

from __future__ import annotations

from typing import Any

import serial


def open_port(name: str, baud: int, **how: Any) -> serial.Serial:
    """A port that is open; `how` as for serial.Serial. Raises OSError.

    pyserial lets termios.error through, which is none, when a device goes while its port is being opened, and raises
    ValueError for a rate that the port cannot have.
    """
    try:
        return serial.Serial(name, baud, **how)
    except OSError:  # SerialException is one
        raise
    except Exception as problem:  # termios.error by name would not do: there is no termios on Windows
        raise OSError(*problem.args[:2]) from problem
