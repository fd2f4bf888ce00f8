"""machine, as far as the badge's modules need it to be tried one by one."""

from time import ticks_ms

pins = {}
motor = []  # (ticks_ms, on)
retained = bytearray(b"\xa5" * 96)  # garbage, as after power-on
resets = []


class Pin:
    IN = 0
    OUT = 1
    PULL_UP = 2
    IRQ_FALLING = 1
    IRQ_RISING = 2

    def __init__(self, number, mode=0, pull=0, value=None):
        self.number = number
        self.handler = None
        if value is not None:
            pins[number] = value

    def value(self, level=None):
        if level is not None:
            pins[self.number] = level
        return pins.get(self.number, 1)

    def irq(self, handler=None, trigger=0):
        self.handler = handler
        pins[("irq", self.number)] = lambda: handler(self)


class I2C:
    failures = 0
    written = []  # (address, register, value, level of the enable pin)

    def __init__(self, id, scl=None, sda=None, freq=0):
        self.id = id

    def readfrom_mem_into(self, address, register, buffer):
        raise OSError(19)

    def writeto_mem(self, address, register, data):
        if I2C.failures:
            I2C.failures -= 1
            raise OSError(19)
        I2C.written.append((address, register, data[0], pins.get(10)))


class PWM:
    broken = False

    def __init__(self, pin, freq=0, duty_u16=0):
        if PWM.broken:
            raise OSError(5)

    def duty_u16(self, value):
        if PWM.broken:
            raise OSError(5)
        motor.append((ticks_ms(), value > 0))


class RTC:
    def memory(self, data=None):
        if data is None:
            return bytes(retained)
        for i in range(len(data)):  # as the real one: a copy, and no allocation
            retained[i] = data[i]


class ADC:
    microvolts = 2000000

    def __init__(self, pin):
        pass

    def read_uv(self):
        return ADC.microvolts


class WDT:
    fed = 0

    def __init__(self, timeout=0):
        pass

    def feed(self):
        WDT.fed += 1


class I2S:
    RX = 1
    MONO = 2

    def __init__(self, number, **settings):
        raise OSError(5)


def reset():
    resets.append(1)
    raise SystemExit


def reset_cause():
    return 1
