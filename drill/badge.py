"""An emulated badge as the drill sees it: hands on its buttons, a finger on its motor, an eye on its console.

Talks to the HTTP interface of the badge's companion process and keeps all that it says.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

RETRY_S = 0.1
# a server ends a connection that was idle for five seconds, perhaps in the instant in which it is used again
BRIEF = httpx.Limits(keepalive_expiry=2.0)
ANSWER_S = 10.0
# the companion answers when the act is complete: a hold when the button was let go
LONGEST_ACT_S = 660.0


class BadgeRefused(Exception):
    """The companion did not do what it was told; the text is its sentence."""


@dataclass
class BadgeClient:
    """The companion at `url`. `events` holds all that it said, each with `at` on CLOCK_MONOTONIC."""

    id: str
    url: str
    complain: Callable[[str, str], None]
    on_event: Callable[[str, dict[str, Any]], None] = field(default=lambda _badge, _event: None)
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = httpx.AsyncClient(
            base_url=self.url, timeout=httpx.Timeout(ANSWER_S), limits=BRIEF, trust_env=False
        )
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    async def attach(self) -> None:
        """Follows the events of a companion that has just started, from its first one."""
        await self.detach()
        self._task = asyncio.create_task(self._follow())

    async def detach(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def close(self) -> None:
        await self.detach()
        await self._client.aclose()

    async def _follow(self) -> None:
        """Reads the event stream; after a break it goes on behind the last event that it has."""
        last = 0
        while True:
            with contextlib.suppress(httpx.HTTPError, json.JSONDecodeError):
                async with self._client.stream("GET", "/events", params={"after": last}, timeout=None) as reply:
                    async for line in reply.aiter_lines():
                        if not line.startswith("data:"):
                            continue
                        event = json.loads(line[5:])
                        last = int(event["n"])
                        self.events.append(event)
                        self.on_event(self.id, event)
                        async with self._news:
                            self._news.notify_all()
            await asyncio.sleep(RETRY_S)

    async def wait_for(self, wanted: Callable[[dict[str, Any]], bool], seconds: float, start: int = 0) -> bool:
        """Waits until an event from number `start` on satisfies `wanted`; False when the time is over."""
        looked = start
        end = asyncio.get_running_loop().time() + seconds
        while True:
            for event in self.events[looked:]:
                if wanted(event):
                    return True
            looked = len(self.events)
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return False
            async with self._news:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 0.5)):
                        await self._news.wait()

    async def do(self, act: str, **arguments: Any) -> None:
        """Does one act of drill.md and returns when it is complete. Raises BadgeRefused."""
        await self._post("/do", {"do": act, **arguments}, LONGEST_ACT_S)

    async def state(self) -> dict[str, Any]:
        try:
            reply = await self._client.get("/state")
            body: dict[str, Any] = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            raise BadgeRefused(f"no state: {type(error).__name__}") from None
        return body

    async def _post(self, path: str, body: dict[str, Any], patience: float = ANSWER_S) -> dict[str, Any]:
        try:
            reply = await self._client.post(path, json=body, timeout=patience)
            answer: dict[str, Any] = reply.json()
        except (httpx.HTTPError, ValueError) as error:
            raise BadgeRefused(f"{body.get('do', path)}: no answer ({type(error).__name__})") from None
        if reply.status_code >= 400:
            raise BadgeRefused(f"{body.get('do', path)}: {answer.get('error', reply.status_code)}")
        return answer
