"""Nothing forged opens, nothing true is refused, whatever its length."""

import contextlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given
from hypothesis import strategies as st

from protocol import answer, audio, beacon, crypto, downlink, events, ident, keys, kinds

KEYS = keys.BadgeKeys(bytes(range(32)))
BOOT = ident.boot_bytes(1, b"rand")
GROUP = beacon.Group(bytes(range(16)))

key16 = st.binary(min_size=16, max_size=16)
nonce13 = st.binary(min_size=13, max_size=13)


@given(key16, nonce13, st.binary(max_size=64), st.binary(max_size=600), st.sampled_from([4, 8, 16]))
def test_ccm_is_what_an_independent_library_gives(key: bytes, nonce: bytes, aad: bytes, plain: bytes, tag: int) -> None:
    sealed = crypto.ccm_seal(key, nonce, aad, plain, tag)
    assert sealed == AESCCM(key, tag).encrypt(nonce, plain, aad)
    assert crypto.ccm_open(key, nonce, aad, sealed, tag) == plain


@given(st.binary(min_size=1, max_size=80), st.data())
def test_one_flipped_bit_is_forged(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(crypto.ccm_seal(KEYS.events, bytes(13), b"aad", plain))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(crypto.Forged):
        crypto.ccm_open(KEYS.events, bytes(13), b"aad", bytes(sealed))


event_values = st.builds(
    events.Event,
    st.integers(0, 18),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 2**40),
    st.integers(0, 100),
    st.integers(0, 255),
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=events.BODY_MAX),
)


@given(event_values, st.integers(0, 2**32 - 1), st.integers(1, ident.BADGE_MAX))
def test_an_event_arrives_as_it_was_sent_and_every_one_has_the_same_size(
    event: events.Event, number: int, badge: int
) -> None:
    blob = events.seal_event(KEYS.events, badge, BOOT, number, event)
    assert len(blob) == events.BLOB_LENGTH
    got, boot, got_number = events.open_event(KEYS.events, badge, blob)
    assert (boot, got_number) == (BOOT, number)
    assert (got.kind, got.ident, got.battery, got.flags, got.incident, got.body) == (
        event.kind,
        event.ident,
        event.battery,
        event.flags,
        event.incident,
        event.body,
    )
    assert got.age_ms == min(event.age_ms, events.AGE_MAX)


def test_an_event_of_another_badge_does_not_open() -> None:
    blob = events.seal_event(KEYS.events, 7, BOOT, 1, events.Event(kinds.SOS, ident.pack(BOOT, 1)))
    with pytest.raises(crypto.Forged):
        events.open_event(KEYS.events, 8, blob)


@given(st.binary(max_size=300))
def test_any_bytes_are_dropped_by_every_decoder_of_sealed_text(data: bytes) -> None:
    with pytest.raises(crypto.Forged):
        events.open_event(KEYS.events, 7, data)
    with pytest.raises(crypto.Forged):
        downlink.open_down(KEYS.down, 7, data)
    with pytest.raises(crypto.Forged):
        audio.open_audio(KEYS.audio, 7, BOOT, 1, 2, data)
    found_in = beacon.parse_advertisement(data)
    assert found_in is None or found_in in data
    assert answer.open_answer(GROUP, KEYS.answer, 7, BOOT, data) is None
    found = beacon.route([GROUP], data)
    assert found is None or beacon.verify(KEYS.beacon, found) is None


@given(
    st.integers(1, ident.BADGE_MAX),
    st.integers(0, 65535),
    st.sampled_from([kinds.STATUS, kinds.SOS, kinds.LANYARD, kinds.CHECK_IN]),
    st.integers(0, 100),
    st.integers(0, 65535),
)
def test_a_beacon_is_read_by_the_group_and_proved_to_the_station(
    badge: int, seq: int, kind: int, battery: int, rotation: int
) -> None:
    data = beacon.seal_beacon(GROUP, KEYS.beacon, badge, BOOT, seq, kind, kind, battery, rotation)
    assert len(beacon.advertisement(data)) == 31
    heard = beacon.route([beacon.Group(bytes(16)), GROUP], data)
    assert heard is not None
    assert (heard.badge, heard.boot, heard.seq, heard.kind, heard.rotation) == (badge, BOOT, seq, kind, rotation)
    assert beacon.verify(KEYS.beacon, heard) == kind
    assert beacon.verify(keys.BadgeKeys(bytes(32)).beacon, heard) is None


@given(st.integers(0, 191), st.integers(0, 65535))
def test_a_flipped_bit_of_a_beacon_is_noticed(bit: int, rotation: int) -> None:
    data = bytearray(beacon.seal_beacon(GROUP, KEYS.beacon, 9, BOOT, 1, kinds.SOS, kinds.SOS, 50, rotation))
    data[bit // 8] ^= 1 << bit % 8
    heard = beacon.route([GROUP], bytes(data))
    assert heard is None or beacon.verify(KEYS.beacon, heard) is None


def test_a_duress_beacon_shows_a_hub_the_check_in_it_imitates() -> None:
    data = beacon.seal_beacon(GROUP, KEYS.beacon, 9, BOOT, 1, kinds.DURESS, kinds.CHECK_IN, 50, 1)
    heard = beacon.route([GROUP], data)
    assert heard is not None
    assert heard.kind == kinds.CHECK_IN
    assert beacon.verify(KEYS.beacon, heard) == kinds.DURESS


@given(st.integers(1, ident.BADGE_MAX), st.binary(min_size=8, max_size=8), st.integers(0, 5), st.integers(0, 65535))
def test_an_answer_is_read_by_its_badge_in_its_boot_and_by_nobody_else(
    badge: int, event: bytes, level: int, rotation: int
) -> None:
    data = answer.seal_answer(GROUP, KEYS.answer, badge, BOOT, event, level, rotation)
    assert answer.open_answer(GROUP, KEYS.answer, badge, BOOT, data) == (event, level, rotation)
    assert answer.open_answer(GROUP, KEYS.answer, badge, ident.boot_bytes(2, b"rand"), data) is None
    assert answer.open_answer(GROUP, KEYS.answer, badge % ident.BADGE_MAX + 1, BOOT, data) is None
    assert answer.open_answer(GROUP, keys.BadgeKeys(bytes(32)).answer, badge, BOOT, data) is None
    assert beacon.route([GROUP], data) is None


@given(st.integers(0, 191), st.integers(0, 65535))
def test_a_flipped_bit_of_an_answer_is_noticed(bit: int, rotation: int) -> None:
    data = bytearray(answer.seal_answer(GROUP, KEYS.answer, 9, BOOT, bytes(8), kinds.RECEIVED, rotation))
    data[bit // 8] ^= 1 << bit % 8
    assert answer.open_answer(GROUP, KEYS.answer, 9, BOOT, bytes(data)) is None


def test_no_two_advertisements_of_a_boot_share_a_block() -> None:
    """A stranger sees no repetition: neither whole nor in any 8-byte part, alarm or not."""
    seen: set[bytes] = set()
    for rotation in range(3000):
        kind = kinds.SOS if rotation % 3 == 0 else kinds.STATUS
        data = beacon.seal_beacon(GROUP, KEYS.beacon, 9, BOOT, 1, kind, kind, 50, rotation)
        parts = {data[i : i + 8] for i in range(0, 24, 8)}
        assert not parts & seen
        seen |= parts


@given(st.binary(min_size=8, max_size=8), st.binary(max_size=400), st.integers(1, 2**24 - 1))
def test_a_downlink_comes_back_whole(boot_seq: bytes, body: bytes, badge: int) -> None:
    down = downlink.Down(downlink.SETTINGS, 5, boot_seq[:6], downlink.BEACON | 9, body)
    got = downlink.open_down(KEYS.down, badge, downlink.seal_down(KEYS.down, badge, bytes(13), down))
    assert (got.type, got.number, got.boot, got.echo, got.body) == (
        down.type,
        down.number,
        down.boot,
        down.echo,
        down.body,
    )


@given(st.binary(max_size=40))
def test_every_body_decoder_either_reads_or_says_malformed(body: bytes) -> None:
    for decode in (
        events.unpack_visit,
        events.unpack_audio,
        events.unpack_status,
        events.unpack_booted,
        events.unpack_duress,
        downlink.unpack_state,
        downlink.unpack_receipt,
        downlink.unpack_visit,
    ):
        with contextlib.suppress(events.Malformed):
            decode(body)
