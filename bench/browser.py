"""When an alarm is shown in a real browser: Chromium with the console open, and when each alarm was painted."""

import shutil

from playwright.async_api import Browser as Chromium
from playwright.async_api import Page, Playwright, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

# notes the wall clock at the first frame that is painted after an alarm came into the queue
WATCH = """
window.painted = {};
const look = () => {
  for (const entry of document.querySelectorAll('li[data-alarm]')) {
    const id = entry.dataset.alarm;
    if (id in window.painted) continue;
    window.painted[id] = null;
    requestAnimationFrame(() => { window.painted[id] = (performance.timeOrigin + performance.now()) / 1000; });
  }
};
look();
new MutationObserver(look).observe(document.body, {childList: true, subtree: true});
"""


def executable() -> str | None:
    """The path of a Chromium that is installed on this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Console:
    """The console's queue in Chromium, signed in. An asynchronous context."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url, self.user, self.password = url, user, password
        self._playwright: Playwright | None = None
        self._chromium: Chromium | None = None
        self._page: Page | None = None

    async def __aenter__(self) -> "Console":
        self._playwright = await async_playwright().start()
        self._chromium = await self._playwright.chromium.launch(executable_path=executable(), args=["--no-sandbox"])
        self._page = page = await self._chromium.new_page()
        await page.goto(self.url + "/login")
        await page.fill("[name=username]", self.user)
        await page.fill("[name=password]", self.password)
        await page.click("button[type=submit], form button")
        await page.wait_for_selector("#open")
        await page.evaluate(WATCH)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._chromium is not None:
            await self._chromium.close()
        if self._playwright is not None:
            await self._playwright.stop()

    async def painted(self) -> dict[int, float]:
        """Alarm to the moment at which it was painted, in Unix seconds."""
        assert self._page is not None
        found: dict[str, float | None] = await self._page.evaluate("window.painted")
        return {int(alarm): at for alarm, at in found.items() if at is not None}
