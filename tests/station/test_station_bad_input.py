"""Bad bytes on every topic: dropped and counted, never an exception, never a change."""

from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from station_world import World

from protocol import kinds, relay
from station.ingest.dispatch import handle
from station.ingest.place import place_of

_QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_KINDS = st.sampled_from(("event", "status", "audio", "hello", "state"))


@_QUICK
@given(kind=_KINDS, data=st.binary(max_size=400))
@example(kind="state", data=b"[" * 60_000)
@example(kind="event", data=bytes(70_000))
def test_any_bytes_on_any_topic_change_nothing(shared_world: World, kind: str, data: bytes) -> None:
    hub = shared_world.two_hubs[0]
    before = len(shared_world.alarms())
    shared_world.say(hub, data, kind)
    assert len(shared_world.alarms()) == before


@_QUICK
@given(topic=st.text(max_size=60))
def test_any_topic_is_survived(shared_world: World, topic: str) -> None:
    handle(shared_world.core, topic, b"x")
    handle(shared_world.core, f"tocsin/1/hub/{topic}/up/event", b"x")


@_QUICK
@given(
    type_=st.integers(0, 255),
    payload=st.binary(max_size=300),
    held=st.integers(0, 2**32 - 1),
    facts=st.binary(max_size=80),
)
def test_what_a_hub_signs_may_still_be_nonsense(
    shared_world: World, type_: int, payload: bytes, held: int, facts: bytes
) -> None:
    hub = shared_world.two_hubs[0]
    hub.number += 1
    up = relay.Up(type_, hub.id, hub.boot, hub.number, held, 0, facts, payload)
    shared_world.say(hub, relay.pack_up(hub._identity.sign, up))
    assert not shared_world.counted("internal error")


@_QUICK
@given(data=st.data())
def test_a_flipped_bit_anywhere_is_a_forgery(shared_world: World, data: st.DataObject) -> None:
    hub = shared_world.two_hubs[0]
    badge = shared_world.one_badge
    message = bytearray(hub.event(badge, badge.event(kinds.SOS)))
    bit = data.draw(st.integers(0, len(message) * 8 - 1))
    message[bit // 8] ^= 1 << bit % 8
    before = len(shared_world.alarms())
    shared_world.say(hub, bytes(message))
    assert len(shared_world.alarms()) == before


@_QUICK
@given(body=st.binary(max_size=20), kind=st.integers(0, 30), age=st.integers(0, 2**32 - 1), battery=st.integers(0, 255))
def test_what_a_badge_seals_may_still_be_nonsense(
    shared_world: World, body: bytes, kind: int, age: int, battery: int
) -> None:
    hub, badge = shared_world.two_hubs[0], shared_world.one_badge
    event = badge.event(kind, body=body, age_ms=age)
    event.battery = battery
    data = hub.up(relay.EVENT, relay.pack_event(badge.number, 0, event.ident, 0, 0, 0, badge.seal(event)), held_ms=age)
    answers = len(shared_world.sent)
    shared_world.say(hub, data)
    assert len(shared_world.sent) > answers, "every row of an outbox gets an answer"


@_QUICK
@given(
    facts=st.dictionaries(
        st.sampled_from(["place", "lat", "lon", "text", "age", "accuracy", "source", "rssi"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
            max_leaves=4,
        ),
    )
)
def test_places_are_numbers_on_earth_or_nothing(facts: dict[str, Any]) -> None:
    place = place_of(facts, 1000.0)
    if place is not None:
        assert place["lat"] is None or -90 <= place["lat"] <= 90
        assert place["at"] <= 1000.0
        assert isinstance(place["source"], str)
