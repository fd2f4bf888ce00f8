"""The hub's keys: made once, readable by their owner alone, changed only by the station."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from hub.identity import Identity, KeyRing, next_boot, verifier
from protocol import relay
from protocol.crypto import Forged
from protocol.events import Malformed

GROUP, LINK = "11" * 16, "22" * 16


def sealed(identity: Identity, text: str) -> bytes:
    ephemeral = X25519PrivateKey.generate()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(identity.exchange_public))
    return relay.seal_keys(shared, ephemeral.public_key().public_bytes_raw(), identity.hub_id, text.encode())


def keys(number: int, **links: str) -> str:
    return json.dumps({"group": [GROUP], "links": {k[1:]: v for k, v in links.items()}, "number": number})


def stored(ring: KeyRing) -> None:
    """Wait for the disk."""
    assert asyncio.run(ring.file.settled(10))


def test_an_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    first, second = Identity.load(tmp_path), Identity.load(tmp_path)
    assert first.public == second.public
    assert first.exchange_public == second.exchange_public
    assert first.hub_id == sha256(first.public).digest()[:8]
    assert verifier(first.public)(second.sign(b"text"), b"text")
    assert not verifier(first.public)(second.sign(b"text"), b"other")


def test_keys_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    identity, ring = Identity.load(tmp_path), KeyRing(tmp_path)
    ring.open(identity, sealed(identity, keys(1, b12=LINK)))
    stored(ring)
    for name in ("identity.json", "keys.json"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


def test_the_station_gives_and_revokes_and_an_older_word_changes_nothing(tmp_path: Path) -> None:
    identity, ring = Identity.load(tmp_path), KeyRing(tmp_path)
    assert ring.open(identity, sealed(identity, keys(1, b12=LINK)))
    assert ring.links == {12: bytes.fromhex(LINK)}
    assert ring.open(identity, sealed(identity, keys(3, b13=LINK)))
    assert list(ring.links) == [13]
    assert not ring.open(identity, sealed(identity, keys(2, b12=LINK)))
    stored(ring)
    again = KeyRing(tmp_path)
    assert list(again.links) == [13]
    assert [group.key.hex() for group in again.groups] == [GROUP]
    assert again.number == 3


def test_after_a_restart_no_word_counts_that_is_older_than_the_last_one_heard(tmp_path: Path) -> None:
    """Also when that one changed nothing: a revocation could be undone by what lies between."""
    identity, ring = Identity.load(tmp_path), KeyRing(tmp_path)
    for number in (1, 3):
        assert ring.open(identity, sealed(identity, keys(number, b12=LINK)))
    stored(ring)
    again = KeyRing(tmp_path)
    assert not again.open(identity, sealed(identity, keys(2, b13=LINK)))
    assert list(again.links) == [12]


def test_keys_that_were_not_sealed_to_this_hub_are_refused(tmp_path: Path) -> None:
    identity, other = Identity.load(tmp_path), Identity.load(tmp_path / "other")
    ring = KeyRing(tmp_path)
    for payload in (sealed(other, keys(1)), sealed(identity, keys(1))[:-1] + b"\0", bytes(40)):
        with pytest.raises((Forged, Malformed)):
            ring.open(identity, payload)
    for text in ("", "[]", "{}", '{"group": ["00"], "links": {}, "number": 1}', keys(1, b12="00")):
        with pytest.raises(Malformed):
            ring.open(identity, sealed(identity, text))
    assert ring.groups == []


def test_a_damaged_key_file_waits_for_the_station(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    ring = KeyRing(tmp_path)
    assert ring.groups == []
    assert "damaged" in ring.problem


def test_every_start_has_a_larger_number_also_when_it_cannot_be_stored(tmp_path: Path) -> None:
    boots = [next_boot(tmp_path) for _ in range(3)]
    (tmp_path / "boot").write_text(str(2**32 - 10))
    boots += [next_boot(tmp_path)]
    assert boots == sorted(set(boots))
    (tmp_path / "boot").write_text("damaged")
    now = next_boot(tmp_path)
    assert now >= boots[0]
    assert next_boot(tmp_path / "nowhere") >= now - 1
