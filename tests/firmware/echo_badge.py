# ruff: noqa: UP031, RUF006
# A small firmware for tests of the emulator: echoes what is written to it, moves its motor, says what it feels.
# Runs on MicroPython with the shims.

import asyncio
import sys

import bluetooth
import machine

UUID = bluetooth.UUID
ble = bluetooth.BLE()
flag = asyncio.ThreadSafeFlag()
secrets = {}
written = []


def irq(event, data):
    if event == 1:
        print("@connected conn=%d" % data[0])
        flag.set()
    elif event == 2:
        print("@disconnected conn=%d" % data[0])
    elif event == 3:
        written.append((data[0], ble.gatts_read(data[1])))
        flag.set()
    elif event == 21:
        print("@mtu mtu=%d" % data[1])
    elif event == 28:
        print("@encrypted on=%d authenticated=%d bonded=%d" % data[1:4])
    elif event == 29:
        return secrets.get(bytes(data[2]) if data[2] else None)
    elif event == 30:
        if data[2] is None:
            secrets.pop(bytes(data[1]), None)
            print("@forgotten")
        else:
            secrets[bytes(data[1])] = bytes(data[2])
            print("@kept bytes=%d" % len(data[2]))
        return True
    elif event == 31:
        ble.gap_passkey(data[0], data[1], 123456)


def advertise():
    ble.gap_advertise(None)
    ble.config(addr_mode=1)
    ble.gap_advertise(50000, b"\x02\x01\x06\x1b\xff\xff\xff" + bytes(24))


async def echo():
    while True:
        await flag.wait()
        while written:
            connection, value = written.pop(0)
            while True:
                try:
                    ble.gatts_notify(connection, tx, value)
                    break
                except OSError as problem:
                    if problem.errno != 12:
                        break
                    await asyncio.sleep_ms(1)
        advertise()


async def console():
    reader = asyncio.StreamReader(sys.stdin)
    while True:
        line = (await reader.readline()).decode().strip()
        if line.startswith("provision "):
            print("@provisioned badge=7" if "root" in line else "@refused why=no_root")
        elif line == "reset":
            machine.reset()
        elif line == "stop":
            sys.exit(3)
        elif line == "hang":
            machine.WDT(timeout=200)
            while True:
                pass
        elif line == "sleep":
            import esp32

            esp32.wake_on_ext0(machine.Pin(4), esp32.WAKEUP_ALL_LOW)
            machine.deepsleep()
        elif line == "nap":
            machine.deepsleep(300)


async def main():
    memory = machine.RTC().memory
    kept = memory() == b"alarm"
    memory(b"alarm")
    advertise()
    asyncio.create_task(echo())
    button = machine.Pin(4, machine.Pin.IN, machine.Pin.PULL_UP)
    motor = machine.PWM(machine.Pin(10), freq=20000)

    def edge(pin):
        print("@pin level=%d" % pin.value())

    button.irq(edge)
    asyncio.create_task(console())
    print("@booted cause=%d kept=%d boot=1" % (machine.reset_cause(), kept))
    while True:
        if not button.value():
            motor.duty_u16(65535)
            await asyncio.sleep_ms(90)
            motor.duty_u16(0)
            while not button.value():
                await asyncio.sleep_ms(5)
        await asyncio.sleep_ms(5)


ble.irq(irq)
ble.config(mtu=247, bond=True, mitm=True, le_secure=True, io=0)
ble.active(True)
((rx, tx, guarded),) = ble.gatts_register_services(
    (
        (
            UUID("7a0c0001-5e2f-4b0e-9a54-c1d0b7e6f100"),
            (
                (
                    UUID("7a0c0002-5e2f-4b0e-9a54-c1d0b7e6f100"),
                    bluetooth.FLAG_WRITE | bluetooth.FLAG_WRITE_NO_RESPONSE,
                ),
                (UUID("7a0c0003-5e2f-4b0e-9a54-c1d0b7e6f100"), bluetooth.FLAG_NOTIFY),
                (UUID(0x2A3D), bluetooth.FLAG_READ | 0x0400),
            ),
        ),
    )
)
ble.gatts_set_buffer(rx, 512)
ble.gatts_write(guarded, b"guarded")
asyncio.run(main())
