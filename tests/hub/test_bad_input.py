"""Any bytes from the air or the broker: dropped, counted, never an exception, and never more than a little work."""

from __future__ import annotations

import os
import time
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from neighbours import GROUP, Badge

from hub import beacons
from hub.app import DEAF_MS, Hub
from hub.beacons import Listener
from hub.bumble_backend import REMEMBERED, BumbleScanner, _parse
from hub.clock import Clock
from hub.contact import Contact, Purpose
from hub.envelope import Envelope
from hub.identity import Identity
from hub.location import Location, Nmea
from hub.outbox import Row
from hub.queue import Queue
from protocol import beacon, kinds, link, relay
from protocol.beacon import Group, seal_beacon
from protocol.events import Event
from protocol.session import HubLink

GROUPS = [Group(GROUP)]


def listener() -> Listener:
    return Listener(lambda: GROUPS)


def sealed(badge: int, kind: int, rotation: int, boot: bytes = b"\0\1boot", seq: int = 1) -> dict[int, bytes]:
    data = seal_beacon(GROUPS[0], bytes(16), badge, boot, seq, kind, kind, 50, rotation)
    return {beacon.COMPANY: data}


@given(st.dictionaries(st.integers(0, 0xFFFF), st.binary(max_size=40), max_size=3), st.integers(0, 2**40))
@example({beacon.COMPANY: bytes(24)}, 0)
def test_any_advertisement_is_dropped_without_a_word(data: dict[int, bytes], now: int) -> None:
    ears = listener()
    assert ears.hear(data, now) is None
    assert sum(ears.counters.values()) == 1


@given(st.binary(max_size=62))
def test_any_advertising_data_is_read_to_its_end(data: bytes) -> None:
    name, manufacturer, services = _parse(data)
    assert name is None or isinstance(name, str)
    assert all(isinstance(value, bytes) for value in manufacturer.values())
    assert all(len(service) == 36 for service in services)


def test_a_thousand_strangers_a_second_cost_little_and_leave_nothing_behind() -> None:
    ears = listener()
    seen: list[object] = []

    def on_heard(device: object, advertisement: Any) -> None:
        seen.append(ears.hear(advertisement.manufacturer_data, int(time.monotonic() * 1000)))

    scanner = BumbleScanner(on_heard, None)
    reports = [
        SimpleNamespace(
            data=b"\x02\x01\x06\x1b\xff\xff\xff" + os.urandom(24),
            rssi=-60,
            address=SimpleNamespace(to_string=lambda _, n=number: f"F0:00:00:00:{n >> 8:02X}:{n & 255:02X}"),
        )
        for number in range(1000)
    ]
    started = time.process_time()
    for report in reports:
        scanner._on_report(report)
    spent = time.process_time() - started
    assert seen == [None] * 1000
    assert len(scanner.seen_devices) <= REMEMBERED
    assert len(ears._seen) <= beacons.REPEATS
    assert spent < 0.5, "half of a processor would be gone"


def test_beyond_a_rate_nothing_is_decrypted_any_more() -> None:
    ears = listener()
    for _ in range(beacons.ROUTED_PER_S + 100):
        ears.hear({beacon.COMPANY: os.urandom(24)}, 5000)
    assert ears.counters["too_many"] == 100
    assert ears.hear(sealed(7, kinds.SOS, 1), 6000) is not None


def test_each_rotation_of_an_alarm_is_relayed_once() -> None:
    ears = listener()
    heard = [ears.hear(sealed(7, kinds.SOS, rotation), rotation * 2000) for rotation in (1, 1, 2, 2, 3)]
    assert [bool(h and h.relay) for h in heard] == [True, False, True, False, True]


def test_presence_and_enrolment_are_not_relayed() -> None:
    ears = listener()
    for kind in (kinds.STATUS, kinds.ENROL):
        heard = ears.hear(sealed(7, kind, 1 + kind), 0)
        assert heard is not None
        assert not heard.relay


def test_forged_alarms_of_one_badge_are_limited_and_do_not_silence_its_true_ones() -> None:
    ears = listener()
    ears.trust(7, b"\0\1true")
    forged = [
        ears.hear(sealed(7, kinds.SOS, n, os.urandom(6)), n)
        for n in range(1, 200)  # in a fifth of a second
    ]
    assert sum(bool(h and h.relay) for h in forged) <= beacons.BURST + 1
    assert len(ears._rates) <= beacons.BADGES_MAX
    true = ears.hear(sealed(7, kinds.SOS, 1, b"\0\1true"), 200)
    assert true is not None
    assert true.relay


def test_a_frightened_wearer_may_press_every_second_and_each_press_is_relayed_at_once() -> None:
    ears = listener()
    boot = b"\0\1true"
    ears.trust(7, boot)
    # each press has its first beacon and, before the next one, a rotation of an earlier one's
    heard = [ears.hear(sealed(7, kinds.SOS, n, boot), n * 550) for n in range(1, 60)]
    assert all(h and h.relay for h in heard)


def test_forged_alarms_of_many_badges_are_remembered_within_bounds() -> None:
    ears = listener()
    for badge in range(1, 3000):
        ears.hear(sealed(badge, kinds.SOS, 1), badge)
    assert len(ears._rates) <= beacons.BADGES_MAX


def contact(purpose: Purpose) -> tuple[Contact, list[object]]:
    heard: list[object] = []
    made = Contact(
        SimpleNamespace(),  # type: ignore[arg-type]
        bytes(8),
        7,
        purpose,
        bytes(16),
        SimpleNamespace(now_ms=lambda: 0),  # type: ignore[arg-type]
        lambda kind, body: heard.append((kind, body)),
        lambda event, reason: heard.append(event),
    )
    made._link = HubLink(bytes(8), 7, bytes(16), os.urandom, 0, 244, purpose is Purpose.ENROL)
    return made, heard


@given(st.lists(st.binary(max_size=250), max_size=8), st.sampled_from(Purpose))
def test_any_notifications_before_a_session_say_nothing(values: list[bytes], purpose: Purpose) -> None:
    made, heard = contact(purpose)
    for value in values:
        made._on_notified(value)
    if purpose is not Purpose.ENROL:
        assert heard == []


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=260)), max_size=6))
def test_any_message_of_a_badge_that_has_proved_itself_is_taken_or_counted(messages: list[tuple[int, bytes]]) -> None:
    hub, taken = half_a_hub()
    for kind, body in messages:
        Hub._said(hub, 7, kind, body)
    assert sum(hub.counters.values()) + len(taken) == len(messages)


def half_a_hub() -> tuple[Any, list[object]]:
    """The parts of a hub that a message of a badge touches."""
    taken: list[object] = []

    def take(*what: object) -> None:
        taken.append(what)

    hub = SimpleNamespace(
        counters=Counter(),
        second=None,
        keeper=SimpleNamespace(take=take, retire=take),
        roster=SimpleNamespace(
            battery=lambda *_: None, rssi=lambda _: None, enrolling=lambda _: None, deliver=take, keys_changed=take
        ),
        spool=SimpleNamespace(received=take, receipt=take),
        uplink=SimpleNamespace(publish=take),
        envelope=SimpleNamespace(up=lambda *_: b""),
        clock=SimpleNamespace(now_ms=lambda: 0),
        _events={},
        _facts=lambda *_: "{}",
        _asked=lambda: None,
    )
    return hub, taken


@given(st.binary(max_size=300))
def test_anything_from_the_broker_that_the_station_did_not_sign_is_dropped(data: bytes) -> None:
    envelope = Envelope(IDENTITY, IDENTITY.public, 1, Clock())
    assert envelope.down(data) is None
    assert envelope.proof_ms is None
    assert sum(envelope.counters.values()) == 1


def make_identity() -> Identity:
    return Identity(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())


IDENTITY = make_identity()


@given(st.integers(0, 9), st.binary(max_size=100))
def test_anything_that_the_station_did_sign_is_understood_or_counted(kind: int, payload: bytes) -> None:
    hub, taken = half_a_hub()

    def take_answer(*what: object) -> None:
        taken.append(what)

    hub.envelope = Envelope(IDENTITY, IDENTITY.public, 1, Clock())
    hub.identity = IDENTITY
    hub.keys = SimpleNamespace(open=lambda *_: False, problem="")
    hub.broadcaster = SimpleNamespace(answer=take_answer)
    hub.listener = SimpleNamespace(trust=lambda *_: None)
    hub.clock = Clock()
    hub._check_proof = lambda: None
    hub._work_wake = SimpleNamespace(set=lambda: None)
    hub.counters = Counter()
    hub._pass_on = lambda badge, blob: taken.append(blob)
    hub._rejected = lambda *what: taken.append(what)
    message = relay.pack_down(IDENTITY.sign, relay.Down(kind, IDENTITY.hub_id, 1, payload))
    Hub._down(hub, message)
    assert hub.envelope.proof_ms is not None
    assert taken or hub.counters or kind == relay.KEYS


def test_a_station_that_leaves_questions_unanswered_is_gone_and_an_idle_hub_goes_by_its_last_answer() -> None:
    now = 0
    told: list[bool] = []
    hub, _ = half_a_hub()
    hub.clock = SimpleNamespace(now_ms=lambda: now)
    hub.uplink.ready = True
    hub.roster.uplink = False
    hub.envelope = SimpleNamespace(proof_ms=None)
    hub._asked_ms = None

    def say(proof: bool, *_: object) -> None:
        hub.roster.uplink = proof
        told.append(proof)

    hub.roster.said_uplink = say
    for now, asked, proof_ms, proof in (
        (0, None, None, False),
        (1000, None, 900, True),
        (600_000, None, 900, True),
        (601_000, 600_500, 900, True),
        (605_000, 600_500, 900, False),
        (605_100, 600_500, 605_050, True),
    ):
        hub._asked_ms, hub.envelope.proof_ms = asked, proof_ms
        Hub._check_proof(hub)
        assert hub.roster.uplink is proof, now
    hub.uplink.ready = False
    Hub._check_proof(hub)
    assert told == [True, False, True, False]


def test_a_rejected_forgery_does_not_take_the_true_event_with_it() -> None:
    hub, taken = half_a_hub()
    hub.clock = SimpleNamespace(now_ms=lambda: 1000)
    hub._pass_on = lambda badge, blob: None
    for form in (relay.BEACON, relay.EVENT):
        Hub._rejected(hub, 7, b"identity", b"", form)
        assert taken.pop() == (7, b"identity", (form,))


@given(st.lists(st.binary(max_size=200), max_size=10))
@example([b"$GPGGA,,,,,,0,,,,,,,,*66\r\n"])
@example([b"$GPRMC,225446,A,4916.45,N,12311.12,W,000.5,054.7,191194,020.3,E*68\r\n" * 2])
def test_any_noise_on_the_serial_port_is_no_fix_or_a_sane_one(parts: list[bytes]) -> None:
    nmea = Nmea()
    for part in parts:
        fix = nmea.feed(part, 0)
        if fix is not None:
            assert -90 <= fix.latitude <= 90
            assert -180 <= fix.longitude <= 180
    assert len(nmea._buffer) <= 120


def sentence(body: str) -> bytes:
    total = 0
    for byte in body.encode():
        total ^= byte
    return f"${body}*{total:02X}\r\n".encode()


@given(st.text(st.sampled_from("GPRMCGA,.-0123456789NSEWAV*$"), max_size=60))
@settings(max_examples=200)
def test_a_right_checksum_alone_makes_no_fix(body: str) -> None:
    fix = Nmea().sentence(sentence(body.replace("*", "").replace("$", "")), 0)
    assert fix is None or abs(fix.latitude) <= 90


def test_fixes_are_read_and_carry_age_accuracy_and_source() -> None:
    now = 0
    place = Location(lambda: now)
    assert place.facts() is None
    nmea = Nmea()
    gga = sentence("GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,")
    fix = nmea.feed(b"noise\xff" + gga[:10], now)
    assert fix is None
    fix = nmea.feed(gga[10:], now)
    assert fix is None, "the noise belonged to its line"
    fix = nmea.feed(gga, now)
    assert fix is not None
    place.set(fix)
    now = 4200
    assert place.facts() == {"lat": 48.1173, "lon": 11.5166667, "age": 4.2, "source": "nmea", "accuracy": 4.5}
    south_west = nmea.feed(sentence("GNRMC,225446,A,4916.45,S,12311.12,W,0.5,54.7,191194,,"), now)
    assert south_west is not None
    assert (south_west.latitude, south_west.longitude) == (-49.2741667, -123.1853333)
    now += 20 * 60_000
    assert place.facts() is None, "where it was twenty minutes ago is not where it is"


def test_a_flipped_digit_fails_the_checksum() -> None:
    nmea = Nmea()
    good = sentence("GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,")
    assert nmea.sentence(good.replace(b"4807", b"4907"), 0) is None
    assert nmea.dropped == 1


def test_messages_that_are_cut_or_repeated_are_counted() -> None:
    made, heard = contact(Purpose.SESSION)
    badge = Badge(7, "badge:x")
    body = link.pack_event(kinds.SOS, bytes(8), 0, 50, 0, badge._seal(Event(kinds.SOS, bytes(8))))
    hub, taken = half_a_hub()
    Hub._said(hub, 7, link.EVENT, body[:-1])
    assert hub.counters == {"malformed_message": 1}
    Hub._said(hub, 7, link.EVENT, body)
    assert len(taken) == 1
    assert heard == []
    assert made.counters() == {"forged": 0, "replayed": 0, "malformed": 0}


def test_a_station_that_answers_all_but_alarms_is_left_for_another_and_less_and_less_often() -> None:
    now, left, moves = 0, 2, []
    hub, _ = half_a_hub()
    queue = Queue()
    hub.keeper.queue = queue
    hub.clock = SimpleNamespace(now_ms=lambda: now)
    hub.roster.uplink = True
    hub.deaf_ms, hub._deaf_limit_ms, hub._connected_ms = 0, DEAF_MS, 0

    def elsewhere() -> bool:
        if left:
            moves.append(now)
            hub._connected_ms = now
        return bool(left)

    hub.uplink = SimpleNamespace(ready=True, elsewhere=elsewhere)
    row = Row(1, bytes(8), relay.EVENT, 1, kinds.SOS, b"", "{}", 0, "")
    queue.add(row, 0)
    for now in range(0, 1_500_000, 1000):
        if now % 5000 == 0:
            queue.sent(row, now)
        Hub._check_alarms(hub)
    gaps = [later - earlier for earlier, later in pairwise([0, *moves])]
    assert gaps == [31_000, 61_000, 121_000, 241_000, 481_000]
    left = 0  # there is no second broker: said, and no more
    for now in range(1_500_000, 2_200_000, 1000):  # noqa: B007 - the clock
        Hub._check_alarms(hub)
    assert hub.deaf_ms >= 690_000
    queue.retire(1, bytes(8))
    Hub._check_alarms(hub)
    assert (hub.deaf_ms, hub._deaf_limit_ms) == (0, DEAF_MS)
