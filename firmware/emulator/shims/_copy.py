# ruff: noqa: F821  (ptr8 and ptr16 are words of the viper compiler)
# The loops over many bytes, as machine code, so that an emulated board is as quick at them as a real one's hardware.

import micropython


@micropython.viper
def program(to, at: int, data, size: int):
    # Flash can only clear bits; erasing sets them.
    d = ptr8(to)
    s = ptr8(data)
    for i in range(size):
        d[at + i] = d[at + i] & s[i]


@micropython.viper
def erase(to, at: int, size: int):
    d = ptr8(to)
    for i in range(size):
        d[at + i] = 255


@micropython.viper
def samples(to, at: int, ring, first: int, n: int, wide: int):
    # From the DMA ring of 4096; wide: 24 bits left-aligned in 32, as the microphone sends them.
    d = ptr16(to)
    s = ptr16(ring)
    for i in range(n):
        if wide:
            d[2 * (at + i)] = 0
            d[2 * (at + i) + 1] = s[(first + i) & 4095]
        else:
            d[at + i] = s[(first + i) & 4095]
