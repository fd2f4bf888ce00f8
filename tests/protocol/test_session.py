"""A session survives whatever the air does to values, and a stranger gets nothing from one."""

import contextlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import chunks, events, ident, keys, kinds, link, relay, session
from protocol.crypto import Forged

KEYS = keys.BadgeKeys(bytes(range(32)))
BOOT = ident.boot_bytes(1, b"rand")
HUB = b"hub-id-8"
BADGE = 77


def pair(seed: int = 1, payload: int = 244) -> tuple[session.HubLink, session.BadgeLink]:
    rng = random.Random(seed)
    hub = session.HubLink(HUB, BADGE, KEYS.link(HUB), rng.randbytes, 0, payload)
    badge = session.BadgeLink(BADGE, BOOT, KEYS.link, rng.randbytes, 0, payload)
    hub.start(0, True)
    return hub, badge


def converse(hub: session.HubLink, badge: session.BadgeLink, now: int = 0) -> tuple[list[int], list[int]]:
    """Pass everything on until both are silent; the message types that each side understood."""
    to_badge: list[int] = []
    to_hub: list[int] = []
    while True:
        down, _ = hub.poll(now)
        up, _ = badge.poll(now)
        if not down and not up:
            return to_badge, to_hub
        for chunk in down:
            to_badge += [m[0] for m in badge.receive(chunk, now)]
        for chunk in up:
            to_hub += [m[0] for m in hub.receive(chunk, now)]


def test_hello_welcome_ready() -> None:
    hub, badge = pair()
    to_badge, to_hub = converse(hub, badge)
    assert to_badge == [link.ESTABLISHED, link.READY]
    assert to_hub == [link.ESTABLISHED]
    assert hub.boot == BOOT
    assert badge.hub_id == HUB


def test_at_the_smallest_mtu_everything_still_fits() -> None:
    hub, badge = pair(payload=20)
    converse(hub, badge)
    blob = events.seal_event(KEYS.events, BADGE, BOOT, 1, events.Event(kinds.SOS, ident.pack(BOOT, 1)))
    badge.send(link.EVENT, link.pack_event(kinds.SOS, ident.pack(BOOT, 1), 0, 90, 0, blob))
    values, _ = badge.poll(0)
    assert len(values) > 1
    assert all(len(v) <= 20 for v in values)
    got = [m for v in values for m in hub.receive(v, 0)]
    assert [m[0] for m in got] == [link.EVENT]
    assert link.unpack_event(got[0][1])[5] == blob


def test_a_live_audio_packet_fits_one_notification() -> None:
    hub, badge = pair()
    converse(hub, badge)
    badge.send(link.AUDIO, link.pack_audio(BOOT, 1, 2, bytes(203 + 8)))
    values, _ = badge.poll(0)
    assert [len(v) <= chunks.PAYLOAD_MAX for v in values] == [True]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 0.5), st.sampled_from([20, 244]))
def test_nothing_is_doubled_or_invented_on_a_bad_air_and_all_arrives_if_resent(
    seed: int, corrupt: float, duplicate: float, reorder: float, payload: int
) -> None:
    """Values are corrupted, doubled and swapped; the sender repeats until it is answered, as custody does."""
    air = random.Random(seed)
    hub, badge = pair(seed, payload)

    def through(values: list[bytes]) -> list[bytes]:
        out = []
        for value in values:
            if air.random() < corrupt:
                spoiled = bytearray(value)
                spoiled[air.randrange(len(spoiled))] ^= 1 << air.randrange(8)
                value = bytes(spoiled)
            out += [value] * (2 if air.random() < duplicate else 1)
        if reorder and air.random() < reorder:
            air.shuffle(out)
        return out

    heard: list[bytes] = []
    now = 0
    sent = 0
    for _ in range(600):
        now += 100
        if badge.established and sent < 20 and len(heard) == sent:
            sent += 1
        if badge.established and len(heard) < sent:
            badge.send(link.TELEMETRY, bytes((sent,)) + bytes(events.BLOB_LENGTH))
        for value in through(hub.poll(now)[0]):
            badge.receive(value, now)
        for value in through(badge.poll(now)[0]):
            for kind, body in hub.receive(value, now):
                if kind == link.TELEMETRY:
                    assert body[1:] == bytes(events.BLOB_LENGTH)
                    if body not in heard:
                        heard.append(body)
    assert [b[0] for b in heard] == list(range(1, len(heard) + 1))
    assert sent - len(heard) in (0, 1)
    if payload == 244 and reorder == 0:
        assert len(heard) == 20


@given(st.lists(st.binary(max_size=260), max_size=30))
def test_bytes_of_strangers_never_raise_and_prove_nothing(values: list[bytes]) -> None:
    hub, badge = pair()
    for value in values:
        badge.receive(value, 0)
        hub.receive(value, 0)
    assert not badge.established
    assert not hub.established


@given(st.lists(st.binary(max_size=260), max_size=30))
def test_an_established_session_is_not_harmed_by_bytes_of_strangers(values: list[bytes]) -> None:
    hub, badge = pair()
    converse(hub, badge)
    for value in values:
        badge.receive(value, 0)
        hub.receive(value, 0)
    badge.poll(0)
    hub.send(link.UPLINK, b"\x01")
    assert converse(hub, badge)[0] == [link.UPLINK]


def test_a_recorded_conversation_cannot_be_played_again() -> None:
    hub, badge = pair(1)
    recorded: list[bytes] = []
    for _ in range(3):
        values = hub.poll(0)[0]
        recorded += values
        for value in values:
            badge.receive(value, 0)
        for value in badge.poll(0)[0]:
            hub.receive(value, 0)
    assert badge.established
    other = session.BadgeLink(BADGE, BOOT, KEYS.link, random.Random(99).randbytes, 0, 244)
    for value in recorded:
        other.receive(value, 0)
    assert not other.established
    before = badge.counters["replayed"]
    for value in recorded[1:]:
        assert badge.receive(value, 0) == []
    assert badge.counters["replayed"] > before


def test_a_hub_without_the_link_key_cannot_read_the_welcome_nor_be_believed() -> None:
    rng = random.Random(3)
    hub = session.HubLink(HUB, BADGE, bytes(16), rng.randbytes, 0, 244)
    badge = session.BadgeLink(BADGE, BOOT, KEYS.link, rng.randbytes, 0, 244)
    hub.start(0)
    converse(hub, badge)
    assert not hub.established
    assert not badge.established
    assert badge.dead(session.PROOF_MS)


def test_two_answers_to_a_stranger_have_nothing_in_common() -> None:
    """Whoever connects again and again cannot follow the badge by what it says."""
    rng = random.Random(4)
    hello = session.HubLink(HUB, BADGE, bytes(16), rng.randbytes, 0, 244).poll(0)[0][0]
    answers = []
    for _ in range(2):
        badge = session.BadgeLink(BADGE, BOOT, KEYS.link, rng.randbytes, 0, 244)
        badge.receive(hello, 0)
        answers.append(badge.poll(0)[0][0][3:])
    first, second = answers
    assert not {first[i : i + 4] for i in range(len(first) - 3)} & {second[i : i + 4] for i in range(len(second) - 3)}


def test_enrolment_is_answered_only_by_the_application() -> None:
    rng = random.Random(5)
    hub = session.HubLink(HUB, BADGE, None, rng.randbytes, 0, 244, enrol=True)
    badge = session.BadgeLink(BADGE, BOOT, KEYS.link, rng.randbytes, 0, 244)
    hub.start(0)
    asked = [m for value in hub.poll(0)[0] for m in badge.receive(value, 0)]
    assert asked == [(link.ENROL_REQUEST, HUB)]
    assert badge.poll(0)[0] == []
    ident8 = ident.pack(BOOT, 3)
    badge.enrol(ident8, bytes(events.BLOB_LENGTH))
    got = [m for value in badge.poll(0)[0] for m in hub.receive(value, 0)]
    assert got == [(link.ENROL, ident8 + bytes(events.BLOB_LENGTH))]


def test_a_guest_hub_may_deliver_what_the_station_sealed() -> None:
    rng = random.Random(6)
    hub = session.HubLink(HUB, BADGE, None, rng.randbytes, 0, 244)
    badge = session.BadgeLink(BADGE, BOOT, KEYS.link, rng.randbytes, 0, 244)
    hub.station(b"sealed by the station")
    got = [m for value in hub.poll(0)[0] for m in badge.receive(value, 0)]
    assert got == [(link.STATION, b"sealed by the station")]
    assert not badge.established


@given(st.binary(min_size=1, max_size=512), st.integers(20, 244))
def test_chunks_make_the_frame_again(frame: bytes, payload: int) -> None:
    splitter, assembler = chunks.Splitter(), chunks.Assembler()
    for _ in range(70):  # the counter wraps at 64
        parts = splitter.split(frame, payload)
        got = [assembler.feed(c) for c in parts]
        assert got[-1] == frame
        assert got[:-1] == [None] * (len(parts) - 1)


@given(st.binary(max_size=500))
def test_a_relay_message_of_any_bytes_is_malformed_or_forged(data: bytes) -> None:
    def never(_signature: bytes, _text: bytes) -> bool:
        return False

    for unpack in (lambda: relay.unpack_up(never, data), lambda: relay.unpack_down(never, HUB, data)):
        try:
            unpack()
            raise AssertionError("believed")
        except (Forged, events.Malformed):
            pass


@given(st.binary(max_size=500))
def test_even_a_true_signature_over_nonsense_is_only_malformed(data: bytes) -> None:
    def always(_signature: bytes, _text: bytes) -> bool:
        return True

    try:
        up = relay.unpack_up(always, data)
        for unpack in (
            relay.unpack_event,
            relay.unpack_beacon,
            relay.unpack_telemetry,
            relay.unpack_audio,
            relay.unpack_second_path,
        ):
            with contextlib.suppress(events.Malformed):
                unpack(up.payload)
    except events.Malformed:
        pass
    for unpack_part in (relay.unpack_receipt, relay.unpack_down_badge, relay.unpack_audio_receipt):
        with contextlib.suppress(events.Malformed):
            unpack_part(data)
    for unpack_body in (
        link.unpack_event,
        link.unpack_audio,
        link.unpack_audio_ack,
        link.unpack_held,
        link.unpack_ready,
        link.unpack_telemetry,
    ):
        with contextlib.suppress(events.Malformed):
            unpack_body(data)


@given(
    st.integers(1, 2**24 - 1),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=255)), max_size=20),
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=20),
)
def test_audio_of_many_packets_comes_back_whole(
    badge: int, packets: list[tuple[int, bytes]], ranges: list[tuple[int, int]]
) -> None:
    assert relay.unpack_audio(relay.pack_audio(badge, BOOT, 3, packets)) == (badge, BOOT, 3, packets)
    told = (badge, bytes(8), relay.BY_BEACON_ONLY, 3, 2, 15_000)
    assert relay.unpack_second_path(relay.pack_second_path(*told)) == told
    assert relay.unpack_audio_receipt(relay.pack_audio_receipt(badge, BOOT, 3, ranges)) == (badge, BOOT, 3, ranges)
