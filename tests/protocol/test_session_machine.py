"""A session against random input on a moved clock: who is believed, what arrives, and when a peer is given up."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from test_session import BADGE, BOOT, HUB, KEYS

from protocol import link, session

MOST = 6  # values that are on their way at the same time in one direction


class SessionMachine(RuleBasedStateMachine):
    """One hub and one badge; between them an air that loses, doubles, keeps back, swaps and spoils values."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = random.Random(7)
        self.now = 0
        self.ways: dict[str, list[bytes]] = {"up": [], "down": []}
        self.old: list[bytes] = []  # what was said in connections before this one
        self.said: dict[str, set[bytes]] = {"up": set(), "down": set()}
        self.heard: dict[str, list[bytes]] = {"up": [], "down": []}
        self.number = 0
        self.proved_at: int | None = None  # when the badge last took something that only its hub can have sealed
        self.connect()

    def connect(self, key: bytes | None = None) -> None:
        self.old += self.ways["up"] + self.ways["down"]
        self.old = self.old[-20:]
        self.ways = {"up": [], "down": []}
        self.said = {"up": set(), "down": set()}
        self.heard = {"up": [], "down": []}
        self.began = self.now
        self.proved_at = None
        self.true_hub = key is None
        self.hub = session.HubLink(HUB, BADGE, key or KEYS.link(HUB), self.rng.randbytes, self.now, 244)
        self.badge = session.BadgeLink(BADGE, BOOT, KEYS.link, self.rng.randbytes, self.now, 244)
        self.hub.start(self.now, True)

    def collect(self) -> None:
        self.ways["down"] = (self.ways["down"] + self.hub.poll(self.now)[0])[-MOST:]
        self.ways["up"] = (self.ways["up"] + self.badge.poll(self.now)[0])[-MOST:]

    def take(self, way: str, value: bytes) -> None:
        side = self.badge if way == "down" else self.hub
        before = self.badge.heard_ms
        messages = side.receive(value, self.now)
        for kind, body in messages:
            if kind == link.TELEMETRY:
                assert body in self.said[way], "nobody said that"
                assert body not in self.heard[way], "it was said once"
                self.heard[way].append(body)
        # what anybody may say proves nothing: a station's envelope outside the session, a wish to be enrolled
        proofs = [kind for kind, _ in messages if kind not in (link.STATION, link.ENROL_REQUEST)]
        if way == "down" and self.badge.established and (proofs or self.badge.heard_ms != before):
            self.proved_at = self.now

    @rule()
    def another_connection(self) -> None:
        self.connect()

    @rule()
    def all_that_is_on_its_way_arrives(self) -> None:
        for _ in range(4):
            self.collect()
            for way in ("down", "up"):
                values, self.ways[way] = self.ways[way], []
                for value in values:
                    self.take(way, value)
        self.collect()

    @rule()
    def a_hub_with_a_wrong_key(self) -> None:
        self.connect(bytes(16))

    @rule(ms=st.integers(1, 4000) | st.sampled_from([2999, 3000, 14999, 15000]))
    def time_passes(self, ms: int) -> None:
        self.now += ms
        self.collect()

    @rule(way=st.sampled_from(["up", "down"]))
    def somebody_speaks(self, way: str) -> None:
        side = self.hub if way == "down" else self.badge
        if side.established:
            self.number += 1
            body = self.number.to_bytes(4, "big")
            self.said[way].add(body)
            side.send(link.TELEMETRY, body)
            self.collect()

    @rule(way=st.sampled_from(["up", "down"]), at=st.integers(0, MOST - 1), again=st.booleans())
    def a_value_arrives(self, way: str, at: int, again: bool) -> None:
        values = self.ways[way]
        if values:
            at %= len(values)
            value = values[at] if again else values.pop(at)
            for _ in range(1 + again):
                self.take(way, value)
            self.collect()

    @rule(way=st.sampled_from(["up", "down"]), bit=st.integers(0, 2000))
    @precondition(lambda self: self.ways["up"] or self.ways["down"])
    def a_spoiled_value_arrives(self, way: str, bit: int) -> None:
        if self.ways[way]:
            value = bytearray(self.ways[way].pop(0))
            value[bit // 8 % len(value)] ^= 1 << bit % 8
            self.take(way, bytes(value))
            self.collect()

    @rule(way=st.sampled_from(["up", "down"]), value=st.binary(max_size=244))
    def a_strangers_value_arrives(self, way: str, value: bytes) -> None:
        self.take(way, value)

    @rule(way=st.sampled_from(["up", "down"]), at=st.integers(0, 19))
    @precondition(lambda self: self.old)
    def a_recording_is_played(self, way: str, at: int) -> None:
        self.take(way, self.old[at % len(self.old)])
        self.collect()

    @rule(way=st.sampled_from(["up", "down"]))
    def values_are_lost(self, way: str) -> None:
        self.ways[way].clear()

    @rule(seconds=st.integers(20, 60))
    def a_quiet_while_on_a_good_air(self, seconds: int) -> None:
        """Whatever went before: a true hub has a session within two seconds, and it stays."""
        self.connect()
        for step in range(seconds * 4):
            self.now += 250
            self.collect()
            if step % 20 == 6:
                self.somebody_speaks("up")  # a badge's status, every five seconds
            for way in ("down", "up"):
                values, self.ways[way] = self.ways[way], []
                for value in values:
                    self.take(way, value)
            if step > 8:
                assert self.hub.established
                assert self.badge.established
                assert not self.badge.dead(self.now)
                assert not self.hub.dead(self.now)

    @invariant()
    def only_the_hub_that_has_the_key_is_believed(self) -> None:
        if not self.true_hub:
            assert not self.badge.established
            assert not self.hub.established

    @invariant()
    def who_proves_nothing_is_given_up_in_time_and_nobody_else(self) -> None:
        if self.badge.established:
            assert self.proved_at is not None
            assert self.badge.dead(self.now) == (self.now - self.proved_at >= session.SILENCE_MS)
        else:
            assert self.badge.dead(self.now) == (self.now - self.began >= session.PROOF_MS)


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
