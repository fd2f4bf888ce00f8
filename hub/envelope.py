"""What goes to the station and what comes from it, as signed bytes: protocol.relay with this hub's keys."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hub.clock import Clock
from hub.identity import Identity, verifier
from protocol import relay
from protocol.crypto import Forged
from protocol.events import Malformed


class Envelope:
    """Signs what the hub says and opens what the station says. `counters` has what was dropped.

    `proof_ms` is when the station last said something new, by the hub's clock; None before the first time. Replayed
    messages of the station prove nothing, so its numbers must grow.
    """

    def __init__(self, identity: Identity, station_key: bytes, boot: int, clock: Clock) -> None:
        self.identity = identity
        self.boot = boot
        self.counters: Counter[str] = Counter()
        self.proof_ms: int | None = None
        self._clock = clock
        self._verify = verifier(station_key)
        self._number = 0
        self._heard = -1

    def up(self, kind: int, payload: bytes = b"", facts: dict[str, Any] | None = None, held_ms: int = 0) -> bytes:
        """One message, signed. `held_ms`: how long the hub has had it.

        Facts that are too long are left out one by one, from the last.
        """
        self._number += 1
        facts = dict(facts or {})
        text = _json(facts)
        while len(text) > relay.FACTS_MAX:
            facts.popitem()
            text = _json(facts)
        message = relay.Up(
            kind,
            self.identity.hub_id,
            self.boot,
            self._number & 0xFFFFFFFF,
            held_ms,
            relay.CLOCK_SYNCHRONISED if self._clock.synchronised() else 0,
            text,
            payload,
        )
        return relay.pack_up(self.identity.sign, message)

    def down(self, data: bytes) -> relay.Down | None:
        """What the station says to this hub; None, and counted, for anything else."""
        try:
            message = relay.unpack_down(self._verify, self.identity.hub_id, data)
        except Forged:
            self.counters["down_forged"] += 1
            return None
        except Malformed:
            self.counters["down_malformed"] += 1
            return None
        if message.number > self._heard:
            self._heard = message.number
            self.proof_ms = self._clock.now_ms()
        return message


def _json(facts: dict[str, Any]) -> bytes:
    return json.dumps(facts, separators=(",", ":"), ensure_ascii=True).encode()
