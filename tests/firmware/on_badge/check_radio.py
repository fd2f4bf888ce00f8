"""The radio: nothing that comes over the air, and nothing that the stack does, kills its handler."""

import bluetooth
import micropython
from firmware.badge.bonds import Bonds
from firmware.badge.radio import CONNECTED, DISCONNECTED, HEARD, WRITTEN, Radio, RadioFailed

RX = 21


def radio():
    bluetooth.BLE().reset()
    made = Radio(Bonds())
    made.start()
    return made, bluetooth.BLE()


def test_handler_and_buffers_are_there_before_anybody_can_use_them():
    _, ble = radio()
    assert ble.order == ["irq", "active"]
    assert ble.settings[RX] == (512, True)


def test_what_was_written_is_copied_before_the_handler_returns():
    made, ble = radio()
    ble.value = b"one"
    ble.handler(WRITTEN, (7, RX))
    ble.value = b"two"
    ble.handler(WRITTEN, (7, RX))
    assert made.next() == (WRITTEN, 7, b"one")
    assert made.next() == (WRITTEN, 7, b"two")
    assert made.next() is None


def test_the_handler_survives_whatever_it_is_given():
    made, ble = radio()
    for event in range(40):
        for data in ((), (1,), (None, None, None), (1, 2, 3, 4, b""), "text", None):
            ble.handler(event, data)
    assert made.handler_faults > 0
    while made.next():
        pass
    ble.handler(CONNECTED, (3, 0, b"address"))
    assert made.next() == (CONNECTED, 3, None)


def test_writes_that_nobody_reads_never_push_out_a_connect():
    made, ble = radio()
    for _ in range(100):
        ble.value = b"x"
        ble.handler(WRITTEN, (1, RX))
    assert made.lost > 0
    ble.handler(DISCONNECTED, (1, 0, b""))
    last = None
    while True:
        found = made.next()
        if found is None:
            break
        last = found
    assert last == (DISCONNECTED, 1, None)


def test_only_advertisements_with_our_head_are_taken():
    made, ble = radio()
    ours = b"\x02\x01\x06\x1b\xff\xff\xff" + bytes(24)
    for data in (b"", b"\x1b", bytes(28), bytes(31), ours[:30], b"\x1b\xff\xff\xfe" + bytes(24)):
        ble.handler(HEARD, (1, b"addr", 0, -60, memoryview(data)))
    assert made.next() is None
    ble.handler(HEARD, (1, b"addr", 0, -60, memoryview(ours)))
    ble.handler(HEARD, (1, b"addr", 3, -60, memoryview(ours[3:])))
    assert made.next()[2] == ours
    assert made.next()[2] == ours[3:]


def test_the_address_changes_only_between_advertisements_also_while_listening():
    made, ble = radio()
    made.advertise(bytes(31))
    made.listen(True)
    made.advertise(b"\x01" * 31)  # the fake refuses a new address while on the air, as a controller does
    assert ble.scanning and ble.advertising
    assert len(ble.advertised) == 2


def test_a_radio_that_refuses_is_said():
    made, ble = radio()

    def refuse(*_args, **_settings):
        raise OSError(5)

    ble.gap_advertise = refuse
    try:
        made.advertise(bytes(31))
        raise AssertionError
    except RadioFailed:
        pass
    del ble.gap_advertise


def test_full_buffers_and_lost_peers_are_told_apart():
    made, ble = radio()
    assert made.notify(1, b"x") is True
    ble.refuse = 12
    assert made.notify(1, b"x") is False
    ble.refuse = 128
    assert made.notify(1, b"x") is None


def test_noting_in_the_handler_allocates_nothing_of_its_own():
    made, ble = radio()
    data = (3, 0, b"address")
    micropython.heap_lock()
    try:
        ble.handler(CONNECTED, data)
    finally:
        micropython.heap_unlock()
    assert made.next()[0] == CONNECTED


def test_bonds_are_kept_and_given_back():
    bonds = Bonds()
    assert bonds.put(1, b"peer", b"secret" * 20)
    assert bonds.put(2, b"own", b"key")
    again = Bonds(bonds.pack())
    assert again.get(1, 0, b"peer") == b"secret" * 20
    assert again.get(2, 0, None) == b"key"
    assert again.get(2, 1, None) is None
    assert again.put(1, b"peer", None)
    assert again.get(1, 0, b"peer") is None
    for cut in range(len(bonds.pack())):
        Bonds(bonds.pack()[:cut])  # a damaged record is no exception
