"""Keeps the tasks alive, and the watchdog fed for exactly as long as they are.

The watchdog cannot be stopped once started. It is fed only when every task has come round lately; one that hangs, or
cannot be started again, ends in a reset, after which an open alarm is resumed from retained memory. Tasks that wait
for something are roused every _ROUSE_MS, so that waiting is not mistaken for hanging.
"""

import asyncio
import gc
import sys

from machine import WDT
from micropython import const

from . import trace
from .clock import now_ms

if False:  # for type checkers only: MicroPython has no typing module
    from typing import Any, Callable, Coroutine

_ROUSE_MS = const(1000)
_LIMIT_MS = const(6000)  # a flash that erases, a heap that is collected and a slow hub together stay below a second
_WATCHDOG_MS = const(10000)
_HEAP_MS = const(60000)
_RESTARTS = const(5)  # of one task in
_RESTARTS_MS = const(60000)


class Task:
    """One subject's task."""

    def __init__(
        self, name: str, number: int, start: "Callable[[Callable[[], None]], Coroutine[Any, Any, None]]"
    ) -> None:
        self.name = name
        self.number = number  # from 1, in the order in which they were given: protocol.restart names them
        self.start = start
        self.seen_ms = 0
        self.restarts: "list[int]" = []

    def alive(self) -> None:
        """Called by the task whenever it comes round."""
        self.seen_ms = now_ms()


class Supervisor:
    """All tasks. `on_hopeless(name, number)` is called when one cannot be kept running; it does not come back.
    `on_stuck(number)` hears every second which one has not come round, 0 for none."""

    def __init__(
        self,
        rouse: "Callable[[], None]",
        on_hopeless: "Callable[[str, int], None]",
        on_stuck: "Callable[[int], None]",
    ) -> None:
        self._rouse = rouse
        self._on_hopeless = on_hopeless
        self._on_stuck = on_stuck
        self._tasks: "list[Task]" = []
        self._watchdog: "WDT | None" = None
        self.on_heap: "Callable[[int], None] | None" = None
        self.on_no_memory: "Callable[[], None] | None" = None  # lets go of what is least missed
        self.lowest_heap = gc.mem_free()

    def add(self, name: str, start: "Callable[[Callable[[], None]], Coroutine[Any, Any, None]]") -> None:
        """A task; `start(alive)` gives its coroutine, again after an exception."""
        self._tasks.append(Task(name, len(self._tasks) + 1, start))

    async def _keep(self, task: Task) -> None:
        while True:
            task.alive()
            try:
                await task.start(task.alive)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if isinstance(error, MemoryError):
                    # before a word is said of it: words need memory too
                    if self.on_no_memory is not None:
                        self.on_no_memory()
                    gc.collect()
                trace.fault(task.name, error)
                sys.print_exception(error)
            now = now_ms()
            task.restarts = [at for at in task.restarts if now - at < _RESTARTS_MS] + [now]
            if len(task.restarts) > _RESTARTS:
                self._on_hopeless(task.name, task.number)
            await asyncio.sleep_ms(10)

    async def run(self) -> None:
        """Start all tasks and watch over them, for ever."""
        for task in self._tasks:
            asyncio.create_task(self._keep(task))
        self._watchdog = WDT(timeout=_WATCHDOG_MS)
        heap_ms = now_ms()
        self.heap()
        while True:
            await asyncio.sleep_ms(_ROUSE_MS)
            self._rouse()
            now = now_ms()
            stuck = [task for task in self._tasks if now - task.seen_ms > _LIMIT_MS]
            # left where a reset does not reach it: the watchdog gives no time for last words
            self._on_stuck(stuck[0].number if stuck else 0)
            if stuck:
                trace.say("stuck", "tasks=" + ",".join([task.name for task in stuck]))
            else:
                self._watchdog.feed()
            self.lowest_heap = min(self.lowest_heap, gc.mem_free())
            if now - heap_ms >= _HEAP_MS:
                heap_ms = now
                self.heap()

    def heap(self) -> None:
        """Say how much memory is free after a collection, and the lowest seen without one."""
        gc.collect()
        free = gc.mem_free()
        trace.say("heap", "free=%d used=%d lowest=%d" % (free, gc.mem_alloc(), self.lowest_heap))
        if self.on_heap is not None:
            self.on_heap(free)
