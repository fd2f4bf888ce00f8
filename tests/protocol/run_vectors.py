"""Check one interpreter against both files of vectors; runs on MicroPython and on CPython.

usage: run_vectors.py REPOSITORY. Prints one line a mismatch, then the count; exits 1 on any mismatch.
"""

import binascii
import json
import sys

sys.path.insert(0, sys.argv[1])

from protocol import adpcm, aes, answer, audio, beacon, crypto, downlink, events, keys, kinds, link, relay, session

checked = 0
wrong = 0


def unhex(text):
    return binascii.unhexlify(text)


def check(what, got, wanted):
    global checked, wrong
    checked += 1
    if got != wanted:
        wrong += 1
        print("MISMATCH", what, "got", got, "wanted", wanted)


def load(name):
    with open(sys.argv[1] + "/tests/protocol/" + name) as file:
        return json.load(file)


def published(v):
    for t in v["aes"]:
        key, plain, cipher = unhex(t["key"]), unhex(t["plain"]), unhex(t["cipher"])
        check(t["source"], aes.ecb(key, plain), cipher)
        check(t["source"], aes.cbc(key, plain), cipher)
        check(t["source"], aes.ecb_decrypt(key, cipher), plain)
    for t in v["ccm"]:
        key, nonce, aad, plain = unhex(t["key"]), unhex(t["nonce"]), unhex(t["aad"]), unhex(t["plain"])
        sealed = unhex(t["sealed"])
        check(t["source"], crypto.ccm_seal(key, nonce, aad, plain, t["tag"]), sealed)
        check(t["source"], crypto.ccm_open(key, nonce, aad, sealed, t["tag"]), plain)
    for t in v["hmac"]:
        check(t["source"], crypto.hmac_sha256(unhex(t["key"]), unhex(t["data"])), unhex(t["mac"]))
    for t in v["hkdf"]:
        key = crypto.hkdf(unhex(t["secret"]), unhex(t["info"]), t["length"], unhex(t["salt"]))
        check(t["source"], key, unhex(t["key"]))


def own(v):
    t = v["keys"]
    k = keys.BadgeKeys(unhex(t["root"]))
    for name in ("events", "down", "audio", "beacon", "answer"):
        check("key " + name, getattr(k, name), unhex(t[name]))
    check("link key", k.link(unhex(t["hub"])), unhex(t["link"]))
    check("passkey", k.passkey(), t["passkey"])
    for t in v["events"]:
        event = events.Event(
            t["kind"],
            unhex(t["ident"]),
            t["age_ms"],
            t["battery"],
            t["flags"],
            unhex(t["incident"]),
            unhex(t["body"]),
        )
        blob = unhex(t["blob"])
        check("event", events.seal_event(k.events, t["badge"], unhex(t["boot"]), t["number"], event), blob)
        got, boot, number = events.open_event(k.events, t["badge"], blob)
        check(
            "event opened",
            (got.kind, got.ident, got.age_ms, got.body),
            (t["kind"], event.ident, t["age_ms"], event.body),
        )
        check("event number", (boot, number), (unhex(t["boot"]), t["number"]))
    for t in v["downlinks"]:
        down = downlink.Down(t["type"], t["number"], unhex(t["boot"]), t["echo"], unhex(t["body"]))
        blob = unhex(t["blob"])
        check("downlink", downlink.seal_down(k.down, t["badge"], unhex(t["nonce"]), down), blob)
        got = downlink.open_down(k.down, t["badge"], blob)
        check(
            "downlink opened",
            (got.type, got.number, got.echo, got.body),
            (down.type, down.number, down.echo, down.body),
        )
    for t in v["beacons"]:
        group = beacon.Group(unhex(t["group"]))
        data = beacon.seal_beacon(
            group,
            k.beacon,
            t["badge"],
            unhex(t["boot"]),
            t["seq"],
            t["kind"],
            t["imitates"],
            t["battery"],
            t["rotation"],
        )
        check("advertisement", beacon.advertisement(data), unhex(t["advertisement"]))
        heard = beacon.route([beacon.Group(bytes(16)), group], beacon.parse_advertisement(unhex(t["advertisement"])))
        check("beacon routed", (heard.badge, heard.seq, heard.kind), (t["badge"], t["seq"], t["imitates"]))
        check("beacon verified", beacon.verify(k.beacon, heard), t["kind"])
    for t in v["answers"]:
        group, boot, ident = beacon.Group(unhex(t["group"])), unhex(t["boot"]), unhex(t["ident"])
        payload = unhex(t["payload"])
        made = answer.seal_answer(group, k.answer, t["badge"], boot, ident, t["level"], t["rotation"])
        check("answer", made, payload)
        got = answer.open_answer(group, k.answer, t["badge"], boot, payload)
        check("answer opened", got, (ident, t["level"], t["rotation"]))
        check("answer is no beacon", beacon.route([group], payload), None)
    predictor = index = 0
    boot = unhex(v["events"][0]["boot"])
    badge = v["events"][0]["badge"]
    for t in v["audio"]:
        raw = unhex(t["samples"])
        samples = []
        for i in range(0, len(raw), 2):
            value = raw[i] | raw[i + 1] << 8
            samples.append(value - 65536 if value > 32767 else value)
        packet, predictor, index = adpcm.encode_packet(samples, predictor, index)
        check("ADPCM", packet, unhex(t["packet"]))
        check("ADPCM length", len(adpcm.decode_packet(packet)), len(samples))
        sealed = audio.seal_audio(k.audio, badge, boot, t["capture"], t["index"], packet)
        check("audio", sealed, unhex(t["sealed"]))
        check("audio opened", audio.open_audio(k.audio, badge, boot, t["capture"], t["index"], sealed), packet)
    transcript(v, k, badge, boot)
    for t in v["relay"]:
        up = relay.unpack_up(
            lambda signature, _text, wanted=unhex(t["signature"]): signature == wanted, unhex(t["message"])
        )
        check("relay", relay.unpack_event(up.payload)[1], kinds.SOS)


def transcript(v, k, badge, boot):
    hub_id = unhex(v["keys"]["hub"])
    hub = session.HubLink(hub_id, badge, k.link(hub_id), lambda n: bytes(range(n)), 0, 244)
    mine = session.BadgeLink(badge, boot, k.link, lambda n: bytes(range(n)), 0, 244)
    hub.start(0)
    understood = []
    for t in v["session"]:
        value = unhex(t["value"])
        if t["from"] == "hub":
            understood += mine.receive(value, 1)
            for chunk in hub.poll(1)[0]:
                check("hub's value", chunk, value)
        else:
            understood += hub.receive(value, 1)
    check(
        "session", [m[0] for m in understood], [link.ESTABLISHED, link.ESTABLISHED, link.READY, link.EVENT, link.HELD]
    )


published(load("published.json"))
own(load("vectors.json"))
print("%d vectors checked, %d wrong" % (checked, wrong))
sys.exit(1 if wrong else 0)
