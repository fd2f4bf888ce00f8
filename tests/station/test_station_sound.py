"""Sound: stored once each as the badge sealed it, heard live, and rendered whole with its gaps as silence."""

import io
import wave

import pytest
from station_parts import NONE, Badge, Hub
from station_world import World

from protocol import adpcm, events, kinds, relay
from station import alarms, archive, wav
from station.ingest.sound import ranges
from station.live import decode
from station.model import Packet


@pytest.fixture
def sos(world: World) -> tuple[Badge, Hub, bytes]:
    """An open SOS with its incident."""
    badge, hub = world.badge(), world.hub()
    event = badge.event(kinds.SOS)
    world.say(hub, hub.event(badge, event))
    return badge, hub, event.ident


def _start(world: World, badge: Badge, hub: Hub, incident: bytes, capture: int = 1) -> None:
    body = events.pack_audio(capture, kinds.SOS, 0, 0, adpcm.SAMPLES)
    world.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=incident, body=body)))


def _receipts(world: World, hub: Hub) -> list[list[tuple[int, int]]]:
    return [relay.unpack_audio_receipt(m.payload)[3] for m in world.down(hub) if m.type == relay.AUDIO_RECEIPT]


def _wav(world: World, first: int = 0, last: int | None = None, limit: int | None = None) -> bytes:
    with world.core.read() as db:
        found = wav.extents(db, 1, limit=limit)
        end = wav.size(found) - 1 if last is None else last
        return b"".join(wav.render(world.core.read, world.core.keyring, found, first, end))


def _samples(data: bytes) -> bytes:
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return bytes(file.readframes(file.getnframes()))


def test_packets_are_stored_once_and_receipted_every_time(world: World, sos: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    packets = badge.sound(1, 0, 6)
    world.say(hub, hub.sound(badge, 1, packets[:4]), "audio")
    world.say(hub, hub.sound(badge, 1, packets[:4]), "audio")
    world.say(hub, hub.sound(badge, 1, packets[3:]), "audio")
    assert _receipts(world, hub) == [[(0, 3)], [(0, 3)], [(3, 5)]]
    assert world.alarms()[0]["audio"] == {"captures": 1, "seconds": 0.15, "gaps": 0, "gap_seconds": 0.0}
    assert sum(len(s.packets) for out in world.committed for s in out.sounds) == 6


def test_what_is_stored_is_what_the_badge_sealed(world: World, sos: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    ((_, sealed),) = packets = badge.sound(1, 0, 1)
    world.say(hub, hub.sound(badge, 1, packets), "audio")
    with world.core.read() as db:
        assert db.get_one(Packet, (1, 0)).sealed == sealed


def test_gaps_are_silence_in_their_place_and_are_reported(world: World, sos: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    packets = badge.sound(1, 0, 12)
    world.say(hub, hub.sound(badge, 1, packets[2:5] + packets[9:]), "audio")
    assert world.alarms()[0]["audio"] == {"captures": 1, "seconds": 0.15, "gaps": 1, "gap_seconds": 0.1}
    samples = _samples(_wav(world))
    assert len(samples) == 12 * 800
    loud = [any(samples[i * 800 : (i + 1) * 800]) for i in range(12)]
    assert loud == [False, False, True, True, True, False, False, False, False, True, True, True]
    # the spool brings the rest later, out of order
    world.say(hub, hub.sound(badge, 1, packets[5:9]), "audio")
    world.say(hub, hub.sound(badge, 1, packets[:2]), "audio")
    assert world.alarms()[0]["audio"]["gaps"] == 0
    assert all(any(_samples(_wav(world))[i * 800 : (i + 1) * 800]) for i in range(12))


def test_any_part_of_the_file_is_the_same_part_of_the_whole(world: World, sos: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    world.say(hub, hub.sound(badge, 1, badge.sound(1, 0, 3) + badge.sound(1, 7, 5)), "audio")
    badge.restart()
    _start(world, badge, hub, incident)
    world.say(hub, hub.sound(badge, 1, badge.sound(1, 1, 4, level=900)), "audio")
    whole = _wav(world)
    assert len(whole) == 44 + (12 + 5) * 800
    for first, last in ((0, 43), (0, 44), (10, 900), (44, 843), (844, 844), (5000, 9999), (44 + 12 * 800, 13000)):
        assert _wav(world, first, last) == whole[first : last + 1], (first, last)
    assert len(_wav(world, limit=5)) == 44 + 5 * 800


def test_sound_that_comes_before_its_announcement_counts_to_the_open_alarm(
    world: World, sos: tuple[Badge, Hub, bytes]
) -> None:
    badge, hub, incident = sos
    world.say(hub, hub.sound(badge, 3, badge.sound(3, 0, 4)), "audio")
    assert world.alarms()[0]["audio"]["captures"] == 1
    _start(world, badge, hub, incident, capture=3)
    assert world.alarms()[0]["audio"]["captures"] == 1
    assert [s.alarm_id for out in world.committed for s in out.sounds] == [1]


def test_sound_before_its_alarm_is_found_when_the_alarm_comes(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    sos = badge.event(kinds.SOS)
    _start(world, badge, hub, sos.ident)
    world.say(hub, hub.sound(badge, 1, badge.sound(1, 0, 4)), "audio")
    world.say(hub, hub.event(badge, sos))
    assert world.alarms()[0]["audio"]["seconds"] == 0.1


def test_a_spoken_note_belongs_to_no_alarm_until_its_visit_has_one(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    from protocol.events import pack_visit

    start = badge.event(kinds.VISIT_START)
    start.body = pack_visit(0, start.ident, 60_000, 60, 5)
    world.say(hub, hub.event(badge, start))
    body = events.pack_audio(1, kinds.AMBER, 0, 0, adpcm.SAMPLES)
    world.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=NONE, body=body)))
    world.say(hub, hub.sound(badge, 1, badge.sound(1, 0, 4)), "audio")
    world.pass_time(70)
    (alarm,) = world.alarms()
    assert (alarm["kind"], alarm["audio"]["captures"]) == ("missed_check_in", 1)


def test_a_capture_that_goes_on_into_a_second_alarm_belongs_to_both_archives(
    world: World, sos: tuple[Badge, Hub, bytes]
) -> None:
    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    world.say(hub, hub.sound(badge, 1, badge.sound(1, 0, 4)), "audio")
    world.operator("op1")
    with world.core.work() as work:
        alarm = work.alarm(1)
        assert alarm is not None
        alarms.claim(work, alarm, "op1")
        alarms.close(work, alarm, "op1", "resolved", "safe_word")
    world.clock.advance(1)
    # pressed again before the badge has heard of the closing
    world.say(hub, hub.event(badge, badge.event(kinds.SOS, incident=incident)))
    world.say(hub, hub.sound(badge, 1, badge.sound(1, 4, 4)), "audio")
    assert [a["audio"]["seconds"] for a in world.alarms()] == [0.2, 0.2]
    assert [s.alarm_id for out in world.committed for s in out.sounds] == [1, 2]


def test_forged_sound_is_neither_stored_nor_receipted(world: World, sos: tuple[Badge, Hub, bytes]) -> None:
    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    good, (number, sealed) = badge.sound(1, 0, 2)
    world.say(hub, hub.sound(badge, 1, [good, (number, sealed[:-1] + b"x")]), "audio")
    world.say(hub, hub.sound(badge, 1, [(archive.NUMBER_MAX, good[1])]), "audio")
    # sealed for another capture: moved packets are forged ones
    world.say(hub, hub.sound(badge, 2, [good]), "audio")
    assert _receipts(world, hub) == [[(0, 0)]]
    assert world.alarms()[0]["audio"]["seconds"] == 0.025
    assert world.counted("sound forged") == 3


def test_sound_of_the_old_key_is_still_opened_after_provisioning_again(
    world: World, sos: tuple[Badge, Hub, bytes]
) -> None:
    from station import enrol

    badge, hub, incident = sos
    _start(world, badge, hub, incident)
    old = badge.sound(1, 0, 4)
    with world.core.work() as work:
        enrol.provision(work, "test", {"badge": badge.number})
    world.say(hub, hub.sound(badge, 1, old), "audio")
    assert len(_samples(_wav(world))) == 4 * 800


def test_decoding_is_the_protocols_and_never_fails() -> None:
    wave_form = [1000 if i % 40 < 20 else -1000 for i in range(adpcm.SAMPLES)]
    packet, _, _ = adpcm.encode_packet(wave_form, 0, 30)
    expected = b"".join(v.to_bytes(2, "little", signed=True) for v in adpcm.decode_packet(packet))
    assert decode(packet) == expected
    assert decode(b"\x00") == bytes(800)


def test_packet_numbers_become_ranges() -> None:
    assert ranges([5, 1, 2, 2, 3, 9]) == [(1, 3), (5, 5), (9, 9)]
    assert ranges([]) == []
