# os: the interpreter's own, but random numbers as on the chip, whose generator draws its noise from the radio. Before
# the radio is on they are not random: here they are the same after every start, so that nobody gets away with it.

import _emulator
import uos

_state = 0x1357ACE5


def __getattr__(name):
    return getattr(uos, name)


def urandom(n):
    global _state
    if _emulator.noisy:
        return uos.urandom(n)
    out = bytearray(n)
    for i in range(n):
        _state = (_state * 1103515245 + 12345) & 0x7FFFFFFF
        out[i] = _state >> 16 & 255
    return bytes(out)
