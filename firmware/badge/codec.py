"""From the microphone's samples to ADPCM packets: gain, removal of the constant part, coding.

These are the plain twins of the machine code in viper.py, and their oracle; they take over where the interpreter
cannot run it. `encode` and `xor` below are whichever this interpreter can run.

The state of a capture is four 16-bit words: predictor, step index, and the running mean of the signal (32 bits, low
word first). A microphone's constant part is removed by a high-pass of 2.5 Hz: mean += x - mean/1024.
"""

from array import array

from protocol.adpcm import INDEX_STEPS, PACKET_LENGTH, STEPS, encode_packet

from .buffers import RAW_LENGTH

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Callable

    Buffer = bytearray | memoryview


STEP_TABLE = array("H", STEPS)
INDEX_PLUS_8 = bytes([step + 8 for step in INDEX_STEPS])


def new_state() -> "array[int]":
    """The state with which a capture begins."""
    return array("H", [0, 0, 0, 0])


def _signed(word: int) -> int:
    return word - 0x10000 if word & 0x8000 else word


def level(state: "array[int]", raw: "bytes | bytearray", gain_bits: int) -> "list[int]":
    """The 16-bit samples of a block of RAW_LENGTH bytes: gain of 6 dB a bit, the constant part removed, clipped."""
    mean = _signed(state[3]) << 16 | state[2]
    samples = []
    for i in range(0, RAW_LENGTH, 4):
        sample = _signed(raw[i + 3] << 8 | raw[i + 2]) << gain_bits | (raw[i + 1] << 8 | raw[i]) >> 16 - gain_bits
        mean += sample - (mean >> 10)
        samples.append(max(-32768, min(32767, sample - (mean >> 10))))
    state[2] = mean & 0xFFFF
    state[3] = mean >> 16 & 0xFFFF
    return samples


def plain_encode(state: "array[int]", raw: "bytes | bytearray", out: "Buffer", gain_bits: int) -> None:
    """Code one block of RAW_LENGTH bytes into the first PACKET_LENGTH bytes of `out`, and move `state` on."""
    samples = level(state, raw, gain_bits)
    packet, predictor, index = encode_packet(samples, _signed(state[0]), state[1])
    out[: len(packet)] = packet
    state[0] = predictor & 0xFFFF
    state[1] = index


def plain_xor(target: "Buffer", at: int, left: "Buffer", right: "Buffer") -> None:
    """target[at + i] = left[i] ^ right[i] for the length of a packet."""
    for i in range(PACKET_LENGTH):
        target[at + i] = left[i] ^ right[i]


encode: "Callable[[array[int], bytes | bytearray, Buffer, int], None]" = plain_encode
xor: "Callable[[Buffer, int, Buffer, Buffer], None]" = plain_xor
compiled = False
try:
    from . import viper

    encode = viper.encode  # type: ignore[has-type]
    xor = viper.xor  # type: ignore[has-type]
    compiled = True
except (ImportError, SyntaxError):  # left out, or an interpreter without this machine's emitter
    pass
