"""IMA ADPCM (Intel/DVI 1992; ITU-T G.726 is a cousin, not the same): 16 kHz, 4 bits a sample, 64 kbit/s.

Every packet carries the coder's state, so that a lost packet is a gap of 25 ms and nothing after it suffers:

    predictor i16 | step index u8 | two samples a byte, the first in the low nibble

This is the plain form of the codec. The badge encodes with a compiled twin (firmware.badge.audio) that must give
the same bytes.
"""

RATE = 16000
SAMPLES = 400  # a packet: 25 ms, so that 40 notifications a second of at most 244 bytes carry it live
PACKET_LENGTH = 3 + SAMPLES // 2

# fmt: off
INDEX_STEPS = (-1, -1, -1, -1, 2, 4, 6, 8, -1, -1, -1, -1, 2, 4, 6, 8)
STEPS = (
    7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107,
    118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963,
    1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894,
    6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794,
    32767,
)
# fmt: on


def encode_packet(samples: "list[int]", predictor: int, index: int) -> "tuple[bytes, int, int]":
    """Code an even number of 16-bit samples; gives the packet and the coder's state after it."""
    out = bytearray(3 + len(samples) // 2)
    out[0] = predictor >> 8 & 0xFF
    out[1] = predictor & 0xFF
    out[2] = index
    for i in range(len(samples)):
        step = STEPS[index]
        difference = samples[i] - predictor
        code = 0
        if difference < 0:
            code = 8
            difference = -difference
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
        predictor = predictor - change if code & 8 else predictor + change
        predictor = -32768 if predictor < -32768 else 32767 if predictor > 32767 else predictor
        index += INDEX_STEPS[code]
        index = 0 if index < 0 else 88 if index > 88 else index
        out[3 + (i >> 1)] |= code << 4 if i & 1 else code
    return bytes(out), predictor, index


def decode_packet(packet: bytes) -> "list[int]":
    """The 16-bit samples of a packet. Any bytes give some samples; raises ValueError below 3 bytes."""
    if len(packet) < 3:
        raise ValueError("ADPCM packet of %d bytes" % len(packet))
    predictor = (packet[0] << 8 | packet[1]) - (packet[0] >> 7 << 16)
    index = min(packet[2], 88)
    out = []
    for i in range(3, len(packet)):
        byte = packet[i]
        for code in (byte & 15, byte >> 4):
            step = STEPS[index]
            change = step >> 3
            if code & 4:
                change += step
            if code & 2:
                change += step >> 1
            if code & 1:
                change += step >> 2
            predictor = predictor - change if code & 8 else predictor + change
            predictor = -32768 if predictor < -32768 else 32767 if predictor > 32767 else predictor
            index += INDEX_STEPS[code]
            index = 0 if index < 0 else 88 if index > 88 else index
            out.append(predictor)
    return out
