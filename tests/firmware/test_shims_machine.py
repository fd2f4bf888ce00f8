"""The `machine` and `esp32` shims behave like MicroPython's on an ESP32, and so does the interpreter around them."""

from __future__ import annotations

import array
import asyncio
import struct
import time

import pytest
from interpreter import MICROPYTHON, ROOT
from shim_bench import ERROR, GATES, WAIT, bench, output, run

from firmware.emulator.board import RTC_SIZE, WATCHDOG, WDT_FED

PIN = "from machine import Pin\nbutton = Pin(4, Pin.IN, Pin.PULL_UP)\n"


def test_a_pin_interrupt_is_soft_sees_the_level_and_chooses_its_edge() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.set_pin(4, 1)
            await b.start(
                GATES
                + PIN
                + """
print(button.value(), Pin(4) is button)
button.irq(lambda pin: print("edge", pin.value(), pin), Pin.IRQ_FALLING)
print("ready")
gate(0)
button.irq(None)
print("off")
gate(1)
print("end", button.value())
"""
            )
            await b.until("ready")
            b.pin(4, 0)
            await b.until("edge 0 Pin(4)")
            b.pin(4, 1)
            await b.handled()
            b.open_gate(0)
            await b.until("off")
            b.pin(4, 0)
            await b.handled()
            b.open_gate(1)
            assert await b.end() == ["1 True", "ready", "edge 0 Pin(4)", "off", "end 0"]

    run(story)


def test_pin_interrupts_are_lost_when_nobody_has_time_but_the_level_is_true() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.set_pin(4, 1)
            await b.start(
                GATES
                + PIN
                + """
import micropython
count = 0
def edge(pin):
    global count
    count += 1
button.irq(edge)
def busy(_):
    print("busy")
    gate(0)    # the scheduler is locked: interrupts queue up, and the queue is short
micropython.schedule(busy, None)
gate(1)
print(count < 40, count > 0, button.value())
"""
            )
            await b.until("busy")
            for i in range(40):
                b.pin(4, i % 2)
            await asyncio.sleep(0.05)  # they are late when nobody has had time for them for 10 ms
            b.open_gate(0)
            await b.handled()
            b.open_gate(1)
            assert (await b.end())[-1] == "True True 1"

    run(story)


def test_no_pin_interrupt_is_lost_that_had_the_queue_to_itself_however_long_it_waited() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.set_pin(4, 1)
            await b.start(
                WAIT
                + PIN
                + """
count = 0
def edge(pin):
    global count
    count += 1
    print("edge", count)
button.irq(edge)
print("ready")
while count < 20:
    wait(1)
"""
            )
            await b.until("ready")
            for i in range(20):  # as on a busy machine: each is seen 15 ms late, after the one before it
                await asyncio.sleep(0.02)
                b.pin(4, i % 2, ago_us=15_000)
                await b.until(f"edge {i + 1}")
            assert (await b.end())[-1] == "edge 20"

    run(story)


def test_an_edge_is_handled_with_its_own_time_and_level_however_late() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.set_pin(4, 1)
            await b.start(
                WAIT
                + PIN
                + """
edges = []
button.irq(lambda pin: edges.append((time.ticks_ms(), pin.value())))
print("ready")
while len(edges) < 2:
    wait(1)
print(150 <= time.ticks_diff(edges[1][0], edges[0][0]) < 390, [level for _, level in edges], button.value())
print(time.ticks_diff(time.ticks_ms(), edges[0][0]) >= 400)
"""
            )
            await b.until("ready")
            # as by a process that had no processor meanwhile: pressed for 150 ms, and it sees both at once
            b.pin(4, 0, ago_us=400_000)
            b.pin(4, 1, ago_us=250_000)
            assert await b.end() == ["ready", "True [0, 1] 1", "True"]

    run(story)


def test_the_motor_and_outputs_are_told_with_their_time() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                """
from machine import PWM, Pin
import time
motor = PWM(Pin(10), freq=20000)
before = time.ticks_us()
motor.duty_u16(40000)
motor.duty_u16(0)
print(motor.duty_u16(), motor.freq())
try:
    motor.duty_u16(70000)
except ValueError:
    print("too much")
Pin(3, Pin.OUT, value=1).off()
"""
            )
            assert await b.end() == ["0 20000", "too much"]
            changes = [struct.unpack(">BHQ", body) for body in await b.frames("M", 3)]
            assert [(pin, duty) for pin, duty, _ in changes] == [(10, 0), (10, 40000), (10, 0)]
            assert changes[0][2] <= changes[1][2] <= changes[2][2]
            assert [body[:2] for body in await b.frames("O", 2)] == [b"\x03\x01", b"\x03\x00"]

    run(story)


def test_the_converter_measures_the_battery() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.set_millivolts(1, 2075)
            await b.start(
                "from machine import ADC, Pin\nadc = ADC(Pin(1))\nprint(adc.read_uv(), adc.read_u16(), adc.read())"
            )
            assert await b.end() == ["2075000 43866 2741"]

    run(story)


I2S = """
from machine import I2S, Pin
def microphone(bits=16, ibuf=8000):
    return I2S(0, sck=Pin(11), ws=Pin(12), sd=Pin(13), mode=I2S.RX, bits=bits, format=I2S.MONO, rate=16000, ibuf=ibuf)
"""


def ramp(first: int, count: int) -> bytes:
    return array.array("h", [(first + i) % 30000 - 15000 for i in range(count)]).tobytes()


def test_sound_is_read_in_order_by_callback_and_by_blocking() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                WAIT
                + I2S
                + """
import struct
i2s = microphone()
done = 0
def full(which):
    global done
    done += which is i2s
i2s.irq(full)
a, c = bytearray(400), bytearray(400)
i2s.readinto(a)
print("reading")
while done < 1:
    wait(1)
i2s.readinto(c)
while done < 2:
    wait(1)
samples = struct.unpack("<400h", a + c)
print(samples[0], samples == tuple(range(samples[0], samples[0] + 400)))
i2s.deinit()
i2s = microphone(bits=32)
print("wide")
w = bytearray(400)
print(i2s.readinto(w))
x = struct.unpack("<100i", w)
print(x[0] >> 16 == -15000, all(v & 0xFFFF == 0 for v in x), x[99] - x[0] == 99 << 16)
"""
            )
            await b.until("reading")
            for first in range(0, 512, 256):
                b.board.put_samples(first, ramp(first, 256))
                b.link.send("s")
            await b.until("wide")  # a second capture hears its own first sample, whatever was captured before
            b.board.put_samples(0, ramp(0, 256))
            lines = await b.end()
            assert lines[1] == "-15000 True"
            assert lines[3] == "400"
            assert lines[4] == "True True True"
            assert await b.frames("G", 3) == [
                b"\x01" + struct.pack(">I", 16000),
                bytes(5),
                b"\x01" + struct.pack(">I", 16000),
            ]

    run(story)


def test_sound_that_nobody_reads_in_time_is_lost_in_silence() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                WAIT
                + I2S
                + """
import struct
i2s = microphone(ibuf=8000)   # 1000 samples of 8 bytes
print("overrun")
wait(100)
a = bytearray(200)
i2s.readinto(a)
print(struct.unpack("<h", a)[0])
"""
            )
            await b.until("overrun")
            b.board.put_samples(0, ramp(0, 3000))
            assert (await b.end())[-1] == str(2000 - 15000)

    run(story)


def test_broken_parts_raise_what_a_driver_would() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.break_parts(1 + 2 + 4)
            await b.start(
                I2S
                + ERROR
                + """
from machine import PWM
from esp32 import Partition, NVS
print(error(microphone), error(PWM, Pin(10)))
vfs = Partition.find(Partition.TYPE_DATA, label="vfs")[0]
n = NVS("x")
n.set_i32("k", 1)
print(error(vfs.readblocks, 0, bytearray(512)), error(vfs.writeblocks, 0, bytearray(512)), error(n.commit))
"""
            )
            lines = await b.end()
            assert lines[0].startswith("flash: cannot mount")
            assert lines[-2:] == ["5 5", "5 5 0"]  # keys and counters lie in a partition of their own

    run(story)


def test_retained_memory_survives_a_watchdog_reset_and_not_a_power_cut() -> None:
    async def story() -> None:
        async with bench() as b:
            script = """
            import machine
            memory = machine.RTC().memory
            print(machine.reset_cause(), memory() == b"alarm" * 30)
            memory(b"alarm" * 30)
            try:
                memory(bytes(2049))
            except ValueError:
                print("2048 is the limit")
            """
            await b.start(script)
            assert await b.end() == ["1 False", "2048 is the limit"]
            await b.start(script, cause=WATCHDOG)
            assert (await b.end())[0] == "3 True"
            b.board.lose_power(bytes((1, 2, 3)) + bytes(range(256)) * (RTC_SIZE // 256))
            await b.start("import machine\nprint(len(machine.RTC().memory()) > 0, machine.RTC().memory()[:5])")
            assert (await b.end())[0].startswith("True b'")  # garbage that passes for something
            b.board.lose_power(bytes(RTC_SIZE))
            await b.start(script)
            assert (await b.end())[0] == "1 False"

    run(story)


def test_the_watchdog_starves_when_it_is_not_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with bench() as b:
            at = [time.monotonic_ns() // 1000]
            await b.start(
                GATES
                + """
import machine
dog = machine.WDT(timeout=80)
print("running")
for i in range(2):
    gate(i)
    dog.feed()
    print("fed", i)
gate(2)
"""
            )

            def after_the_last_feeding(us: int) -> bool:
                (fed,) = struct.unpack_from("<Q", b.board.memory, WDT_FED)
                with monkeypatch.context() as clock:
                    clock.setattr("firmware.emulator.board.time.monotonic_ns", lambda: (fed + us) * 1000)
                    return b.board.watchdog_starved()

            for line, gate in (("running", 0), ("fed 0", 1), ("fed 1", None)):
                await b.until(line)
                (fed,) = struct.unpack_from("<Q", b.board.memory, WDT_FED)
                at += [fed, time.monotonic_ns() // 1000]
                assert at == sorted(at)  # it was fed now
                assert not after_the_last_feeding(79_000)
                assert after_the_last_feeding(81_000)
                if gate is not None:
                    b.open_gate(gate)
            await asyncio.sleep(0.1)
            assert b.board.watchdog_starved()
            b.board.stop_watchdog()
            assert not b.board.watchdog_starved()

    run(story)


def test_reset_and_deep_sleep_end_the_run_and_say_what_wakes() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start("import machine\nmachine.reset()\nprint('never')")
            assert await b.frames("X") == [b"\x01"]
            await b.kill()
            await b.start("import machine, esp32\nesp32.wake_on_ext0(machine.Pin(4), False)\nmachine.deepsleep(5000)")
            assert await b.frames("X") == [struct.pack(">BQQQQ", 2, 1 << 4, 0, 5000, 1 << 4)]
            assert "never" not in b.lines

    run(story)


def test_light_sleep_drops_the_radio() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start("import machine\nmachine.lightsleep(20)\nprint('awake')")
            assert await b.end() == ["awake"]
            assert await b.frames("Z") == [b""]

    run(story)


def test_ticks_begin_at_the_start_and_wrap_at_two_to_the_thirty() -> None:
    script = """
import time
half = 1 << 29
print(time.ticks_add((1 << 30) - 5, 10), time.ticks_diff(5, (1 << 30) - 5), time.ticks_diff((1 << 30) - 5, 5))
for delta in (half, -half):
    try:
        time.ticks_add(0, delta)
    except OverflowError:
        print("too far")
first = time.ticks_ms()
time.sleep_ms(60)
later = time.ticks_ms()
print(0 <= first < 1 << 30, later < first, 55 <= time.ticks_diff(later, first) < 60000, time.ticks_us() < 1 << 30)
"""

    async def story() -> None:
        async with bench() as b:
            # ten milliseconds and the interpreter's own start before the wrap: it may come before the first look
            b.board.start_ticks(time.monotonic_ns() // 1000 - ((1 << 30) - 150) * 1000)
            await b.start(script)
            lines = await b.end()
            assert lines[:3] == ["5 10 -10", "too far", "too far"]
            assert lines[3] in ("True True True True", "True False True True")
            b.board.start_ticks(time.monotonic_ns() // 1000)
            await b.start("import time\nprint(time.ticks_ms() < 20000)")
            assert await b.end() == ["True"]

    run(story)


def test_the_accelerometer_keeps_32_samples_and_feels_a_fall() -> None:
    script = """
import time, struct, _i2c
from machine import I2C, Pin
bus = I2C(0, scl=Pin(9), sda=Pin(8), freq=400000)
one = bytearray(1)
bus.readfrom_mem_into(0x19, 0x0F, one)
print(bus.scan(), one[0])
def level():
    bus.readfrom_mem_into(0x19, 0x2F, one)
    return one[0]
print(level())
bus.writeto_mem(0x19, 0x20, b"\x47")
time.sleep_ms(70)
print(level() & 31 >= 3)
class Clock:
    now = %d
    @staticmethod
    def ticks_us():
        return Clock.now
_i2c.utime = Clock
bus.writeto_mem(0x19, 0x20, b"\x47")
Clock.now += 210000
print(level())
Clock.now += 790000
print(level())
data = bytearray(6 * 32)
bus.readfrom_mem_into(0x19, 0xA8, data)
forces = [sum((axis >> 4) ** 2 for axis in struct.unpack_from("<hhh", data, at)) for at in range(0, 192, 6)]
print(min(forces) < 22500, max(forces) > 390625, len(forces))
try:
    bus.readfrom_mem_into(0x1A, 0, one)
except OSError as problem:
    print(problem.errno)
"""

    async def story() -> None:
        async with bench() as b:
            began = 10_000_000
            b.board.move(began + 500_000)  # for 0.4 s it falls, and then it hits the floor
            await b.start(script % began)
            assert await b.end() == ["[25] 51", "32", "True", "10", "95", "True True 32", "19"]

    run(story)


def test_the_board_has_a_number_and_a_clock() -> None:
    async def story() -> None:
        async with bench() as b:
            b.board.set_unique_id(b"\x24\x6f\x28\x01\x02\x03")
            await b.start("import machine\nprint(machine.unique_id(), machine.freq(), machine.wake_reason())")
            assert await b.end() == ["b'$o(\\x01\\x02\\x03' 160000000 0"]

    run(story)


def test_what_was_on_its_way_to_a_part_that_has_been_closed_since_is_dropped() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(GATES + "print('ready')\ngate(0)\nprint('end')\n")
            await b.until("ready")
            b.link.send("s")  # sound, and no microphone is open
            await b.handled()
            b.open_gate(0)
            assert await b.end() == ["ready", "end"]

    run(story)


def test_the_heap_ends_where_it_should() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                """
import gc
held = []
try:
    while True:
        held.append(bytearray(1000))
except MemoryError:
    n = len(held)
    held = None
    gc.collect()
    print(36 < n < 64)
""",
                heap="64K",
            )
            assert await b.end() == ["True"]

    run(story)


def test_what_micropython_lacks_is_not_there_either() -> None:
    async def story() -> None:
        names = ["typing", "enum", "dataclasses", "abc", "hmac", "__future__", "pathlib"]
        lines = await output(
            f"""
            for name in {names!r}:
                try:
                    __import__(name)
                    print("has", name)
                except ImportError:
                    pass
            import asyncio
            print(hasattr(asyncio, "Queue"), hasattr(asyncio, "timeout"), hasattr(asyncio, "ThreadSafeFlag"))
            try:
                open("/etc/hostname")
            except OSError:
                print("no file of the host")
            """
        )
        assert lines == ["False False True", "no file of the host"]

    run(story)


def test_a_timer_and_the_console_are_heard() -> None:
    async def story() -> None:
        async with bench() as b:
            await b.start(
                """
import asyncio, sys
from machine import Timer
fired = asyncio.ThreadSafeFlag()
timer = Timer(0, mode=Timer.ONE_SHOT, period=50, callback=lambda t: fired.set())
async def main():
    await fired.wait()
    print("fired")
    line = await asyncio.StreamReader(sys.stdin).readline()
    print("line", line)
asyncio.run(main())
"""
            )
            assert (await b.frames("T")) == [struct.pack(">BBI", 0, 0, 50)]
            b.link.send("t", b"\x00")
            await b.until("fired")
            assert b.child
            b.child.write(b"hello\n")
            assert (await b.end())[-1] == "line b'hello\\n'"

    run(story)


def test_no_garbage_is_collected_until_the_thread_that_stands_for_interrupts_runs() -> None:
    """A collection that the starting thread begins would free what the main thread is about to use: it crashed."""
    script = """
import sys, gc, time, _thread, uctypes
sys.path[:] = ["firmware/emulator/shims", ".frozen"]
import _emulator
seen = []
class Late:
    @staticmethod
    def start_new_thread(function, arguments):
        seen.append(gc.isenabled())
        def late(*arguments):
            time.sleep_ms(50)
            seen.append("runs")
            function(*arguments)
        _thread.start_new_thread(late, arguments)
_emulator._thread = Late
memory = bytearray(8192)
at = uctypes.addressof(memory)
_emulator.start(%d, at, 4096, at, 4096, at + 4096)
print(seen, gc.isenabled())
"""

    async def story() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        child = await asyncio.create_subprocess_exec(
            MICROPYTHON, "-c", script % port, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(10):
                printed, _ = await child.communicate()
        finally:
            server.close()
            if child.returncode is None:
                child.kill()
                await child.wait()
        assert printed.decode().strip() == "[False, 'runs'] True"

    run(story)
