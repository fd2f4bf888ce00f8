"""How badges and hubs come to be known: provisioning, acceptance, links between the two, and keys on their way.

A hub tells its public keys itself and waits until somebody accepts it. It then gets the council's group keys, and
the link key of each badge that enrolled at it, sealed to its own X25519 key; what is not listed any more is revoked.
"""

import json
import os
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from sqlalchemy import delete, func, select

from protocol import relay
from protocol.ident import BADGE_MAX
from protocol.keys import ROOT_LENGTH
from station import downlinks, supervision
from station.alarms import Invalid, Refused
from station.model import Badge, Hub, Link, Wearer
from station.settings import fault, sound
from station.work import Work

PENDING_MAX = 64  # hubs that wait to be accepted; more would be somebody's mischief
_KEY = 32
_WEARER_FIELDS = (
    "name",
    "phone",
    "description",
    "vehicle",
    "medical",
    "contact",
    "safe_word",
    "duress_word",
)
TEXT_MAX = 500
SETTINGS_MAX = 400  # bytes of JSON; with its seals below the 512 of a frame


def hub_id(key: bytes) -> str:
    """The identifier of a hub with this Ed25519 public key: 16 hex digits."""
    return sha256(key).digest()[: relay.HUB_ID].hex()


def verify(key: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the hub with this public key signed the text."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- hubs -------------------------------------------------------------------------------------------------------


def hello(work: Work, up: relay.Up) -> None:
    """A hub told its public keys; the signature was verified with the first of them."""
    key, box = up.payload[:_KEY], up.payload[_KEY:]
    name = hub_id(key)
    hub = work.hub(name)
    if hub is None:
        waiting = work.db.scalar(select(func.count()).where(Hub.accepted_at.is_(None))) or 0
        if waiting >= PENDING_MAX:
            work.count("hub refused: too many wait")
            return
        hub = Hub(id=name, key=key, box=box, first_at=work.now)
        work.db.add(hub)
        work.db.flush()
        supervision.raise_entry(work, f"hub:{name}", "pending", "a new hub waits to be accepted")
    if hub.accepted_at is None or hub.revoked_at is None:
        hub.box = box
    if active(hub):
        send_keys(work, hub)


def active(hub: Hub) -> bool:
    """Accepted and not revoked."""
    return hub.accepted_at is not None and hub.revoked_at is None


def accept(work: Work, who: str, name: str, given: dict[str, Any]) -> Hub:
    """A supervisor accepts a hub. Raises Invalid, or Refused for one that nobody knows."""
    hub = work.hub(name)
    if hub is None:
        key = _hex(given.get("key"), _KEY, "key") if given.get("key") else None
        if key is None:
            raise Refused("this hub has not told its key yet: start it, or give its key")
        if hub_id(key) != name:
            raise Invalid("this key does not belong to that hub")
        hub = Hub(id=name, key=key, first_at=work.now)
        work.db.add(hub)
    hub.accepted_at, hub.revoked_at = work.now, None
    if given.get("name"):
        hub.name = _short(given["name"], "name")
    work.db.flush()
    supervision.settle(work, f"hub:{name}", "pending")
    work.audit(who, "accept hub", f"hub:{name}")
    send_keys(work, hub)
    return hub


def revoke_hub(work: Work, who: str, hub: Hub) -> None:
    """Nothing of this hub counts any more, and it gets an empty set of keys."""
    work.db.execute(delete(Link).where(Link.hub == hub.id))
    send_keys(work, hub, empty=True)
    hub.revoked_at = work.now
    work.audit(who, "revoke hub", f"hub:{hub.id}")


def send_keys(work: Work, hub: Hub, empty: bool = False) -> None:
    """The group keys and this hub's link keys, sealed to it; nothing until it has told its X25519 key."""
    if hub.box is None:
        return
    hub.keys_number += 1
    keys: dict[str, Any] = {"group": [], "links": {}, "number": hub.keys_number}
    if not empty:
        ring = work.core.keyring
        keys["group"] = [key.hex() for _, key in ring.groups(work.db, work.now)]
        for badge in work.db.scalars(select(Link.badge).where(Link.hub == hub.id).order_by(Link.badge)):
            found = ring.of_badge(work.db, badge)
            if found is not None:
                keys["links"][str(badge)] = found[1].link(bytes.fromhex(hub.id)).hex()
    ephemeral = X25519PrivateKey.generate()
    try:
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(hub.box))
    except ValueError:
        work.count("hub key weak")
        return
    sealed = relay.seal_keys(
        shared, ephemeral.public_key().public_bytes_raw(), bytes.fromhex(hub.id), json.dumps(keys).encode()
    )
    downlinks.hub_message(work, hub, relay.KEYS, sealed)


def enrolled(work: Work, badge: Badge, named: bytes) -> None:
    """A badge sealed in its pairing window that it enrols at this hub: the two share a key from now on.

    Whichever hub brings it: a badge that is enrolled already may send it by another one, and a hub that brings what was
    meant for another must not get a key by it.
    """
    hub = work.hub(named.hex())
    if hub is None or not active(hub):
        work.count("enrolment at an unknown hub")
        return
    if work.db.get(Link, (badge.number, hub.id)) is None:
        work.db.add(Link(badge=badge.number, hub=hub.id, made_at=work.now))
        work.db.flush()
        work.audit(f"badge:{badge.number}", "enrol", f"hub:{hub.id}")
    send_keys(work, hub)


# --- badges -----------------------------------------------------------------------------------------------------


def provision(work: Work, who: str, given: dict[str, Any]) -> dict[str, Any]:
    """Make or re-make a badge; the answer is what the badge needs. Raises Invalid, Refused."""
    made = None if given.get("root") else os.urandom(ROOT_LENGTH)
    root = made or _hex(given["root"], ROOT_LENGTH, "root")
    settings = _checked(given.get("settings", {}))
    _fits(settings)
    number = given.get("badge")
    if number is None or number == "":
        badge = _new_badge(work, given.get("wearer"), settings)
    else:
        badge = _known_badge(work, number)
        badge.settings = _fits({**sound(badge.settings), **settings})
        badge.revoked_at = badge.boot = badge.incident = None
        if given.get("wearer"):
            _write_wearer(badge.wearer, given["wearer"])
    badge.settings_version += 1
    keys = work.core.keyring.store_root(work.db, badge.number, root, work.now)
    work.db.flush()
    _tell_hubs(work, badge.number)
    work.audit(who, "provision badge", f"badge:{badge.number}")
    groups = work.core.keyring.groups(work.db, work.now)
    answer: dict[str, Any] = {
        "badge": badge.number,
        "passkey": f"{keys.passkey():06}",
        "group_key": {"id": groups[0][0], "key": groups[0][1].hex()},
        "group_keys": [{"id": n, "key": key.hex()} for n, key in groups],
        "settings": badge.settings,
        "settings_version": badge.settings_version,
        "station_key": work.core.vault.public_key.hex(),
    }
    if made is not None:
        answer["root"] = made.hex()
    return answer


def _new_badge(work: Work, wearer: object, settings: dict[str, Any]) -> Badge:
    person = Wearer(name="")
    _write_wearer(person, wearer)
    work.db.add(person)
    work.db.flush()
    highest = work.db.scalar(select(func.max(Badge.number))) or 0
    if highest >= BADGE_MAX:
        raise Refused("no badge number is left")
    badge = Badge(number=highest + 1, wearer_id=person.id, made_at=work.now, settings=settings)
    work.db.add(badge)
    work.db.flush()
    return badge


def _known_badge(work: Work, number: object) -> Badge:
    text = str(number)
    badge = work.badge(int(text)) if text.isdecimal() and len(text) <= 8 else None
    if badge is None:
        raise Invalid(f"there is no badge {number!r}; leave badge out for a new one")
    return badge


def _write_wearer(person: Wearer, given: object) -> None:
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, dict):
        raise Invalid("wearer must be a name, or an object with a name")
    for key, value in given.items():
        if key not in _WEARER_FIELDS:
            raise Invalid(f"a wearer has no {key!r}; known: {', '.join(_WEARER_FIELDS)}")
        setattr(person, key, _short(value, f"wearer {key}"))
    if not person.name:
        raise Invalid("a wearer needs a name")


def change_settings(work: Work, who: str, badge: Badge, settings: dict[str, Any]) -> None:
    """Merge settings; they go to the badge sealed, until its STATUS shows that it has them. Raises Invalid."""
    badge.settings = _fits({**sound(badge.settings), **_checked(settings)})
    badge.settings_version += 1
    work.audit(who, "settings", f"badge:{badge.number}", names=sorted(settings))


def _checked(settings: object) -> dict[str, Any]:
    if not isinstance(settings, dict):
        raise Invalid("settings must be an object")
    for name, value in settings.items():
        if wrong := fault(name, value):
            raise Invalid(f"settings: {wrong}")
    return settings


def _fits(settings: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(settings)) > SETTINGS_MAX:
        raise Invalid(f"settings must fit {SETTINGS_MAX} bytes of JSON: they travel in one frame")
    return settings


def revoke_badge(work: Work, who: str, badge: Badge) -> None:
    """Its keys are worth nothing any more; hubs are told."""
    badge.revoked_at = work.now
    work.core.keyring.revoke(work.db, badge.number, work.now)
    _tell_hubs(work, badge.number)
    work.db.execute(delete(Link).where(Link.badge == badge.number))
    work.audit(who, "revoke badge", f"badge:{badge.number}")


def new_group_key(work: Work, who: str) -> int:
    """Make a new group key: hubs get it now, badges sealed with the answer to their next STATUS. Its number."""
    number = work.core.keyring.new_group(work.db, work.now)
    for hub in work.db.scalars(select(Hub)):
        if active(hub):
            send_keys(work, hub)
    work.audit(who, "new group key", f"group_key:{number}")
    return number


def _tell_hubs(work: Work, badge: int) -> None:
    for hub in work.db.scalars(select(Hub).join(Link, Link.hub == Hub.id).where(Link.badge == badge)):
        if active(hub):
            send_keys(work, hub)


def _hex(given: object, length: int, name: str) -> bytes:
    try:
        value = bytes.fromhex(given) if isinstance(given, str) else b""
    except ValueError:
        value = b""
    if len(value) != length:
        raise Invalid(f"{name} must be {2 * length} hex digits")
    return value


def _short(given: object, name: str) -> str:
    if not isinstance(given, str) or len(given) > TEXT_MAX:
        raise Invalid(f"{name} must be text of at most {TEXT_MAX} characters")
    return given.strip()
