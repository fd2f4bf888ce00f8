# mypy: ignore-errors
# ruff: noqa: F821
"""The two inner loops of the sound path as machine code (MicroPython's viper emitter).

codec.py holds the same two functions in plain Python; a test holds these to them bit by bit. What is odd here is for
viper's sake: integers are machine words (32 bits on the badge, 64 on a laptop), so nothing may depend on a word's
width; loads through ptr16 and ptr8 come without sign, and no constant may pass 30 bits.
"""

import micropython

from .codec import INDEX_PLUS_8, STEP_TABLE


@micropython.viper
def encode(state: ptr16, raw: ptr16, out: ptr8, gain_bits: int):
    steps = ptr16(STEP_TABLE)
    index_plus_8 = ptr8(INDEX_PLUS_8)
    predictor = int(state[0])
    if predictor & 0x8000:
        predictor -= 0x10000
    index = int(state[1])
    mean = int(state[3])
    if mean & 0x8000:
        mean -= 0x10000
    mean = (mean << 16) | int(state[2])
    out[0] = (predictor >> 8) & 0xFF
    out[1] = predictor & 0xFF
    out[2] = index
    low_shift = 16 - gain_bits
    last = 0
    for i in range(400):
        sample = int(raw[i + i + 1])
        if sample & 0x8000:
            sample -= 0x10000
        sample = (sample << gain_bits) | (int(raw[i + i]) >> low_shift)
        mean += sample - (mean >> 10)
        sample -= mean >> 10
        if sample > 32767:
            sample = 32767
        elif sample < -32768:
            sample = -32768
        step = int(steps[index])
        difference = sample - predictor
        code = 0
        if difference < 0:
            code = 8
            difference = 0 - difference
        change = step >> 3
        if difference >= step:
            code |= 4
            difference -= step
            change += step
        step >>= 1
        if difference >= step:
            code |= 2
            difference -= step
            change += step
        step >>= 1
        if difference >= step:
            code |= 1
            change += step
        if code & 8:
            predictor -= change
            if predictor < -32768:
                predictor = -32768
        else:
            predictor += change
            if predictor > 32767:
                predictor = 32767
        index += int(index_plus_8[code]) - 8
        if index < 0:
            index = 0
        elif index > 88:
            index = 88
        if i & 1:
            out[3 + (i >> 1)] = last | (code << 4)
        else:
            last = code
    state[0] = predictor & 0xFFFF
    state[1] = index
    state[2] = mean & 0xFFFF
    state[3] = (mean >> 16) & 0xFFFF


@micropython.viper
def xor(target: ptr8, at: int, left: ptr8, right: ptr8):
    for i in range(203):
        target[at + i] = int(left[i]) ^ int(right[i])
