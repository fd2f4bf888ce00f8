"""The codec is IMA ADPCM, keeps speech recognisable, and one lost packet stays one lost packet."""

import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import adpcm

samples16 = st.lists(st.integers(-32768, 32767), min_size=2, max_size=400).filter(lambda s: len(s) % 2 == 0)


@given(samples16, st.integers(-32768, 32767), st.integers(0, 88))
def test_decoder_follows_the_encoder_exactly(samples: list[int], predictor: int, index: int) -> None:
    packet, after, _index = adpcm.encode_packet(samples, predictor, index)
    decoded = adpcm.decode_packet(packet)
    assert len(decoded) == len(samples)
    assert decoded[-1] == after


@given(samples16)
def test_codes_are_those_of_an_independent_coder(samples: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # in the standard library up to Python 3.12; the file of vectors holds the result for later ones
        audioop = pytest.importorskip("audioop", reason="Python 3.13 has no audioop: install Python 3.11 or 3.12")
    raw = b"".join(s.to_bytes(2, "little", signed=True) for s in samples)
    theirs, _state = audioop.lin2adpcm(raw, 2, (0, 0))
    ours, _predictor, _index = adpcm.encode_packet(samples, 0, 0)
    assert bytes((b & 15) << 4 | b >> 4 for b in ours[3:]) == theirs


@given(st.binary(max_size=300))
def test_any_packet_decodes_to_samples_or_says_why_not(packet: bytes) -> None:
    if len(packet) < 3:
        with pytest.raises(ValueError, match="ADPCM packet"):
            adpcm.decode_packet(packet)
    else:
        assert all(-32768 <= s <= 32767 for s in adpcm.decode_packet(packet))


def test_a_voice_like_tone_comes_back_within_30_db() -> None:
    wave = [int(8000 * math.sin(i / 7.0) * (1 + math.sin(i / 400.0)) / 2) for i in range(adpcm.SAMPLES * 8)]
    predictor = index = 0
    packets = []
    for at in range(0, len(wave), adpcm.SAMPLES):
        packet, predictor, index = adpcm.encode_packet(wave[at : at + adpcm.SAMPLES], predictor, index)
        packets.append(packet)
    decoded = [s for p in packets for s in adpcm.decode_packet(p)]
    noise = sum((a - b) ** 2 for a, b in zip(wave, decoded, strict=True))
    assert 10 * math.log10(sum(a * a for a in wave) / noise) > 30
    # each packet stands alone: the third is the same whether or not the second arrived
    assert adpcm.decode_packet(packets[2]) == decoded[2 * adpcm.SAMPLES : 3 * adpcm.SAMPLES]
