"""A thread for something that may block, which nobody waits for when the hub stops."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_background(name: str, call: Callable[[], Result]) -> Result:
    """The result of `call`, made in a daemon thread of this name; whatever it raises is raised here.

    A name that does not resolve, or a modem that looks for its network, can take a minute. Python joins the threads of
    executors before it ends, so that they would hold up the hub's stop and hide its exit status from systemd, which
    kills what takes too long. Who cancels this leaves the thread to itself.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Result] = loop.create_future()

    def succeed(result: Result) -> None:
        if not ended.done():
            ended.set_result(result)

    def fail(problem: BaseException) -> None:
        if not ended.done():
            ended.set_exception(problem)

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the hub has stopped
            try:
                result = call()
            except BaseException as problem:
                loop.call_soon_threadsafe(fail, problem)
            else:
                loop.call_soon_threadsafe(succeed, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await ended
