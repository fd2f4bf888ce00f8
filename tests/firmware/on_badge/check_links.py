"""The sender and the connections: alarms before everything, nobody holds the last connection."""

from protocol import kinds, link

from world import World


def ready(**settings):
    world = World(settings)
    hub = world.connect()
    world.run(1500)
    return world, hub


def test_an_alarm_overtakes_everything_that_waits():
    world, hub = ready()
    world.ble.room = 0
    for _ in range(3):
        world.badge.uplink.raise_event(kinds.BATTERY)
    world.badge.uplink.raise_event(kinds.TEST)
    world.links.offer_status()
    world.badge.act("sos")
    world.ble.room = 1000
    world.run(30)
    order = [kind for kind in hub.order if kind not in (kinds.BOOTED,)]
    assert order.index(kinds.SOS) <= 1  # one frame may have been cut already and must be finished
    after = order[order.index(kinds.SOS) :]
    assert after.index(kinds.TEST) < after.index(kinds.BATTERY)


def test_a_value_that_found_no_room_is_offered_again_and_none_is_lost_or_doubled():
    world, hub = ready()
    counter = [0]

    def each():
        counter[0] += 1
        world.ble.room = 1 if counter[0] % 3 == 0 else 0

    for _ in range(12):
        world.badge.uplink.raise_event(kinds.TEST)
    hub.hold = hub.answer = True
    before = hub.session.counters["replayed"]
    world.run(1500, each)
    assert hub.kinds().count(kinds.TEST) == 12
    assert hub.session.counters["replayed"] == before
    assert hub.session.dropped == 0


def test_sound_leaves_room_for_an_alarm():
    world, hub = ready()
    world.badge.act("sos")
    world.run(300)
    world.badge.recorder.begin(kinds.SOS, world.badge.alarms.incident)
    world.links.next_audio = lambda peer: bytes(200)
    world.links.audio_waits = lambda peer: True
    world.ble.room = 10
    world.ble.sent = []
    for _ in range(40):
        pause = world.links.send_one()
        if pause:
            break
    assert len(world.ble.sent) <= 6, len(world.ble.sent)  # four of ten buffers stay for control
    world.badge.uplink.raise_event(kinds.SOS)
    assert world.ble.room < 4


def test_sound_that_found_no_room_waits_while_an_alarm_goes_first():
    world, hub = ready()
    world.links.next_audio = lambda peer: bytes(200)
    world.links.audio_waits = lambda peer: True
    world.ble.room = 1
    world.links.send_one()
    assert world.links.send_one() > 1  # no room: sound waits longer than control would
    world.badge.act("sos")
    world.links.next_audio = lambda peer: None
    world.links.audio_waits = lambda peer: False
    world.ble.room = 100
    world.ble.sent = []
    world.links.send_one()
    hub.order.clear()
    world.run(20)
    assert kinds.SOS in hub.kinds()


def test_a_peer_that_proves_nothing_is_gone_after_3_s_and_its_noise_is_counted():
    world, hub = ready()
    world.ble.handler(1, (9, 0, b"stranger"))
    for i in range(200):
        world.ble.value = bytes((i, 255 - i, 7)) * (i % 40)
        world.ble.handler(3, (9, 21))
        world.run(10)
    assert 9 in world.links.peers
    assert world.links.dropped() > 0
    world.run(1500)
    assert 9 not in world.links.peers
    assert 1 in world.links.peers


def test_strangers_never_hold_the_last_connection():
    world, hub = ready()
    world.ble.handler(1, (2, 0, b"stranger"))
    world.run(100)
    world.ble.handler(1, (3, 0, b"stranger"))
    world.run(100)
    assert len(world.links.peers) == 2
    assert 1 in world.links.peers and 2 not in world.links.peers  # the oldest without proof went
    hub3 = world.connect(4, hub_id=b"anothehu")
    world.run(1500)
    assert hub3.session.established and 3 not in world.links.peers


def test_two_hubs_get_every_event_and_one_of_them_the_sound():
    world, hub = ready()
    other = world.connect(2, hub_id=b"anothehu")
    world.run(1500)
    world.badge.act("sos")
    world.speak(1)
    assert kinds.SOS in hub.kinds() and kinds.SOS in other.kinds()
    assert bool(hub.sound) != bool(other.sound)


def test_sound_moves_to_the_hub_that_reaches_the_station():
    world, hub = ready()
    other = world.connect(2, hub_id=b"anothehu")
    world.run(1500)
    world.badge.act("sos")
    world.speak(0.5)
    hub.session.send(link.UPLINK, b"\0")
    world.speak(0.5)
    assert other.sound


def test_a_session_that_falls_silent_is_given_up():
    world, hub = ready()
    world.hubs.clear()  # it says nothing any more
    world.run(14000)
    assert 1 in world.links.peers
    world.run(2500)
    assert 1 not in world.links.peers


def test_advertising_goes_on_while_connected_and_changes_with_its_address():
    world, hub = ready()
    world.run(60000)
    intervals = [entry[0] for entry in world.ble.advertised]
    assert len(set(intervals)) == 1
    assert 8 <= len(world.ble.advertised) <= 40
    assert len({entry[1] for entry in world.ble.advertised}) == len(world.ble.advertised)
    assert world.ble.advertising


def test_the_cadence_of_beacons_is_the_same_in_an_alarm():
    counts = []
    for alarm in (False, True):
        world, hub = ready()
        if alarm:
            hub.answer = False
            world.badge.act("sos")
        at = len(world.ble.advertised)
        world.run(200000)
        counts.append(len(world.ble.advertised) - at)
    assert abs(counts[0] - counts[1]) < 20, counts


def test_a_radio_that_refuses_is_restarted_and_heard_again():
    world, hub = ready()
    real = world.ble.gap_advertise
    failing = [3]

    def refuse(*args, **named):
        if failing[0]:
            failing[0] -= 1
            raise OSError(5)
        return real(*args, **named)

    world.ble.gap_advertise = refuse
    world.run(30000)
    assert world.badge.radio.restarts >= 1
    del world.ble.gap_advertise
    world.run(70000)
    again = world.connect(5)
    world.run(1500)
    assert again.session.established


def test_a_stack_that_does_not_disconnect_is_restarted():
    world, hub = ready()
    world.ble.handler(1, (9, 0, b"stranger"))
    world.ble.gap_disconnect = lambda connection: None
    world.run(12000)
    assert world.badge.radio.restarts == 1
    del world.ble.gap_disconnect
