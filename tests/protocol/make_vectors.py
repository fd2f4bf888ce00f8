"""Make vectors.json: what protocol version 1 gives for fixed inputs. Run `make vectors` after a wanted change.

Whoever writes a badge in another language checks it against this file; run_vectors.py checks both of our
interpreters against it.
"""

import json
import math
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from protocol import adpcm, answer, audio, beacon, downlink, events, ident, keys, kinds, link, relay, session

ROOT = bytes(range(32))
GROUP = bytes(range(0x40, 0x50))
HUB = bytes.fromhex("1122334455667788")
BADGE = 0x00C0DE
BOOT = ident.boot_bytes(3, bytes.fromhex("aabbccdd"))
IDENT = ident.pack(BOOT, 45)


def _speech(n: int) -> list[int]:
    noise = random.Random(1)
    return [
        max(-32768, min(32767, int(9000 * math.sin(i / 9.0) * math.sin(i / 160.0) + noise.gauss(0, 300))))
        for i in range(n)
    ]


def _session(badge_keys: keys.BadgeKeys) -> list[dict[str, str]]:
    """A whole conversation: HELLO, WELCOME, READY, EVENT, HELD. Random bytes are counted up from zero."""

    def counted(n: int) -> bytes:
        return bytes(range(n))

    hub = session.HubLink(HUB, BADGE, badge_keys.link(HUB), counted, 0, 244)
    badge = session.BadgeLink(BADGE, BOOT, badge_keys.link, counted, 0, 244)
    said = []

    def pass_on() -> None:
        for chunk in hub.poll(1)[0]:
            said.append({"from": "hub", "value": chunk.hex()})
            badge.receive(chunk, 1)
        for chunk in badge.poll(1)[0]:
            said.append({"from": "badge", "value": chunk.hex()})
            hub.receive(chunk, 1)

    hub.start(0)
    pass_on()
    pass_on()
    event = events.Event(kinds.SOS, IDENT, 12, 88, events.IN_VISIT, IDENT)
    blob = events.seal_event(badge_keys.events, BADGE, BOOT, 7, event)
    badge.send(link.EVENT, link.pack_event(kinds.SOS, IDENT, 12, 88, 0, blob))
    pass_on()
    hub.send(link.HELD, link.pack_held([IDENT]))
    pass_on()
    return said


def make() -> dict[str, object]:
    """The whole file as an object."""
    k = keys.BadgeKeys(ROOT)
    out: dict[str, object] = {"version": 1}
    out["keys"] = {
        "root": ROOT.hex(),
        "hub": HUB.hex(),
        "events": k.events.hex(),
        "down": k.down.hex(),
        "audio": k.audio.hex(),
        "beacon": k.beacon.hex(),
        "answer": k.answer.hex(),
        "link": k.link(HUB).hex(),
        "passkey": k.passkey(),
    }
    sealed = []
    for number, kind in enumerate((kinds.STATUS, kinds.SOS, kinds.CHECK_IN, kinds.DURESS), 1):
        visit = events.pack_visit(9, IDENT, 61000, 3600, 120)
        body = {
            kinds.CHECK_IN: visit,
            kinds.DURESS: events.pack_duress(kinds.CHECK_IN, visit),
            kinds.STATUS: events.pack_status(70000, 2, 9, 1, 41000, 3, 0x1234),
        }.get(kind, b"")
        event = events.Event(kind, IDENT, 1000 * number, 80, events.IN_VISIT, IDENT, body)
        sealed.append(
            {
                "badge": BADGE,
                "boot": BOOT.hex(),
                "number": number,
                "kind": kind,
                "ident": IDENT.hex(),
                "age_ms": event.age_ms,
                "battery": event.battery,
                "flags": event.flags,
                "incident": IDENT.hex(),
                "body": body.hex(),
                "blob": events.seal_event(k.events, BADGE, BOOT, number, event).hex(),
            }
        )
    out["events"] = sealed
    nonce = bytes(range(13))
    downs = [
        downlink.Down(downlink.RECEIPT, 70001, BOOT, 7, downlink.pack_receipt(IDENT, IDENT, kinds.RECEIVED, 0)),
        # a self-test that came back by a hub that is not ready
        downlink.Down(
            downlink.RECEIPT, 70002, BOOT, 8, downlink.pack_receipt(IDENT, bytes(8), kinds.RAISED, downlink.NOT_READY)
        ),
    ]
    out["downlinks"] = [
        {
            "badge": BADGE,
            "nonce": nonce.hex(),
            "type": down.type,
            "number": down.number,
            "boot": BOOT.hex(),
            "echo": down.echo,
            "body": down.body.hex(),
            "blob": downlink.seal_down(k.down, BADGE, nonce, down).hex(),
        }
        for down in downs
    ]
    group = beacon.Group(GROUP)
    out["beacons"] = [
        {
            "group": GROUP.hex(),
            "badge": BADGE,
            "boot": BOOT.hex(),
            "seq": 45,
            "kind": kind,
            "imitates": imitates,
            "battery": 77,
            "rotation": 258 + kind,
            "advertisement": beacon.advertisement(
                beacon.seal_beacon(group, k.beacon, BADGE, BOOT, 45, kind, imitates, 77, 258 + kind)
            ).hex(),
        }
        for kind, imitates in ((kinds.STATUS, kinds.STATUS), (kinds.SOS, kinds.SOS), (kinds.DURESS, kinds.CHECK_IN))
    ]
    out["answers"] = [
        {
            "group": GROUP.hex(),
            "badge": BADGE,
            "boot": BOOT.hex(),
            "ident": IDENT.hex(),
            "level": kinds.RECEIVED,
            "rotation": 259,
            "payload": answer.seal_answer(group, k.answer, BADGE, BOOT, IDENT, kinds.RECEIVED, 259).hex(),
        }
    ]
    samples = _speech(2 * adpcm.SAMPLES)
    predictor = index = 0
    packets = []
    for n in range(2):
        part = samples[n * adpcm.SAMPLES : (n + 1) * adpcm.SAMPLES]
        packet, predictor, index = adpcm.encode_packet(part, predictor, index)
        packets.append(
            {
                "samples": b"".join((s & 0xFFFF).to_bytes(2, "little") for s in part).hex(),
                "packet": packet.hex(),
                "capture": 2,
                "index": n,
                "sealed": audio.seal_audio(k.audio, BADGE, BOOT, 2, n, packet).hex(),
            }
        )
    out["audio"] = packets
    out["session"] = _session(k)
    up = relay.Up(
        relay.EVENT,
        HUB,
        5,
        6,
        7,
        1,
        b'{"rssi":-60}',
        relay.pack_event(BADGE, kinds.SOS, IDENT, 12, 88, 0, bytes.fromhex(str(sealed[1]["blob"]))),
    )
    out["relay"] = [{"signature": (b"s" * 64).hex(), "message": relay.pack_up(lambda _t: b"s" * 64, up).hex()}]
    return out


if __name__ == "__main__":
    Path(__file__).with_name("vectors.json").write_text(json.dumps(make(), indent=1) + "\n")
