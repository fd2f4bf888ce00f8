"""Who belongs: provisioning, hubs that are accepted, links, and keys that are revoked."""

import os

import pytest
from station_parts import Badge, Hub
from station_world import World

from protocol import kinds, relay
from station import enrol
from station.alarms import Invalid, Refused
from station.model import BadgeKey
from station.vault import Vault, VaultError


def _keys(world: World, hub: Hub) -> list[dict[str, object]]:
    return [hub.keys(m.payload) for m in world.down(hub) if m.type == relay.KEYS]


def test_a_hub_gets_keys_only_once_it_is_accepted_and_again_whenever_it_says_hello(world: World) -> None:
    hub = world.hub(accepted=False)
    assert _keys(world, hub) == []
    with world.core.work() as work:
        enrol.accept(work, "op1", hub.name, {"name": "Library"})
    (first,) = _keys(world, hub)
    assert (len(first["group"]), first["links"], first["number"]) == (1, {}, 1)  # type: ignore[arg-type]
    world.say(hub, hub.hello(), "hello")
    assert [k["number"] for k in _keys(world, hub)] == [1, 2]


def test_enrolling_gives_the_hub_the_key_that_the_badge_derives(world: World) -> None:
    badge, hub, other = world.badge(), world.hub(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.ENROL, body=hub.id)))
    assert _keys(world, hub)[-1]["links"] == {str(badge.number): badge.keys.link(hub.id).hex()}
    assert _keys(world, other)[-1]["links"] == {}


def test_an_enrolment_is_for_the_hub_that_it_names_whichever_brings_it(world: World) -> None:
    """A badge with a session elsewhere sends it there too: the hub that it names had no key, and asked for ever."""
    badge, hub, other = world.badge(), world.hub(), world.hub()
    sealed = badge.event(kinds.ENROL, body=hub.id)
    world.say(other, other.event(badge, sealed))
    assert _keys(world, hub)[-1]["links"] == {str(badge.number): badge.keys.link(hub.id).hex()}
    assert _keys(world, other)[-1]["links"] == {}
    # its keys may have been lost on the way
    before = len(_keys(world, hub)), len(_keys(world, other))
    world.say(hub, hub.event(badge, sealed))
    world.say(other, other.event(badge, sealed))
    assert (len(_keys(world, hub)), len(_keys(world, other))) == (before[0] + 1, before[1])
    assert _keys(world, hub)[-1]["links"] == {str(badge.number): badge.keys.link(hub.id).hex()}


def test_a_hub_that_is_accepted_after_its_enrolment_came_gets_its_key_when_it_brings_it(world: World) -> None:
    badge, hub, other = world.badge(), world.hub(accepted=False), world.hub()
    sealed = badge.event(kinds.ENROL, body=hub.id)
    world.say(other, other.event(badge, sealed))
    with world.core.work() as work:
        enrol.accept(work, "op1", hub.name, {})
    assert _keys(world, hub)[-1]["links"] == {}
    world.say(hub, hub.event(badge, sealed))
    assert _keys(world, hub)[-1]["links"] == {str(badge.number): badge.keys.link(hub.id).hex()}


@pytest.mark.parametrize("body", [b"", bytes(8), b"1234567"])
def test_an_enrolment_at_no_hub_gives_nothing(world: World, body: bytes) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.ENROL, body=body)))
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    assert [k["links"] for k in _keys(world, hub)] == [{}]
    assert len(world.alarms()) == 1


def test_a_forged_enrolment_gives_nothing(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    thief = Badge(badge.number, os.urandom(32), badge.group)
    world.say(hub, hub.event(thief, thief.event(kinds.ENROL, body=hub.id)))
    assert len(_keys(world, hub)) == 1


def test_provisioning_again_revokes_the_old_keys_and_tells_the_hubs(world: World) -> None:
    badge, hub = world.badge(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.ENROL, body=hub.id)))
    root = os.urandom(32)
    with world.core.work() as work:
        made = enrol.provision(work, "op1", {"badge": badge.number, "root": root.hex()})
    assert "root" not in made
    renewed = Badge(badge.number, root, badge.group)
    assert _keys(world, hub)[-1]["links"] == {str(badge.number): renewed.keys.link(hub.id).hex()}
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    assert world.alarms() == []
    world.say(hub, hub.event(renewed, renewed.event(kinds.SOS)))
    assert len(world.alarms()) == 1


def test_a_revoked_badge_or_hub_is_worth_nothing(world: World) -> None:
    badge, hub, other = world.badge(), world.hub(), world.hub()
    world.say(hub, hub.event(badge, badge.event(kinds.ENROL, body=hub.id)))
    with world.core.work() as work:
        row = work.hub(other.name)
        assert row is not None
        enrol.revoke_hub(work, "op1", row)
    assert _keys(world, other)[-1]["group"] == []
    world.say(other, other.event(badge, badge.event(kinds.SOS)))
    assert world.alarms() == []
    with world.core.work() as work:
        found = work.badge(badge.number)
        assert found is not None
        enrol.revoke_badge(work, "op1", found)
    assert _keys(world, hub)[-1]["links"] == {}
    world.say(hub, hub.event(badge, badge.event(kinds.SOS)))
    assert world.alarms() == []


def test_a_hub_may_be_accepted_beforehand_only_with_its_own_key(world: World) -> None:
    hub, stranger = Hub(), Hub()
    with world.core.work() as work:
        with pytest.raises(Refused):
            enrol.accept(work, "op1", hub.name, {})
        with pytest.raises(Invalid):
            enrol.accept(work, "op1", hub.name, {"key": stranger.key.hex()})
        enrol.accept(work, "op1", hub.name, {"key": hub.key.hex()})
    world.say(hub, hub.hello(), "hello")
    assert len(_keys(world, hub)) == 1


def test_strange_hubs_cannot_fill_the_database(world: World) -> None:
    for _ in range(enrol.PENDING_MAX + 3):
        world.hub(accepted=False)
    assert world.counted("hub refused: too many wait") == 3


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"wearer": ""},
        {"wearer": 5},
        {"wearer": {"name": "A", "shoe": "43"}},
        {"wearer": "A", "root": "00"},
        {"wearer": "A", "settings": []},
        {"badge": 77},
        {"badge": "one"},
        {"wearer": "x" * 1000},
    ],
)
def test_provisioning_nonsense_is_refused_with_a_sentence(world: World, given: dict[str, object]) -> None:
    with world.core.work() as work, pytest.raises(Invalid):
        enrol.provision(work, "op1", given)


def test_keys_lie_sealed_in_the_database_and_open_with_their_key_file_only(world: World) -> None:
    badge = world.badge()
    with world.core.read() as db:
        sealed = db.query(BadgeKey).one().sealed
    assert badge.root not in sealed
    path = world.folder / "station.key"
    assert path.stat().st_mode & 0o777 == 0o600
    world.core.vault.belongs_to(world.core.store)
    other = Vault.open(world.folder / "other.key")
    with pytest.raises(VaultError):
        other.open_sealed(f"badge {badge.number}", sealed)
    with pytest.raises(VaultError, match="does not belong"):
        other.belongs_to(world.core.store)
