"""The motor: what is felt can be told apart, is true when it is felt, and a broken motor breaks nothing else."""

import asyncio
import time

import machine
from firmware.badge.haptic import Haptic, Queue
from protocol import patterns


def felt(log):
    """The patterns that pulses of the motor make: split where it rests."""
    out, pulses, on_at, off_at = [], [], 0, None
    for at, on in log:
        if on:
            if pulses and at - off_at > patterns.GAP_MS - 50:
                out.append(patterns.match(pulses))
                pulses = []
            elif pulses:
                pulses[-1] = (pulses[-1][0], at - off_at)
            on_at = at
        else:
            pulses.append((at - on_at, 0))
            off_at = at
    if pulses:
        out.append(patterns.match(pulses))
    return out


def play(*names):
    machine.motor.clear()
    haptic = Haptic(10, 20000, 65535)

    async def story():
        task = asyncio.create_task(haptic.run(lambda: None))
        for name in names:
            haptic.play(name)
        await asyncio.sleep_ms(sum(patterns.duration_ms(name) + patterns.GAP_MS for name in names) + 100)
        task.cancel()

    asyncio.run(story())
    return felt(machine.motor)


def test_patterns_are_felt_as_they_are_meant_and_apart_from_each_other():
    assert play(patterns.PRESSED, patterns.STATION_HAS_IT) == [patterns.PRESSED, patterns.STATION_HAS_IT]


def test_pressed_comes_before_what_waits():
    assert play(patterns.BATTERY_LOW, patterns.PRESSED) == [patterns.PRESSED, patterns.BATTERY_LOW]


def taken(*names):
    queue = Queue()
    for name in names:
        queue.add(name)
    out = []
    while True:
        name = queue.take()
        if name is None:
            return out
        out.append(name)


def test_what_is_no_longer_true_is_not_felt():
    assert taken(patterns.NOT_DELIVERED, patterns.STATION_HAS_IT) == [patterns.STATION_HAS_IT]
    assert taken(patterns.PROTECTED, patterns.NOT_PROTECTED) == [patterns.NOT_PROTECTED]
    assert taken(patterns.NOT_PROTECTED, patterns.PROTECTED) == [patterns.PROTECTED]
    assert taken(patterns.STATION_HAS_IT, patterns.OPERATOR_WITH_YOU) == [patterns.OPERATOR_WITH_YOU]


def test_every_pattern_has_its_rank():
    for name in patterns.TABLE:
        assert taken(name) == [name]


def test_a_pattern_waits_at_most_once():
    assert taken(patterns.CHECKED_IN, patterns.CHECKED_IN) == [patterns.CHECKED_IN]


def test_a_motor_that_cannot_be_had_or_breaks_later_stops_nothing():
    machine.PWM.broken = True
    try:
        assert play(patterns.PRESSED) == []
        assert Haptic(10, 20000, 65535).broken
    finally:
        machine.PWM.broken = False
    haptic = Haptic(10, 20000, 65535)
    machine.PWM.broken = True
    try:
        haptic._drive(True)
        assert haptic.broken
    finally:
        machine.PWM.broken = False


def test_the_driver_of_the_motor_is_set_up_once_with_its_enable_high_and_low_afterwards():
    from firmware.badge.motor_driver import prepare
    from firmware.boards import badge_s3

    machine.I2C.written.clear()
    machine.I2C.failures = 1
    assert prepare(badge_s3)
    assert machine.I2C.written == [row + (1,) for row in badge_s3.HAPTIC_I2C]
    assert machine.pins[badge_s3.HAPTIC] == 0


def test_a_driver_that_does_not_answer_stops_nothing():
    from firmware.badge.motor_driver import prepare
    from firmware.boards import badge_s3

    machine.I2C.failures = 1000
    assert not prepare(badge_s3)
    machine.I2C.failures = 0
    assert machine.pins[badge_s3.HAPTIC] == 0


def test_a_busy_badge_shortens_no_pulse():
    machine.motor.clear()
    haptic = Haptic(10, 20000, 65535)

    async def story():
        playing = asyncio.create_task(haptic.run(lambda: None))
        haptic.play(patterns.OPERATOR_WITH_YOU)
        for _ in range(60):
            time.sleep_ms(70)  # whatever else it does takes so long at a time
            await asyncio.sleep_ms(1)
        playing.cancel()

    asyncio.run(story())
    lengths = [machine.motor[i + 1][0] - machine.motor[i][0] for i in range(0, len(machine.motor), 2)]
    wanted = [on for on, _ in patterns.pulses(patterns.OPERATOR_WITH_YOU)]
    assert len(lengths) == len(wanted), machine.motor
    for i in range(len(wanted)):
        assert 0 <= lengths[i] - wanted[i] <= 80, lengths
    assert felt(machine.motor) == [patterns.OPERATOR_WITH_YOU]


def test_two_patterns_never_run_together_however_late_the_last_pulse_ends():
    machine.motor.clear()
    haptic = Haptic(10, 20000, 65535)

    async def story():
        playing = asyncio.create_task(haptic.run(lambda: None))
        haptic.play(patterns.PRESSED)
        haptic.play(patterns.STATION_HAS_IT)
        while not machine.motor:
            await asyncio.sleep_ms(1)
        time.sleep_ms(400)  # something holds the badge while the motor is on
        while not haptic.idle:
            await asyncio.sleep_ms(5)
        playing.cancel()

    asyncio.run(story())
    assert len(machine.motor) == 6, machine.motor
    assert machine.motor[1][0] - machine.motor[0][0] >= 400
    assert machine.motor[2][0] - machine.motor[1][0] >= patterns.GAP_MS, machine.motor
