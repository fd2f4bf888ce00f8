"""The pairing window: who may show the passkey, how long a peer may take over it, and what it can never hold up."""

from firmware.badge.radio import PASSKEY
from protocol import kinds, patterns

from world import Time, World, ready

PAIR, SOS = "side_pair", "sos"
SHOW = 3  # the badge displays, the other side types
SET_SECRET = 30


def stranger(world, connection):
    """Somebody connects and says nothing; `world.hubs` knows whether the connection still stands."""
    world.connect(connection, key=False)


def asks(world, connection):
    world.ble.handler(PASSKEY, (connection, SHOW, 0))


def stays(world, connection, most=120000):
    """For how many ms a connection is kept."""
    begun = Time.now
    while connection in world.hubs and Time.now - begun < most:
        world.run(100)
    return Time.now - begun


def test_outside_the_window_a_passkey_is_shown_to_nobody_and_the_peer_goes_at_once():
    world = World()
    world.run(1000)
    stranger(world, 1)
    world.run(200)
    asks(world, 1)
    assert stays(world, 1) <= 300
    assert world.ble.passkeys == []


def test_in_the_window_the_passkey_is_the_cards_and_who_pairs_gets_seven_seconds_more():
    world = World()
    world.run(1000)
    world.badge.act(PAIR)
    stranger(world, 1)
    assert 2800 <= stays(world, 1) <= 3500  # who does not pair has to prove itself as ever
    stranger(world, 1)
    world.run(1000)
    asks(world, 1)
    world.run(10)
    assert world.ble.passkeys == [(1, SHOW, world.keys.passkey())]
    # twenty exchanges take their time, and only then does a hub look for our service
    assert 9500 <= stays(world, 1) <= 10500


def test_time_for_pairing_ends_with_the_window_however_often_it_is_asked_for():
    world = World()
    world.run(1000)
    world.badge.act(PAIR)
    begun = Time.now
    stranger(world, 1)
    while 1 in world.hubs and Time.now - begun < 300000:
        asks(world, 1)
        world.run(500)
    assert 60000 <= Time.now - begun <= 62000, Time.now - begun
    assert not world.badge.uplink.pairing


def test_whoever_pairs_holds_up_neither_a_hub_nor_an_alarm():
    world, hub = ready()
    world.badge.act(PAIR)
    for connection in (2, 3, 4, 5):
        if connection not in world.hubs:
            stranger(world, connection)
        world.run(50)
        asks(world, connection)
        world.run(50)
    assert 1 in world.hubs  # the hub that has proved itself is never the one that goes
    assert len(world.hubs) <= 2  # one connection is always free
    world.badge.act(SOS)
    world.run(500)
    assert kinds.SOS in hub.kinds()
    assert world.felt()[:2] == [patterns.PRESSED, patterns.STATION_HAS_IT]


def test_a_stranger_who_evicts_the_bond_takes_no_trust_with_it():
    world, hub = ready()
    world.badge.radio.bonds.put(1, b"peer", b"secret of the stack")
    world.ble.handler(SET_SECRET, (1, b"peer", None))  # any attempt to pair deletes it, whoever makes it
    assert world.badge.radio.bonds.get(1, 0, b"peer") is None
    world.disconnect()
    stranger(world, 2)
    world.run(1000)
    assert world.hubs[2].kinds() == []
    hub = world.connect()
    world.run(1000)
    world.badge.act(SOS)
    world.run(500)
    assert kinds.SOS in hub.kinds() and patterns.STATION_HAS_IT in world.felt()
    assert world.hubs.get(2) is None or world.hubs[2].kinds() == []
