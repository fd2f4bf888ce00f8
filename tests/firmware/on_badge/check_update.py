"""An update over the cable: unsigned it writes nothing, cut off it changes nothing, and an SOS comes before it."""

import builtins
import gc
import random
import sys
from binascii import b2a_base64, crc32
from hashlib import sha256

import firmware.badge as package
from esp32 import Partition, Slot
from firmware.badge import main, retained, trace, trial
from firmware.badge import store as stores
from firmware.boards import emulator as board
from protocol import image, kinds, p256
from protocol.image import CHUNK, HEAD, Head

from check_power_cut import Cut, Flash, mounted
from world import Time, World

ROOM = 5 * 4096
SECRET = 0x1D1C1B1A19181716151413121110
ORDER = p256._N
OLD = b"the firmware that runs" * 50


def times(number):
    """number * G."""
    point = (1, 1, 0)
    for bit in range(255, -1, -1):
        point = p256._double(point)
        if number >> bit & 1:
            point = p256._add(point, p256._G)
    i = p256._inverse(point[2], p256._P)
    return point[0] * i * i % p256._P, point[1] * i * i * i % p256._P


PUBLIC = times(SECRET)
K = 0xC0FFEE0123456789
R = times(K)[0] % ORDER


def signed(head):
    digest = int.from_bytes(sha256(head).digest(), "big")
    s = p256._inverse(K, ORDER) * (digest + R * SECRET) % ORDER
    return head + R.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes(HEAD - image.SIGNATURE)


def firmware(length=9000):
    return bytes(i * 7 + i // 256 & 0xFF for i in range(length))


def update(what=None, **head):
    what = firmware() if what is None else what
    values = {"board": "emulator", "version": "0.2.0", "release": 2, "length": len(what), "trial": 600}
    values.update(head)
    return signed(Head(digest=sha256(what).digest(), **values).pack()) + what


def line(at, piece):
    return "update at %d %08x %s" % (at, crc32(piece, at), b2a_base64(piece).strip().decode())


class Restart(Exception):
    pass


class Bench:
    """A badge on duty, its cable, and slots of which the first one runs."""

    def __init__(self, spend=lambda: False, store=None, key=True):
        Partition.apps = (Slot(0, ROOM, spend, OLD), Slot(1, ROOM, spend))
        Partition.running = Slot.boot = 0
        Slot.valid = Slot.started = True
        self.world = World()
        self.parts = main.Machine(board)
        self.parts.badge = self.world.badge
        self.parts.store = store or self.world.store
        self.parts.retained = self.world.retained
        self.parts._begin_anew = self._restart
        self.key = key
        self.said = []
        trace.say = lambda name, text="": self.said.append((name, text))

    def _restart(self):
        raise Restart

    def trust(self):
        # loaded for a moment, every time anew: the key must be in it every time
        __import__("firmware.badge.update_key")
        public = "".join(["%064x" % half for half in PUBLIC]) if self.key else ""
        sys.modules["firmware.badge.update_key"].PUBLIC = public

    def tell(self, text):
        """A line on the cable; the last thing said."""
        self.trust()
        self.said.clear()
        self.parts.obey(text)
        return self.said[-1] if self.said else None

    def updating(self):
        desk = self.parts.desk
        return None if desk is None else desk.updating

    def step(self):
        console = self.parts.console
        self.trust()
        if console.step is not None and not console.step():
            console.step = None

    def settle(self, most=2000):
        """What the badge does by itself until it wants something; the last thing said."""
        while self.updating() is not None and self.updating()._work is not None and most:
            self.step()
            most -= 1
        return self.said[-1] if self.said else None

    def begin(self, data):
        return self.tell("update begin %d %08x" % (len(data), crc32(data[:HEAD])))

    def send(self, data, at):
        return self.tell(line(at, data[at : at + CHUNK])) or self.settle()

    def deliver(self, data, upto=None):
        """All of it, as the tool does; the badge's last word."""
        answer = self.begin(data)
        while answer is not None and answer[0] == "update" and answer[1].startswith("at="):
            at = int(answer[1][3:].split(" ")[0])
            if at >= len(data) or (upto is not None and at >= upto):
                return answer
            answer = self.send(data, at)
        return answer

    def intact(self):
        assert bytes(Partition.apps[0].data[: len(OLD)]) == OLD
        assert bytes(Partition.apps[0].data[len(OLD) :]) == b"\xff" * (ROOM - len(OLD))

    def untouched(self):
        self.intact()
        assert bytes(Partition.apps[1].data) == b"\xff" * ROOM
        assert Slot.boot == 0 and not self.parts.store.read(stores.UPDATE)

    def holds(self, data):
        assert bytes(Partition.apps[1].data[: len(data) - HEAD]) == data[HEAD:]


def restarts(bench, data):
    word = bench.deliver(data)
    assert word is not None and "state=restart" in word[1], word
    assert bench.parts.desk is None, "its memory is not free"
    return starts(bench)


def starts(bench, after_ms=300):
    """Whether the badge begins anew within that time."""
    Time.now += after_ms
    try:
        bench.parts.judge(Time.now)
    except Restart:
        return True
    return False


def refused(bench, data, word):
    answer = bench.deliver(data)
    assert answer is not None and answer[0] == "refused" and word in answer[1], (answer, word)
    assert bench.parts.desk is None and bench.parts.console.step is None


def test_a_good_update_is_in_its_slot_and_starts_on_trial():
    bench = Bench()
    data = update()
    assert restarts(bench, data)
    bench.intact()
    bench.holds(data)
    assert Slot.boot == 1 and not Slot.valid
    assert bench.world.retained.cause == retained.CAUSE_UPDATED
    record = bench.parts.store.read(stores.UPDATE)
    assert record[:3] == b"\x00\x02\x58" and b"ota_1" in record and bytes(record).decode().endswith("0.2.0")


def test_the_longest_and_the_shortest_that_fit():
    for length in (1, CHUNK, CHUNK + 1, 4096, ROOM):
        bench = Bench()
        data = update(firmware(length))
        assert restarts(bench, data), length
        bench.holds(data)


def test_every_flipped_byte_of_the_head_is_noticed_and_nothing_is_written():
    bench = Bench()
    data = update()
    for at in range(HEAD):
        bad = bytearray(data)
        bad[at] ^= 1 << at % 8
        refused(bench, bytes(bad), "")
    bench.untouched()


def test_what_is_not_for_this_badge_is_refused_in_words():
    bench = Bench()
    stranger = update()
    r = times(K + 1)[0] % ORDER
    stranger = stranger[: image.SIGNED] + r.to_bytes(32, "big") + stranger[image.SIGNED + 32 :]
    for data, word in (
        (stranger, "signature"),
        (update(board="badge_s3"), "badge_s3"),
        (update(release=0), "older"),
        (update(length=8999), "long"),
        (update() + b"x", "long"),
        (update(firmware(ROOM + 1)), "larger"),
        (b"MZ" + bytes(5000), "not_an_update"),
        (image.MAGIC[:3] + b"\x02" + bytes(5000), "format_2"),
        (bytes(HEAD), "larger"),
    ):
        refused(bench, data, word)
        bench.untouched()


def test_a_badge_without_key_slot_or_keys_of_its_own_says_so():
    bench = Bench(key=False)
    refused(bench, update(), "no_update_key")
    bench.untouched()
    bench = Bench()
    Partition.apps = Partition.apps[:1]
    refused(bench, update(), "no_second_slot")
    bench = Bench()
    Partition.apps = ()
    refused(bench, update(), "no_second_slot")
    bench = Bench()
    bench.parts.badge = None
    assert "not_provisioned" in bench.begin(update())[1]


def test_damaged_bytes_in_the_firmware_itself_are_noticed_at_the_end():
    bench = Bench()
    data = bytearray(update())
    data[HEAD + 5000] ^= 4
    refused(bench, bytes(data), "not_what_was_signed")
    bench.intact()
    assert Slot.boot == 0 and not bench.parts.store.read(stores.UPDATE)
    # and it begins from the start, not at the end
    assert bench.deliver(update(), upto=HEAD + 1)[1] == "at=%d" % (HEAD + CHUNK)


def test_flash_that_does_not_keep_what_was_written_is_noticed():
    bench = Bench()
    slot = Partition.apps[1]
    write = slot.writeblocks
    slot.writeblocks = lambda block, buffer, offset: write(block, bytes(len(buffer)) if block == 1 else buffer, offset)
    refused(bench, update(), "not_what_was_signed")

    def worn(block, buffer, offset):
        raise OSError(5)

    slot.writeblocks = worn
    refused(bench, update(), "the_flash_does_not_take_it")
    bench.intact()
    assert Slot.boot == 0


def test_a_bad_cable_loses_doubles_and_damages_and_all_of_it_arrives():
    bench = Bench()
    data = update()
    random.seed(5)
    at = 0
    answer = bench.begin(data)
    assert answer == ("update", "at=0")
    for _ in range(2000):
        what = random.randrange(8)
        text = line(at, data[at : at + CHUNK])
        if what == 0:
            text = text[: random.randrange(12, len(text))]
        elif what == 1:
            place = random.randrange(12, len(text))
            text = text[:place] + chr(33 + random.randrange(90)) + text[place + 1 :]
        elif what == 2 and at >= CHUNK:
            text = line(at - CHUNK, data[at - CHUNK : at])
        elif what == 3:
            text = line(at + CHUNK, data[at + CHUNK : at + 2 * CHUNK] or b"x")
        answer = bench.tell(text) or bench.settle()
        if answer is not None and "state=restart" in answer[1]:
            break
        while answer is None or "at=" not in answer[1]:
            answer = bench.begin(data)
        at = int(answer[1].split("at=")[1].split(" ")[0])
    assert starts(bench)
    assert Slot.boot == 1
    bench.holds(data)


def test_lines_of_anything_do_no_harm():
    bench = Bench()
    data = update()
    random.seed(9)
    words = ["begin", "at", "stop", "end", "-1", "0", "1", "128", "999999999999", "zz", "", "256", "ffffffff", "QUJD"]
    for i in range(2000):
        if i % 200 == 0:
            bench.deliver(data, upto=HEAD + 40 * random.randrange(200))
        if random.randrange(4):
            text = "update " + " ".join([random.choice(words) for _ in range(random.randrange(6))])
        else:
            piece = bytes(random.getrandbits(8) for _ in range(random.choice((0, 1, 127, CHUNK, 300))))
            at = random.choice((0, CHUNK, HEAD, HEAD + 4096, ROOM, -4096, 1 << 40))
            text = "update at %d %08x %s" % (at, crc32(piece, at & 0xFFFFFFFF), b2a_base64(piece).strip().decode())
        bench.tell(text)
        bench.settle()
    bench.intact()
    assert Slot.boot == 0 and not bench.parts.store.read(stores.UPDATE)


def test_random_files_write_nothing():
    bench = Bench()
    random.seed(3)
    good = update()
    for i in range(60):
        data = bytearray(random.getrandbits(8) for _ in range(HEAD + 1 + random.randrange(600)))
        if i % 2:
            data[: image.SIGNED] = good[: image.SIGNED]
        if i % 3 == 0:
            data[:4] = image.MAGIC
        refused(bench, bytes(data), "")
    bench.untouched()


def test_a_cable_that_was_pulled_out_is_taken_up_where_it_was():
    bench = Bench()
    data = update()
    upto = HEAD + 32 * CHUNK
    assert bench.deliver(data, upto=upto)[1] == "at=%d" % upto
    assert bench.begin(data)[1] == "at=%d" % upto
    # left alone, it gives its memory back, and remembers
    Time.now += 130000
    bench.step()
    assert bench.updating() is None
    before = bytes(Partition.apps[1].data)
    assert bench.begin(data)[1] == "at=0"
    bench.send(data, 0)
    assert bench.send(data, CHUNK)[1] == "at=%d" % upto
    assert bytes(Partition.apps[1].data) == before
    assert restarts(bench, data)
    bench.holds(data)


def test_another_file_begins_anew():
    bench = Bench()
    bench.deliver(update(), upto=4096)
    other = update(firmware(5000), version="0.3.0", release=3)
    assert bench.begin(other)[1] == "at=0"
    assert restarts(bench, other)
    bench.holds(other)


def test_all_memory_is_given_back_when_it_stops():
    bench = Bench()
    data = update()
    for round in range(7):
        if round == 2:
            gc.collect()
            before = gc.mem_alloc()
        bench.deliver(data, upto=4096)
        bench.tell("update stop")
        refused(bench, data[: HEAD - 70] + bytes(70) + data[HEAD:], "")
        bench.said.clear()
    bench.parts.unload("firmware.badge.update_key")
    gc.collect()
    assert gc.mem_alloc() - before < 512, gc.mem_alloc() - before
    lazily = ("firmware.badge.desk", "firmware.badge.update", "firmware.badge.release")
    loaded = [name for name in sys.modules if name in lazily]
    assert not loaded and not hasattr(package, "update") and not hasattr(package, "desk"), loaded


def test_another_line_on_the_cable_does_not_end_an_update():
    bench = Bench()
    data = update()
    bench.deliver(data, upto=4096)
    assert bench.tell("dance")[0] == "refused"
    assert bench.tell("state")[0] == "state"
    assert bench.tell('set {"visit_minutes": 0}')[0] == "refused"
    assert bench.updating() is not None
    assert restarts(bench, data)


def test_a_line_for_which_there_is_no_memory_is_answered_and_its_memory_is_given_back():
    bench = Bench()
    real = builtins.__import__

    def short(name, *args):
        if name == "protocol.ident":
            raise MemoryError
        return real(name, *args)

    bench.tell("state")  # whatever an earlier test left loaded is gone after this
    for line, name in (("state", "refused"), ("update stop", "update")):
        builtins.__import__ = short
        try:
            answer = bench.tell(line)
            assert answer[0] == name and "memory_is_short" in answer[1], answer
        finally:
            builtins.__import__ = real
        assert bench.parts.desk is None
        assert "firmware.badge.desk" not in sys.modules
        assert bench.tell("state")[0] == "state"


def almost(bench, data, upto):
    """Everything up to a byte; beyond the end: all of it, and the slot is being read."""
    bench.deliver(data, upto=min(upto, (len(data) - 1) // CHUNK * CHUNK))
    if upto >= len(data):
        at = (len(data) - 1) // CHUNK * CHUNK
        bench.tell(line(at, data[at:]))
        bench.step()


MOMENTS = (CHUNK, HEAD, 4096, len(update()))


def alarm_in_the_middle(upto):
    bench = Bench()
    hub = bench.world.connect()
    bench.world.run(1500)
    data = update()
    bench.parts.badge.alarms.make_room = bench.parts.shed
    almost(bench, data, upto)
    assert bench.updating() is not None
    bench.parts.act("sos")
    assert bench.updating() is None, "its memory is not free"
    assert bench.begin(data)[1] == "at=0 why=an_alarm_is_open"
    bench.world.run(2500)
    assert kinds.SOS in hub.kinds() and "station_has_it" in bench.world.felt(), (hub.kinds(), bench.world.felt())
    bench.world.says(kinds.CLOSED)
    bench.world.run(3000)
    assert bench.world.badge.alarms.current is None
    assert restarts(bench, data), upto
    bench.holds(data)


def test_an_alarm_has_the_badge_to_itself_and_the_update_goes_on_after_it():
    for upto in MOMENTS:
        alarm_in_the_middle(upto)


def test_an_alarm_that_no_hand_made_frees_the_memory_before_it_needs_any():
    bench = Bench()
    bench.parts.badge.alarms.make_room = bench.parts.shed
    almost(bench, update(), 4096)
    bench.parts.badge.alarms.open(kinds.LANYARD)
    assert bench.updating() is None


def test_a_finger_on_a_button_is_enough_to_free_the_memory():
    for upto in MOMENTS:
        bench = Bench()
        data = update()
        almost(bench, data, upto)
        bench.parts.recogniser.busy = lambda: True
        bench.step()
        assert bench.updating() is None
        assert bench.begin(data)[1] == "at=0 why=a_button_is_down"
        bench.parts.recogniser.busy = lambda: False
        assert restarts(bench, data)
        bench.holds(data)


def test_the_restart_waits_for_a_visit_to_end():
    for upto in (0,) + MOMENTS:
        bench = Bench()
        bench.world.connect()
        bench.world.run(1500)
        data = update()
        almost(bench, data, upto)
        bench.world.badge.visits.start()
        bench.step()
        assert bench.updating() is None and Slot.boot == 0
        assert "a_visit_is_running" in bench.begin(data)[1]
        bench.world.run(500)
        bench.world.badge.visits.end()
        bench.world.run(3000)
        assert restarts(bench, data)
        bench.holds(data)


def test_a_hand_that_comes_while_the_slot_is_chosen_is_seen_before_the_restart():
    bench = Bench()
    hub = bench.world.connect()
    bench.world.run(1500)
    pressed = []
    chosen = Slot.set_boot

    def slow(slot):  # the boot loader reads all of it first
        bench.parts.recogniser.busy = lambda: True
        pressed.append(slot)
        chosen(slot)

    Slot.set_boot = slow
    try:
        assert "state=restart" in bench.deliver(update())[1]
    finally:
        Slot.set_boot = chosen
    assert pressed and Slot.boot == 1
    assert not starts(bench, 5000)
    bench.parts.recogniser.busy = lambda: False
    bench.parts.act("sos")
    assert not starts(bench)
    bench.world.run(2500)
    assert kinds.SOS in hub.kinds() and not starts(bench)
    assert bench.begin(update())[1] == "at=0 why=it_restarts"
    bench.world.says(kinds.CLOSED)
    bench.world.run(3000)
    assert starts(bench)
    assert bench.world.retained.cause == retained.CAUSE_UPDATED


def test_firmware_on_trial_takes_no_update_for_the_other_slot_is_what_it_goes_back_to():
    bench = Bench()
    data = update()
    assert restarts(bench, data)
    Slot.start()
    bench.parts.restart_ms = 0
    bench.parts.trial = trial.begin(bench.parts, bench.parts.store.read(stores.UPDATE))
    assert bench.parts.trial is not None and Partition.running == 1
    for file in (data, update(firmware(5000), version="0.3.0", release=3)):
        assert bench.begin(file)[1] == "at=0 why=on_trial"
        assert bench.send(file, 0)[1] == "at=0 why=on_trial"
    bench.intact()
    assert Partition.running == 1 and bench.parts.trial is not None
    assert bench.tell("state")[0] == "state"  # of another line it gives back what it took, and the trial goes on
    assert bench.parts.trial.label == "ota_1"


def test_what_runs_already_is_not_put_into_the_other_slot_too():
    bench = Bench()
    refused(bench, update(version="0.1.0", release=1), "0.1.0_runs_already")
    bench.untouched()


def test_what_the_boot_loader_does_not_take_is_not_on_trial():
    bench = Bench()
    refused(bench, update(b"\xff" * 5000), "does_not_take_it_for_firmware")
    assert Slot.boot == 0 and not bench.parts.store.read(stores.UPDATE)


def test_power_may_be_cut_at_every_operation_on_the_flash():
    data = update(firmware(4400))
    flash = Flash()
    mounted(flash)
    base = bytes(flash.data)
    outcomes = {}
    at = 0
    whole = False
    while not whole:
        flash = Flash(base)
        store = mounted(flash)
        bench = Bench(flash._spend, store)
        flash.left = at
        try:
            whole = restarts(bench, data)
        except Cut:
            pass
        bench.intact()
        flash.dead = flash.past = True
        store = bench.parts.store = mounted(Flash(flash.data))
        assert store.folder, "the file system does not mount"
        Slot.start()
        bench.parts.retained.set_cause(0)
        record = store.read(stores.UPDATE)
        found = trial.begin(bench.parts, record) if record else None
        if Partition.running == 1:
            assert found is not None
            bench.holds(data)
        else:
            assert found is None and not whole
            assert (bench.parts.retained.cause == retained.CAUSE_WENT_BACK) == bool(record)
            assert not store.read(stores.UPDATE)
        key = (Partition.running, bool(record))
        outcomes[key] = outcomes.get(key, 0) + 1
        at += 1
    print("operations", at, outcomes)
    assert outcomes[(0, False)] > 30 and outcomes[(1, True)] >= 1
