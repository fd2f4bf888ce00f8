"""The `bluetooth` shim behaves like MicroPython's on an ESP32, its traps included (docs of the module; port)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from shim_bench import ADDRESS, ERROR, GATES, RADIO, WAIT, bench, output


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story())


def test_nothing_works_before_the_radio_is_on() -> None:
    async def story() -> None:
        lines = await output(
            """
            import bluetooth
            ble = bluetooth.BLE()
            print(ble is bluetooth.BLE(), ble.active())
            for call in (lambda: ble.gap_advertise(100000), lambda: ble.config("mac"),
                         lambda: ble.gatts_notify(1, 16, b"x"), lambda: ble.gap_disconnect(1)):
                try:
                    call()
                except OSError as problem:
                    print(problem.errno)
            """
        )
        assert lines == ["True False", "19", "19", "19", "19"]

    run(story)


def test_what_the_badge_cannot_see_is_not_there() -> None:
    async def story() -> None:
        lines = await output(
            """
            import bluetooth
            ble = bluetooth.BLE()
            print([name for name in ("l2cap_listen", "l2cap_connect", "gap_set_phy", "gap_set_data_length",
                                     "gap_update_connection", "gatts_subscribers") if hasattr(ble, name)])
            """
        )
        assert lines == ["[]"]

    run(story)


def test_an_exception_in_the_handler_removes_it_silently() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO + GATES + 'def bad(event, data):\n    raise ValueError("x")\nble.irq(bad)\nprint("ready")\n'
                'gate(0)\nprint("and on")\nble.irq(irq)\nprint("again")\ngate(1)\n'
            )
            await b.until("ready")
            b.connect(1)
            await b.until("Unhandled exception in IRQ callback handler")
            b.connect(2)
            await b.handled()
            b.open_gate(0)
            await b.until("again")
            assert "irq 1" not in b.lines
            b.connect(3)
            await b.until("irq 1")

    run(story)


def test_memoryviews_die_when_the_handler_returns() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + GATES
                + """
def irq(event, data):
    global kept
    kept = data[2]
    print("inside", bytes(data[2]) == b"\\xc0\\xff\\xee\\x12\\x34\\x56")
ble.irq(irq)
print("ready")
gate(0)
print("after", bytes(kept) == b"\\xc0\\xff\\xee\\x12\\x34\\x56")
"""
            )
            await b.until("ready")
            b.connect()
            await b.handled()
            b.open_gate(0)
            assert (await b.end())[-2:] == ["inside True", "after False"]

    run(story)


def test_attributes_hold_20_bytes_until_they_are_given_more() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + GATES
                + """
ble.irq(lambda event, data: print(event, len(ble.gatts_read(data[1]))) if event == 3 else None)
print("ready")
gate(0)
ble.gatts_set_buffer(rx, 100)
print("larger")
gate(1)
"""
            )
            await b.until("ready")
            b.connect()
            b.write(bytes(19))
            b.write(bytes(21))
            await b.handled()
            b.open_gate(0)
            await b.until("larger")
            b.write(bytes(99))
            b.write(bytes(200))
            await b.handled()
            b.open_gate(1)
            assert [line for line in await b.end() if line.startswith("3")] == ["3 19", "3 20", "3 99", "3 100"]

    run(story)


def test_who_reads_late_finds_the_last_write_and_with_append_all_of_them() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
count = 0
def irq(event, data):
    global count
    count += event == 3
ble.irq(irq)
for append in (False, True):
    ble.gatts_set_buffer(rx, 100, append)
    count = 0
    print("write", append)
    while count < 3:
        wait(1)
    print(ble.gatts_read(rx), ble.gatts_read(rx))
"""
            )
            for append in (False, True):
                await b.until(f"write {append}")
                for value in (b"one", b"two", b"three"):
                    b.write(value)
            lines = await b.end()
            assert "b'three' b'three'" in lines  # reading leaves it
            assert "b'onetwothree' b''" in lines  # reading empties it

    run(story)


def test_each_write_is_told_before_the_next_is_taken() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
got = []
ble.irq(lambda event, data: got.append(ble.gatts_read(rx)) if event == 3 else None)
print("ready")
while len(got) < 50:
    wait(1)
print([value[0] for value in got] == list(range(50)))
"""
            )
            await b.until("ready")
            for i in range(50):
                b.write(bytes((i,)) * 20)
            assert (await b.end())[-1] == "True"

    run(story)


def test_notifications_run_out_and_come_back_only_as_the_link_drains() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
while not seen:
    wait(1)
accepted = refused = 0
for i in range(400):
    problem = error(ble.gatts_notify, 1, tx, bytes(244))
    accepted += problem == 0
    refused += problem == ENOMEM
print(accepted, refused)
sent = 10
while sent < 60:
    while error(ble.gatts_notify, 1, tx, bytes((sent,)) * 20):
        wait(1)
    sent += 1
print("all")
"""
            )
            await b.until_on()
            b.connect()
            b.event(21, struct.pack(">HH", 1, 247))
            await b.until("10 390")
            assert len(await b.frames("N", 10)) == 10
            for i in range(25):  # as a link: nothing comes back but what was taken
                await b.frames("N", 10 + 2 * i)
                b.link.send("n", b"\x02")
            await b.until("all")
            values = [body[4] for body in (await b.frames("N", 60))[10:]]
            assert values == list(range(10, 60))

    run(story)


def test_the_mtu_is_23_until_it_was_negotiated_and_cuts_without_a_word() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + GATES
                + """
def irq(event, data):
    if event in (1, 21):
        ble.gatts_notify(1, tx, bytes(300))
        print(event, data[-1] if event == 21 else "")
ble.irq(irq)
print("ready")
gate(0)
print(ble.config("mtu"), error(ble.gatts_notify, 7, tx, b"") == ENOTCONN)
"""
            )
            await b.until("ready")
            b.connect()
            b.event(21, struct.pack(">HH", 1, 247))
            assert [len(body) - 4 for body in await b.frames("N", 2)] == [20, 244]
            await b.handled()
            b.open_gate(0)
            assert (await b.end())[-2:] == ["21 247", "256 True"]

    run(story)


def test_advertising_is_31_bytes_ends_with_a_connection_and_may_be_started_again() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
print(error(ble.gap_advertise, 100000, bytes(32)) == EINVAL)
ble.gap_advertise(100000, bytes(31))
print("advertising")
while len(seen) < 1:
    wait(1)
ble.gap_advertise(100000)
while len(seen) < 2:
    wait(1)
ble.gap_advertise(100000)
while len(seen) < 3:
    wait(1)
print(error(ble.gap_advertise, 100000) == ENOMEM, error(ble.gap_advertise, 100000, connectable=False))
ble.gap_advertise(None)
"""
            )
            for connection in (1, 2, 3):
                await b.frames("V", connection)
                b.connect(connection)
            lines = await b.end()
            assert lines[0] == "True"
            assert lines[-1] == "True 0"
            starts = [body for body in await b.frames("V", 5) if body != bytes(4)]
            assert [body[:5] for body in starts] == [struct.pack(">IB", 100000, on) for on in (1, 1, 1, 0)]
            assert all(body[6:] == bytes(31) for body in starts)  # data stays until it is changed

    run(story)


def test_a_new_address_mode_is_a_new_address_and_refused_while_one_is_in_use() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + """
print(ble.config("mac") == (1, b"\\xc0\\xff\\xee\\x12\\x34\\x56"), ble.config("addr_mode"))
ble.gap_advertise(100000, b"")
print(error(ble.config, addr_mode=1) == EALREADY)
ble.gap_advertise(None)
ble.gap_scan(0, 30000, 30000)
print(error(ble.config, addr_mode=1) == EALREADY)
ble.gap_scan(None)
print(error(ble.config, addr_mode=1), error(ble.config, addr_mode=3))
try:
    ble.config(addr_mode=4)
except ValueError:
    print("4 is none")
"""
            )
            assert (await b.end())[-5:] == ["True 1", "True", "True", "0 0", "4 is none"]

    run(story)


def test_events_have_the_numbers_and_tuples_of_the_documentation() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + GATES
                + """
def irq(event, data):
    print(event, tuple(bytes(x) if isinstance(x, memoryview) else x for x in data))
    if event == 29:
        return b"secret"
    if event == 31:
        ble.gap_passkey(data[0], data[1], 123456)
ble.irq(irq)
print("ready")
gate(0)
"""
            )
            await b.until("ready")
            b.connect(1)
            b.write(b"x")
            b.link.send("q", struct.pack(">HHH", 5, 1, 18))
            b.event(5, struct.pack(">BBb", 1, 0, -52) + ADDRESS + b"\x02\x01\x06")
            b.event(6)
            b.event(20, struct.pack(">HHB", 1, 18, 0))
            b.event(21, struct.pack(">HH", 1, 185))
            b.event(27, struct.pack(">HHHHH", 1, 24, 0, 400, 0))
            b.event(28, struct.pack(">HBBBB", 1, 1, 1, 0, 16))
            b.link.send("g", struct.pack(">HBB", 6, 2, 0) + ADDRESS)
            b.link.send("k", bytes((2, 6)) + ADDRESS + b"value")
            b.link.send("k", bytes((2, 6)) + ADDRESS)
            b.event(31, struct.pack(">HBI", 1, 3, 0))
            b.event(2, struct.pack(">HB", 1, 1) + ADDRESS)
            await b.handled()
            b.open_gate(0)
            lines = (await b.end())[1:]
            address = repr(ADDRESS)
            assert lines == [
                f"1 (1, 1, {address})",
                "3 (1, 16)",
                "4 (1, 18)",
                f"5 (1, {address}, 0, -52, b'\\x02\\x01\\x06')",
                "6 ()",
                "20 (1, 18, 0)",
                "21 (1, 185)",
                "27 (1, 24, 0, 400, 0)",
                "28 (1, True, True, False, 16)",
                f"29 (2, 0, {address})",
                f"30 (2, {address}, b'value')",
                f"30 (2, {address}, None)",
                "31 (1, 3, 0)",
                f"2 (1, 1, {address})",
            ]
            assert await b.frames("K") == [struct.pack(">HBI", 1, 3, 123456)]
            assert (await b.frames("R", 2))[1] == struct.pack(">HB", 6, 0) + b"secret"

    run(story)


def test_an_indication_is_one_at_a_time() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
while not seen:
    wait(1)
print(error(ble.gatts_indicate, 1, tx, b"a"), error(ble.gatts_indicate, 1, tx, b"b") == EALREADY)
while len(seen) < 2:
    wait(1)
print(error(ble.gatts_indicate, 1, tx, b"c"))
"""
            )
            await b.until_on()
            b.connect()
            await b.until("0 True")
            b.event(20, struct.pack(">HHB", 1, 18, 0))
            assert (await b.end())[-1] == "0"

    run(story)


def test_handlers_run_between_bytecodes_with_the_scheduler_locked() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
import micropython
order = []
def irq(event, data):
    micropython.schedule(lambda _: order.append("scheduled"), None)
    for i in range(1000):
        pass
    order.append("handler")
ble.irq(irq)
print("ready")
while len(order) < 2:   # no call, no sleep: the handler comes in between
    pass
print(order)
"""
            )
            await b.until("ready")
            b.connect()
            assert (await b.end())[-1] == "['handler', 'scheduled']"

    run(story)


def test_a_frame_is_sent_whole_though_handlers_send_in_between() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
import _emulator, machine
pressed = 0
def press(pin):
    global pressed
    pressed += 1
    ble.gatts_write(tx, b"pressed")
machine.Pin(4).irq(press)
def slow(part):   # before a part that is slow there is time for handlers
    if part == b"slow":
        print("asked", turn)
        while len(seen) <= turn or pressed <= turn:
            wait(1)
    return len(part)
_emulator.len = slow
ble.gatts_set_buffer(tx, 20)
for turn in range(3):
    _emulator.send(87, b"\\0", b"\\x10", b"slow")
    try:
        _emulator.send(87, bytes(2000))
    except ValueError:
        print("too long")
    _emulator.send(87, b"\\0\\x10", b"whole")
"""
            )
            for turn in range(3):
                await b.until(f"asked {turn}")
                b.link.send("q", struct.pack(">HHH", 7, 1, 18))
                b.pin(4, 0)
            lines = await b.end()
            assert lines.count("too long") == 3
            assert await b.frames("W", 9) == [b"\0\x12pressed", b"\0\x10slow", b"\0\x10whole"] * 3
            assert [body[:3] for body in await b.frames("R", 3)] == [b"\0\x07\0"] * 3

    run(story)


def test_no_frame_is_spoilt_by_the_handlers_of_those_that_come() -> None:
    """The same as it happens: a badge that sends and sends, and a companion that asks and asks."""

    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + """
print("ready")
i = 0
while len(seen) < 1000:
    ble.gatts_write(rx, b"%20d" % i)
    i += 1
print("sent", i)
"""
            )
            await b.until("ready")
            for i in range(1000):
                b.link.send("q", struct.pack(">HHH", i, 1, 18))
                await asyncio.sleep(0)
            lines = await b.end(60)
            count = int(lines[-1].split()[1])
            assert await b.frames("W", count) == [b"\0\x10" + b"%20d" % i for i in range(count)]
            assert [body[:2] for body in await b.frames("R", 1000)] == [struct.pack(">H", i) for i in range(1000)]

    run(story)


def test_what_the_radio_could_not_do_raises() -> None:
    async def story() -> None:
        async with bench() as b:
            for kind in "ACS":
                b.link.handlers[kind] = lambda _body: b.link.send("r")
            await b.start(
                RADIO.partition("ble.irq")[0]
                + ERROR
                + """
print(error(ble.active, True), ble.active(), error(ble.config, addr_mode=1), ble.active(False))
"""
            )
            assert (await b.end())[-1] == "5 False 5 False"

    run(story)


def test_switching_off_forgets_services_connections_and_advertising() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                RADIO
                + WAIT
                + """
while not seen:
    wait(1)
ble.active(False)
ble.active(True)
print(error(ble.gatts_read, rx) == EINVAL, error(ble.gatts_notify, 1, tx, b"") == EINVAL, ble.gap_disconnect(1))
"""
            )
            await b.until_on()
            b.connect()
            assert (await b.end())[-1] == "True True False"
            assert [body[0] for body in await b.frames("A", 3)] == [1, 0, 1]

    run(story)
