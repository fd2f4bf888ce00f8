"""A fuzz target for every decoder of the protocol; runs on CPython and on MicroPython.

usage: fuzz_decoders.py REPOSITORY [SECONDS [SEED [TARGET]]]

Each target takes any bytes and may only answer or raise what it documents. Inputs are mutations of the true messages
in vectors.json and pure noise. Prints every finding with its seed and bytes; exits 1 on any. Under a coverage-guided
fuzzer use TARGETS directly: each is a function of one bytes object.
"""

import binascii
import json
import random
import sys
import time

sys.path.insert(0, sys.argv[1])

from protocol import (
    adpcm,
    answer,
    audio,
    beacon,
    chunks,
    downlink,
    events,
    fresh,
    ident,
    image,
    keys,
    link,
    p256,
    patterns,
    relay,
    session,
)
from protocol.crypto import Forged

KEYS = keys.BadgeKeys(bytes(range(32)))
GROUP = beacon.Group(bytes(range(0x40, 0x50)))
BOOT = ident.boot_bytes(3, b"\xaa\xbb\xcc\xdd")
BADGE = 0x00C0DE
PUBLIC = binascii.unhexlify(  # RFC 6979, A.2.5
    "60fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6"
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"
)
HUB = binascii.unhexlify("1122334455667788")


def counted(n):
    return bytes(range(n))


def verified(_signature, _text):
    return True


def route_and_verify(data):
    heard = beacon.route([GROUP], data)
    if heard:
        beacon.verify(KEYS.beacon, heard)


def badge_link(data):
    side = session.BadgeLink(BADGE, BOOT, KEYS.link, counted, 0, 244)
    for i in range(0, len(data), 60):
        side.receive(data[i : i + 60], 0)
    side.receive(data, 0)
    side.poll(0)


def hub_link(data):
    side = session.HubLink(HUB, BADGE, KEYS.link(HUB), counted, 0, 244)
    side.start(0)
    side.poll(0)
    for i in range(0, len(data), 60):
        side.receive(data[i : i + 60], 0)
    side.receive(data, 0)
    side.poll(0)


def assembler(data):
    side = chunks.Assembler()
    at = 0
    while at < len(data):
        step = 1 + data[at] % 40
        frame = side.feed(data[at : at + step])
        assert frame is None or len(frame) <= max(chunks.FRAME_MAX, step)
        at += step


def up(data):
    message = relay.unpack_up(verified, data)
    for unpack in (
        relay.unpack_event,
        relay.unpack_beacon,
        relay.unpack_telemetry,
        relay.unpack_audio,
        relay.unpack_second_path,
    ):
        try:
            unpack(message.payload)
        except events.Malformed:
            pass


def down(data):
    message = relay.unpack_down(verified, HUB, data)
    for unpack in (relay.unpack_receipt, relay.unpack_down_badge, relay.unpack_audio_receipt):
        try:
            unpack(message.payload)
        except events.Malformed:
            pass


def window(data):
    side = fresh.Window()
    accepted = []
    for byte in data:
        if side.accept(byte):
            assert byte not in accepted
            accepted.append(byte)


def motor(data):
    patterns.match([(10 * data[i], 10 * data[i + 1]) for i in range(0, len(data) - 1, 2)])


def update_head(data):
    try:
        image.unpack(data)
    except image.BadImage:
        pass
    image.unpack((image.MAGIC + data + bytes(image.HEAD))[: image.HEAD])


def signature(data):
    point = (data + bytes(64))[:64]
    for _ in p256.verifying(data[:64], data[:32], point):
        pass
    assert not p256.verify(PUBLIC, bytes(32), point)


# name: (function of bytes, what it may raise)
TARGETS = {
    "event": (lambda d: events.open_event(KEYS.events, BADGE, d), (Forged, events.Malformed)),
    "downlink": (lambda d: downlink.open_down(KEYS.down, BADGE, d), (Forged, events.Malformed)),
    "speech": (lambda d: audio.open_audio(KEYS.audio, BADGE, BOOT, 2, 0, d), (Forged,)),
    "advertisement": (beacon.parse_advertisement, ()),
    "beacon": (route_and_verify, ()),
    "answer": (lambda d: answer.open_answer(GROUP, KEYS.answer, BADGE, BOOT, d), ()),
    "badge_link": (badge_link, ()),
    "hub_link": (hub_link, ()),
    "assembler": (assembler, ()),
    "up": (up, (Forged, events.Malformed)),
    "down": (down, (Forged, events.Malformed)),
    "keys": (lambda d: relay.open_keys(lambda _e: bytes(32), HUB, d), (Forged, events.Malformed)),
    "window": (window, ()),
    "adpcm": (adpcm.decode_packet, (ValueError,)),
    "motor": (motor, ()),
    "update_head": (update_head, (image.BadImage,)),
    "signature": (signature, ()),
    "visit_body": (events.unpack_visit, (events.Malformed,)),
    "audio_body": (events.unpack_audio, (events.Malformed,)),
    "status_body": (events.unpack_status, (events.Malformed,)),
    "booted_body": (events.unpack_booted, (events.Malformed,)),
    "duress_body": (events.unpack_duress, (events.Malformed,)),
    "state_body": (downlink.unpack_state, (events.Malformed,)),
    "receipt_body": (downlink.unpack_receipt, (events.Malformed,)),
    "visit_order": (downlink.unpack_visit, (events.Malformed,)),
    "link_event": (link.unpack_event, (events.Malformed,)),
    "link_telemetry": (link.unpack_telemetry, (events.Malformed,)),
    "link_audio": (link.unpack_audio, (events.Malformed,)),
    "link_held": (link.unpack_held, (events.Malformed,)),
    "link_ack": (link.unpack_audio_ack, (events.Malformed,)),
    "link_ready": (link.unpack_ready, (events.Malformed,)),
}


def hexes(value, found):
    """Every hex string anywhere in a JSON value, as bytes."""
    if isinstance(value, dict):
        for key in value:
            hexes(value[key], found)
    elif isinstance(value, list):
        for item in value:
            hexes(item, found)
    elif isinstance(value, str) and len(value) > 15 and len(value) < 2000:
        found.append(binascii.unhexlify(value))
    return found


def mutate(data):
    """One to four changes: flip, cut, repeat, insert, overwrite."""
    out = bytearray(data)
    for _ in range(random.randrange(1, 5)):
        what = random.randrange(6)
        at = random.randrange(len(out) + 1)
        if what == 0 and out:
            out[at % len(out)] ^= 1 << random.randrange(8)
        elif what == 1:
            out = out[:at]
        elif what == 2:
            out = out[:at] + out[at // 2 :]
        elif what == 3:
            out = out[:at] + noise(random.randrange(9)) + out[at:]
        elif what == 4 and out:
            out[at % len(out)] = (0, 1, 0x7F, 0x80, 0xFF)[random.randrange(5)]
        else:
            out = out[at:]
    return bytes(out[:1200])


def noise(n):
    return bytes(random.getrandbits(8) for _ in range(n))


def main(seconds, seed, only):
    with open(sys.argv[1] + "/tests/protocol/vectors.json") as file:
        corpus = hexes(json.load(file), [])
    random.seed(seed)
    names = [only] if only else sorted(TARGETS)
    runs = found = 0
    end = time.time() + seconds
    while time.time() < end and found < 10:
        for name in names:
            target, allowed = TARGETS[name]
            data = noise(random.randrange(300)) if random.randrange(8) == 0 else mutate(random.choice(corpus))
            runs += 1
            try:
                target(data)
            except allowed:
                pass
            except Exception as error:  # any other exception is the finding itself
                found += 1
                print("FOUND", name, repr(error), "seed", seed, binascii.hexlify(data))
    print("%d inputs to %d decoders, %d findings" % (runs, len(names), found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(
        main(
            float(sys.argv[2]) if len(sys.argv) > 2 else 10,
            int(sys.argv[3]) if len(sys.argv) > 3 else 1,
            sys.argv[4] if len(sys.argv) > 4 else None,
        )
    )
