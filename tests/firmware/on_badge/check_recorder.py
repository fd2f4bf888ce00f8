"""Recorded sound: complete at the hub whatever the link does, live first, spooled on flash, given up by nobody."""

import os
import random

import vfs
from firmware.badge import audio, buffers, clock
from firmware.badge.audio import Recorder
from firmware.badge.spool import Spool, oldest, path_of
from protocol import link
from protocol.audio import open_audio

KEY, BOOT, ME = bytes(range(16)), b"\x00\x07abcd", 12
INCIDENT = BOOT + b"\x00\x01"


class Time:
    now = 5000


clock.ticks_ms = lambda: Time.now & clock.MASK
clock.ticks_diff = lambda a, b: a - b
clock._last = clock._total = Time.now


_ERASED = b"\xff" * 4096


class Memory:
    """A flash in memory."""

    data = bytearray(120 * 4096)
    view = memoryview(data)

    def __init__(self, blocks):
        for block in range(blocks):
            self.ioctl(6, block)
        self.blocks = blocks
        self.broken = False

    def readblocks(self, block, buffer, offset=0):
        if self.broken:
            raise OSError(5)
        at = block * 4096 + offset
        buffer[:] = self.view[at : at + len(buffer)]

    def writeblocks(self, block, buffer, offset=0):
        if self.broken:
            raise OSError(5)
        at = block * 4096 + offset
        self.data[at : at + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        if operation == 4:
            return self.blocks
        if operation == 5:
            return 4096
        if operation == 6:
            self.data[argument * 4096 : argument * 4096 + 4096] = _ERASED
        return 0


def flash(blocks=120):
    try:
        vfs.umount("/flash")
    except OSError:
        pass
    device = Memory(blocks)
    vfs.VfsLfs2.mkfs(device)
    vfs.mount(vfs.VfsLfs2(device), "/flash")
    return device


class Microphone:
    raw = buffers.raw
    on_block = None

    def open(self, on_block):
        self.on_block = on_block
        return True

    def close(self):
        self.on_block = None


class Hub:
    """Takes packets from the recorder: `rate` a tick, loses some, and acknowledges every so often."""

    def __init__(self, recorder, loss=0.0, rate=8):
        self.recorder = recorder
        self.packets = {}
        self.order = []
        self.loss = loss
        self.rate = rate
        self.acks = True
        self.ticks = 0
        self.first = {}

    def tick(self):
        self.ticks += 1
        for _ in range(self.rate):
            body = self.recorder.next(self)
            if body is None:
                break
            boot, capture, index, sealed = link.unpack_audio(body)
            if random.random() >= self.loss:
                self.packets.setdefault((boot, capture), {})[index] = sealed
                self.first.setdefault((boot, capture), self.ticks)
                self.order.append((capture, index))
        if self.acks and self.ticks % 10 == 0:
            for key in self.packets:
                # as the real hub: it waits a second for the first packet before it begins with a later one
                if 0 in self.packets[key] or self.ticks - self.first.get(key, self.ticks) >= 40:
                    self.acknowledge(key)

    def acknowledge(self, key):
        packets = self.packets[key]
        following = min(packets)
        while following in packets:
            following += 1
        beyond = 0
        for i in range(64):
            if following + 1 + i in packets:
                beyond |= 1 << i
        self.recorder.acknowledged(key[0], key[1], following, beyond)


class Scene:
    def __init__(self, folder="/flash"):
        self.microphone = Microphone()
        self.recorder = Recorder(self.microphone, folder)
        self.begun, self.ended = [], []
        self.recorder.on_begin = lambda track, reason, incident: self.begun.append(track.number)
        self.recorder.on_end = lambda track, reason, incident, lost: self.ended.append((track.number, track.made, lost))
        self.recorder.on_packets = lambda: None
        self.recorder.prepare(KEY, ME, BOOT, 0)
        self.hub = None

    def connect(self, hub):
        self.hub = hub
        self.recorder.session(hub)

    def run(self, seconds):
        for _ in range(int(seconds * 40)):
            Time.now += 25
            if self.microphone.on_block:
                for i in range(0, 1600, 97):
                    buffers.raw[i] = random.getrandbits(8)
                self.microphone.on_block(0)
            self.recorder.tick(Time.now)
            if self.hub:
                self.hub.tick()


def complete(packets, capture, count):
    """Every packet there, and each opens under its own number."""
    got = packets[(BOOT, capture)]
    assert sorted(got) == list(range(count)), (len(got), count)
    for index in range(0, count, 37):
        assert len(open_audio(KEY, ME, BOOT, capture, index, got[index])) == 203


def test_live_sound_arrives_in_order_and_is_forgotten():
    flash()
    scene = Scene()
    hub = Hub(scene.recorder)
    scene.connect(hub)
    scene.recorder.begin(1, INCIDENT)
    scene.run(5)
    scene.recorder.end()
    scene.run(1)
    complete(hub.packets, 1, 200)
    assert hub.order == [(1, i) for i in range(200)], hub.order[-20:]
    assert scene.recorder.waiting() == 0
    assert os.listdir("/flash") == []
    assert scene.ended == [(1, 200, 0)]


def test_acknowledgements_three_times_a_second_keep_the_sound_in_memory_and_repeat_nothing():
    """As seldom as a hub gives them (hub/audio.py), and late by what connection and hub take."""
    flash()
    scene = Scene()
    hub = Hub(scene.recorder)
    hub.acks = False
    scene.connect(hub)
    scene.recorder.begin(1, INCIDENT)
    scene.run(0.1)
    hub.acknowledge((BOOT, 1))  # the first ones at once
    told = []
    for tick in range(800):
        if tick % 13 == 0:
            told.append((Time.now + 100, max(hub.packets[(BOOT, 1)]) + 1))
        while told and told[0][0] <= Time.now:
            scene.recorder.acknowledged(BOOT, 1, told.pop(0)[1], 0)
        scene.run(0.025)
        assert os.listdir("/flash") == [], tick
        assert scene.recorder.waiting() < 30, scene.recorder.waiting()
    assert hub.order == [(1, i) for i in range(804)]
    assert scene.recorder.dropped == 0


def test_a_gap_of_ten_seconds_in_the_link_loses_nothing_and_live_comes_first_afterwards():
    flash()
    scene = Scene()
    first = Hub(scene.recorder)
    scene.connect(first)
    scene.recorder.begin(1, INCIDENT)
    scene.run(3)
    scene.connect(None)
    scene.run(10)
    assert os.listdir("/flash") != []
    second = Hub(scene.recorder, rate=3)
    second.packets = first.packets
    scene.connect(second)
    made = scene.recorder._track.made
    scene.run(0.25)
    live = [index for _, index in second.order if index >= made]
    assert len(live) >= 9  # live is live at once, while the backlog follows
    scene.run(12)
    scene.recorder.end()
    scene.run(2)
    complete(second.packets, 1, scene.ended[0][1])
    assert scene.ended[0][2] == 0
    assert os.listdir("/flash") == []


def test_a_hub_that_never_heard_the_beginning_gets_the_rest():
    flash()
    scene = Scene()
    first = Hub(scene.recorder)
    scene.connect(first)
    scene.recorder.begin(1, INCIDENT)
    scene.run(5)
    scene.connect(None)
    scene.run(5)
    other = Hub(scene.recorder)
    scene.connect(other)
    scene.run(5)
    scene.recorder.end()
    scene.run(2)
    together = dict(first.packets[(BOOT, 1)])
    together.update(other.packets[(BOOT, 1)])
    complete({(BOOT, 1): together}, 1, 600)
    assert scene.recorder.waiting() == 0


def test_lost_packets_are_sent_again_until_each_is_there():
    random.seed(11)
    flash()
    scene = Scene()
    hub = Hub(scene.recorder, loss=0.3)
    scene.connect(hub)
    scene.recorder.begin(1, INCIDENT)
    scene.run(10)
    scene.recorder.end()
    scene.run(20)
    complete(hub.packets, 1, 400)
    assert scene.recorder.waiting() == 0


def test_any_story_of_links_ends_with_everything_delivered():
    for seed in range(12):
        random.seed(seed)
        flash()
        scene = Scene()
        everything = {}
        captures = 0
        for _ in range(12):
            what = random.randrange(4)
            if what == 0 and not scene.recorder.running:
                scene.recorder.begin(1, INCIDENT[:7] + bytes((captures + 1,)))
                captures += 1
            elif what == 1:
                scene.recorder.end()
            elif what == 2:
                hub = Hub(scene.recorder, random.choice((0, 0, 0.2)), random.choice((2, 3, 8)))
                hub.packets = everything  # one hub, which keeps what it has stored
                scene.connect(hub)
            else:
                scene.connect(None)
            scene.run(random.random() * 6)
        scene.recorder.end()
        hub = Hub(scene.recorder, 0, 8)
        hub.packets = everything
        scene.connect(hub)
        scene.run(30)
        for number, made, lost in scene.ended:
            assert lost == 0
            if made:
                complete(everything, number, made)
        assert scene.recorder.waiting() == 0, seed
        assert os.listdir("/flash") == [], seed


def test_without_flash_and_link_the_loss_is_counted_and_the_capture_begins_anew_without_holes():
    scene = Scene(None)
    scene.recorder.begin(1, INCIDENT)
    scene.run(10)
    hub = Hub(scene.recorder)
    scene.connect(hub)
    scene.run(5)
    scene.recorder.end()
    scene.run(1)
    assert len(scene.begun) == 2
    lost = sum(entry[2] for entry in scene.ended)
    made = sum(entry[1] for entry in scene.ended)
    assert lost > 300 and made + lost == 600
    for number, count, _ in scene.ended:
        complete(hub.packets, number, count)


def test_a_full_flash_stops_the_spool_and_nothing_else():
    flash(24)
    scene = Scene()
    scene.recorder.begin(1, INCIDENT)
    scene.run(20)
    state = os.statvfs("/flash")
    assert state[0] * state[3] >= 30000  # settings and journal still find room
    hub = Hub(scene.recorder)
    scene.connect(hub)
    scene.run(10)
    scene.recorder.end()
    scene.run(2)
    for number, count, _ in scene.ended:
        if count:
            complete(hub.packets, number, count)


def test_what_was_spooled_is_found_after_a_reset_and_sent_under_its_old_boot():
    device = flash()
    scene = Scene()
    scene.recorder.begin(1, INCIDENT)
    scene.run(8)
    kept = scene.recorder._low
    again = Scene()
    again.recorder._boot = b"\x00\x08wxyz"
    assert again.recorder.waiting() == kept > 200
    hub = Hub(again.recorder)
    again.connect(hub)
    again.run(4)
    complete(hub.packets, 1, kept)
    assert again.recorder.waiting() == 0
    assert os.listdir("/flash") == []
    assert device


def test_however_many_captures_wait_few_are_in_memory_and_all_arrive():
    flash()
    scene = Scene()
    for _ in range(12):
        scene.recorder.begin(1, INCIDENT)
        scene.run(0.5)
        scene.recorder.end()
        assert len(scene.recorder._tracks) <= 3
    again = Scene()
    again.recorder._boot = b"\x00\x08wxyz"
    assert len(again.recorder._tracks) == 3
    hub = Hub(again.recorder)
    again.connect(hub)
    again.recorder.begin(1, INCIDENT)
    again.run(1)
    again.recorder.shed()  # memory was wanted in the middle of it
    assert [track.number for track in again.recorder._tracks] == [1]
    again.run(40)
    again.recorder.end()
    again.run(2)
    assert scene.ended == [(number, 20, 0) for number in range(1, 13)]
    for number, count, _ in scene.ended:
        complete(hub.packets, number, count)
    assert again.recorder.waiting() == 0
    assert os.listdir("/flash") == []


def test_runs_are_found_again_by_halving():
    flash()
    path = path_of("/flash", BOOT, 3)
    spool = Spool(path)
    ring = bytearray(buffers.PACKETS * buffers.SEALED_LENGTH)
    spool.keep(ring, 5, 25)
    spool.keep(ring, 25, 44)
    spool.keep(ring, 100, 119)
    spool.keep(ring, 300, 301)
    assert oldest("/flash", ()) == (BOOT, 3) and oldest("/flash", ((BOOT, 3),)) is None
    found = Spool(path)
    found.find()
    assert found.runs == spool.runs == [[5, 39, 0], [100, 19, 39], [300, 1, 58]]
    found.release(44)
    assert found.read(43) is None and found.read(100) is not None
    found.release(301)
    assert oldest("/flash", ()) is None


def test_a_hub_that_claims_what_it_was_not_sent_releases_nothing():
    flash()
    scene = Scene()
    scene.recorder.begin(1, INCIDENT)
    scene.run(5)
    silent = object()
    scene.recorder.session(silent)
    scene.recorder.acknowledged(BOOT, 1, 1000000, (1 << 64) - 1)
    assert scene.recorder.waiting() == 200


def test_a_microphone_that_ran_over_is_counted():
    flash()
    scene = Scene()
    hub = Hub(scene.recorder)
    scene.connect(hub)
    scene.recorder.begin(1, INCIDENT)
    scene.run(2)
    scene.microphone.on_block(7)
    scene.run(2)
    scene.recorder.end()
    scene.run(1)
    assert sum(entry[2] for entry in scene.ended) == 7
    assert len(scene.begun) == 2


def test_a_capture_ends_by_itself_at_its_time():
    flash()
    scene = Scene()
    scene.recorder.begin(11, INCIDENT, clock.now_ms() + 3000)
    scene.run(5)
    assert not scene.recorder.running
    assert 119 <= scene.ended[0][1] <= 121
    assert audio.benchmark()
