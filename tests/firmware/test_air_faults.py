"""Faults of the air: whom they concern, what they touch, and that the same seed brings the same fate."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from air_world import Party, World, play, until
from hypothesis import given
from hypothesis import strategies as st

from firmware.emulator.air import values
from firmware.emulator.air.faults import CLEAN, BadFault, Conditions, Fault, Faults


def frames(count: int) -> list[bytes]:
    return [bytes((i,)) * 40 for i in range(count)]


def test_corruption_flips_one_bit_of_our_values_and_nothing_else() -> None:
    async def story() -> None:
        world = World()
        await world.begin()
        world.fault(corrupt=1.0)
        linked = await world.connect()  # discovery and subscription are untouched
        for value in frames(20):
            await linked.write(value, answered=value[0] % 2 == 0)
            await world.badge.notify(value)
        await until(lambda: len(world.badge.received) == 20 and len(linked.notified) == 20)
        for got in (world.badge.received, linked.notified):
            for sent, value in zip(frames(20), got, strict=True):
                wrong = [a ^ b for a, b in zip(sent, value, strict=True) if a != b]
                assert len(wrong) == 1
                assert wrong[0].bit_count() == 1

    play(story)


def test_duplicates_come_twice_in_order_and_a_request_is_answered_once() -> None:
    async def story() -> None:
        world = World()
        await world.begin()
        world.fault(duplicate=1.0)
        linked = await world.connect()
        for value in frames(5):
            await linked.write(value, answered=True)
            await world.badge.notify(value)
        await until(lambda: len(world.badge.received) == 10 and len(linked.notified) == 10)
        assert world.badge.received == [value for value in frames(5) for _ in range(2)]
        assert linked.notified == world.badge.received

    play(story)


def test_reordering_lets_one_overtake_another_and_loses_none() -> None:
    async def story() -> None:
        world = World(seed=3)
        await world.begin()
        linked = await world.connect()
        world.fault(reorder=0.4)
        for value in frames(60):
            await world.badge.notify(value)
        await until(lambda: len(linked.notified) == 60)
        assert linked.notified != frames(60)
        assert sorted(linked.notified) == frames(60)
        # the last one of all is not held for ever
        world.fault(reorder=1.0)
        await world.badge.notify(b"the last one")
        await until(lambda: linked.notified[-1] == b"the last one", 0.3)

    play(story)


def test_delay_adds_to_every_packet_and_keeps_the_order() -> None:
    async def story() -> None:
        world = World()
        await world.begin()
        linked = await world.connect()
        world.fault(delay_ms=200)
        for value in frames(10):
            await world.badge.notify(value)
        began = asyncio.get_running_loop().time()
        await until(lambda: bool(linked.notified))
        assert 0.2 <= asyncio.get_running_loop().time() - began < 2
        world.clear()  # what is on its way is not overtaken by what comes after it
        for value in frames(20)[10:]:
            await world.badge.notify(value)
        await until(lambda: len(linked.notified) == 20)
        assert linked.notified == frames(20)

    play(story)


def test_advertisements_are_really_lost_spoilt_and_repeated() -> None:
    async def story() -> None:
        world = World()
        await world.begin()
        world.fault(loss=0.5)
        await asyncio.sleep(60)
        assert 200 < len(world.hub.heard) < 360
        world.hub.heard.clear()
        world.fault(corrupt=1.0)
        await asyncio.sleep(1)
        assert all(sum(byte.bit_count() for byte in data) == 1 for _, _, data in world.hub.heard)
        world.hub.heard.clear()
        world.fault(duplicate=1.0)
        await asyncio.sleep(1)
        times = [at for at, _, _ in world.hub.heard]
        assert times[::2] == times[1::2]

    play(story)


def test_a_fault_concerns_its_pair_and_nobody_else() -> None:
    async def story() -> None:
        world = World()
        other = Party(world.air, "hub:other", "C0:00:00:00:00:02")
        await other.device.power_on()
        await other.listen()
        await world.begin()
        world.fault(down=True)
        await asyncio.sleep(2)
        assert not world.hub.heard
        assert len(other.heard) > 15

    play(story)


def test_the_same_seed_brings_the_same_fate() -> None:
    def fate(seed: int) -> list[bytes]:
        got: list[bytes] = []

        async def story() -> None:
            world = World(seed)
            await world.begin()
            linked = await world.connect()
            world.fault(reorder=0.3, duplicate=0.3, corrupt=0.3)
            for value in frames(30):
                await world.badge.notify(value)
            await asyncio.sleep(3)
            got.extend(linked.notified)

        play(story)
        return got

    assert fate(7) == fate(7)
    assert fate(7) != fate(8)


def test_overlapping_faults_add_up_and_each_ends_by_itself() -> None:
    faults = Faults()
    faults.set(1, Fault.parse({"a": "x", "b": "y", "loss": 0.5, "delay_ms": 100}))
    faults.set(2, Fault.parse({"a": "y", "b": "x", "loss": 0.5, "delay_ms": 50, "connect": False}))
    assert faults.between("x", "y") == Conditions(loss=0.75, delay_ms=150, connect=False)
    assert faults.between("y", "x") == faults.between("x", "y")
    assert faults.clear(1)
    assert not faults.clear(1)
    assert faults.between("x", "y") == Conditions(loss=0.5, delay_ms=50, connect=False)
    assert faults.between("x", "z") == CLEAN
    faults.set(3, Fault.parse({"a": "*", "b": "z", "down": True}))
    assert faults.between("x", "z").down


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"a": "x"}, "'b'"),
        ({"a": "x", "b": ""}, "'b'"),
        ({"a": "x", "b": "y", "loss": 1.5}, "'loss' must be between 0 and 1"),
        ({"a": "x", "b": "y", "loss": "much"}, "'loss' must be a number"),
        ({"a": "x", "b": "y", "loss": float("nan")}, "'loss' must be a number"),
        ({"a": "x", "b": "y", "delay_ms": -1}, "'delay_ms'"),
        ({"a": "x", "b": "y", "down": 1}, "'down' must be true or false"),
        ({"a": "x", "b": "y", "lost": 1}, "unknown field 'lost'"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_its_field(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(BadFault, match=says):
        Fault.parse(fields)


_json = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=3)


@given(st.dictionaries(st.sampled_from(["a", "b", "loss", "delay_ms", "connect", "down", "x"]), _json))
def test_no_json_breaks_the_reading_of_a_fault(fields: dict[str, Any]) -> None:
    try:
        fault = Fault.parse(fields)
    except BadFault:
        return
    assert 0 <= fault.conditions.loss <= 1


def att(opcode: int, handle: int, value: bytes, cid: int = 4) -> bytes:
    body = bytes((opcode,)) + handle.to_bytes(2, "little") + value
    return len(body).to_bytes(2, "little") + cid.to_bytes(2, "little") + body


@pytest.mark.parametrize(
    ("pdu", "ours"),
    [
        (att(0x12, 16, bytes(20)), True),
        (att(0x52, 16, bytes(20)), True),
        (att(0x1B, 18, bytes(20)), True),
        (att(0x12, 19, b"\x01\x00"), False),  # a subscription
        (att(0x52, 19, b"\x00\x00"), False),
        (att(0x1D, 18, bytes(20)), False),  # an indication: its confirmation must fit
        (att(0x0B, 18, bytes(20)), False),  # a read response
        (att(0x12, 16, bytes(20), cid=6), False),  # pairing
        (att(0x12, 16, bytes(20), cid=5), False),  # L2CAP signalling
        (att(0x12, 16, b""), False),
        (b"", False),
    ],
)
def test_which_packets_carry_values_of_ours(pdu: bytes, ours: bool) -> None:
    assert values.carries_value(pdu) is ours


@given(st.binary(max_size=60))
def test_any_bytes_may_be_asked_about(pdu: bytes) -> None:
    if values.carries_value(pdu):
        import random

        assert len(values.corrupted(pdu, random.Random(1))) == len(pdu)
        assert len(values.repeated(pdu)) == len(pdu)
