"""Sound: the machine code, the sealer that allocates nothing, and what they are held to."""

import random

import micropython
from firmware.badge import audio, buffers, codec
from firmware.badge.sealer import SEALED_LENGTH, Sealer, benchmark
from protocol.adpcm import PACKET_LENGTH, decode_packet
from protocol.audio import open_audio, seal_audio

KEY, BOOT = bytes(range(16)), b"\x00\x07abcd"


def blocks(count):
    """Noise, the loudest square wave, silence, and both ends of the scale."""
    random.seed(4)
    for i in range(count):
        kind = i % 5
        if kind == 0:
            yield bytearray(random.getrandbits(8) for _ in range(buffers.RAW_LENGTH))
        elif kind == 1:
            yield bytearray((b"\xff\xff\xff\x7f" * 10 + b"\x00\x00\x00\x80" * 10) * 20)
        elif kind == 2:
            yield bytearray(buffers.RAW_LENGTH)
        else:
            yield bytearray((b"\xff\xff\xff\x7f" if kind == 3 else b"\x00\x00\x00\x80") * 400)


def test_machine_code_and_plain_python_give_the_same_bytes():
    assert codec.compiled
    for gain in (0, 1, 4, 5):
        fast, plain = codec.new_state(), codec.new_state()
        for raw in blocks(20):
            a, b = bytearray(PACKET_LENGTH), bytearray(PACKET_LENGTH)
            codec.encode(fast, raw, a, gain)
            codec.plain_encode(plain, raw, b, gain)
            assert a == b and fast == plain


def test_a_constant_part_of_the_microphone_is_not_heard():
    state = codec.new_state()
    raw = bytearray(b"\x00\x00\x00\x10" * 400)
    for _ in range(40):
        samples = codec.level(state, raw, 0)
    assert max(samples) < 40


def test_each_packet_decodes_by_itself():
    state = codec.new_state()
    packet = bytearray(PACKET_LENGTH)
    for raw in blocks(6):
        codec.encode(state, raw, packet, 0)
        assert len(decode_packet(bytes(packet))) == 400


def test_the_sealer_seals_as_the_protocol_does():
    sealer = Sealer(KEY, 77, BOOT, 3)
    out = bytearray(2 * SEALED_LENGTH)
    for index in (0, 1, 2, 255, 256, 70000, 5):
        text = bytes(random.getrandbits(8) for _ in range(PACKET_LENGTH))
        sealer.text[:] = text
        sealer.seal(index, out, SEALED_LENGTH)
        sealed = bytes(out[SEALED_LENGTH:])
        assert sealed == seal_audio(KEY, 77, BOOT, 3, index, text)
        assert open_audio(KEY, 77, BOOT, 3, index, sealed) == text


class Microphone:
    raw = buffers.raw

    def open(self, on_block):
        self.on_block = on_block
        return True

    def close(self):
        pass


def test_from_block_to_sealed_packet_nothing_is_allocated():
    microphone = Microphone()
    recorder = audio.Recorder(microphone, None)
    recorder.on_begin = recorder.on_end = lambda *a: None
    recorder.on_packets = lambda: None
    recorder.prepare(KEY, 77, BOOT, 4)
    recorder.begin(1, BOOT + b"\x00\x01")

    def three():
        microphone.on_block(0)
        microphone.on_block(0)
        microphone.on_block(0)

    three()
    micropython.heap_lock()
    try:
        three()
    finally:
        micropython.heap_unlock()


def test_a_second_of_speech_costs_a_fraction_of_a_second():
    coded, sealed, compiled = benchmark()
    assert compiled
    assert coded + sealed < 100000, (coded, sealed)
