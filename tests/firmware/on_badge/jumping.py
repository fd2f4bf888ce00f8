"""A clock for asyncio and the motor that jumps to the next task that is due: exact, however slow this machine is."""

import asyncio.core as core
from time import ticks_diff, ticks_ms

import machine
from firmware.badge import haptic


class Time:
    now = ticks_ms() + 1000000  # what the C code of asyncio puts off by its own clock is due


def jump(queue, _dt):
    """Instead of waiting for the next task that is due: be there."""
    task = core._task_queue.peek()
    assert task, "nothing would ever happen again"
    Time.now += max(0, ticks_diff(task.ph_key, Time.now))


def busy(ms):
    """Whatever else the badge does takes so long, and no task comes round."""
    Time.now += ms


def begin():
    """From now on the clock jumps; for the life of this interpreter."""
    core.IOQueue.wait_io_event = jump
    core.ticks = haptic.ticks_ms = machine.ticks_ms = lambda: Time.now
