"""A station that verifies, counts and answers, and stores nothing: so that what is measured is the hub."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from pocket import Pocket

import station.ingest.worker as ingest
from hub.identity import verifier
from protocol import downlink, relay
from protocol.events import open_event
from station.enrol import hub_id
from station.model import Hub
from station.work import Core, Send


class LightStation:
    """Takes the place of a pocket chain's ingest until `restore()`. `events`: when each came, CLOCK_MONOTONIC."""

    def __init__(self, chain: Pocket) -> None:
        self.events: dict[tuple[int, bytes], float] = {}
        self.order: list[tuple[int, bytes]] = []
        self.sounds: set[tuple[int, bytes, int, int]] = set()
        self.twice = 0
        self._chain = chain
        self._badges = {badge.number: badge for badge in chain.badges}
        self._number = 1 << 40
        self._real = vars(ingest)["handle"], vars(ingest)["take"]
        self._keys: dict[str, bytes] = {}
        with chain.station.core.read() as db:
            self._keys = {row.id: row.key for row in db.query(Hub)}
        assert all(hub_id(key) == name for name, key in self._keys.items())
        self._put(self._handle, self._take)

    def restore(self) -> None:
        """The real ingest again."""
        self._put(*self._real)

    @staticmethod
    def _put(handle: Callable[..., None], take: Callable[..., int]) -> None:
        setattr(ingest, "handle", handle)  # noqa: B010
        setattr(ingest, "take", take)  # noqa: B010

    def _take(self, core: Core, messages: Sequence[tuple[str, bytes]], _go_on: Callable[[], bool]) -> int:
        for topic, payload in messages:
            self._handle(core, topic, payload)
        return len(messages)

    def _say(self, name: str, kind: int, payload: bytes) -> None:
        self._number += 1
        sign = self._chain.station.vault.sign
        message = relay.pack_down(sign, relay.Down(kind, bytes.fromhex(name), self._number & 0xFFFFFFFF, payload))
        self._chain.station.bus.publish([Send(f"tocsin/1/hub/{name}/down", message)])

    def _handle(self, _core: Core, topic: str, data: bytes) -> None:
        if "/up/" not in topic:
            return
        name = topic.split("/")[3]
        up = relay.unpack_up(verifier(self._keys[name]), data)
        if up.type == relay.EVENT:
            number, _, _, _, _, _, blob = relay.unpack_event(up.payload)
            badge = self._badges[number]
            event, boot, uplink = open_event(badge.keys.events, number, blob)
            key = (number, event.ident)
            if key not in self.events:
                self.order.append(key)
            else:
                self.twice += 1
            self.events.setdefault(key, time.monotonic())
            body = downlink.pack_receipt(event.ident, bytes(8), 2)
            down = downlink.Down(downlink.RECEIPT, self._number & 0xFFFFFFFF, boot, uplink, body)
            sealed = downlink.seal_down(badge.keys.down, number, os.urandom(13), down)
            self._say(name, relay.RECEIPT, relay.pack_receipt(number, event.ident, sealed))
        elif up.type == relay.AUDIO:
            number, boot, capture, packets = relay.unpack_audio(up.payload)
            self.sounds |= {(number, boot, capture, index) for index, _ in packets}
            ranges = [(index, index) for index, _ in packets]
            self._say(name, relay.AUDIO_RECEIPT, relay.pack_audio_receipt(number, boot, capture, ranges))
