"""Take the README's pictures: the real console and the real badge panel, in Chromium, during a real alarm.

`make pictures` runs it. It starts the demo's stage, holds the hidden button, claims the alarm.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, async_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from drill.demo import STORY
from drill.scenario import Scenario, load
from drill.stage import Stage

IMG = Path(__file__).parent / "img"
CHROMIUM = "/usr/bin/chromium"


async def _sign_in(page: Page, url: str, password: str) -> None:
    await page.goto(url)
    await page.locator("[name=username]").fill("op1")
    await page.locator("[name=password]").fill(password)
    await page.get_by_role("button", name="Sign in").click()


async def take() -> None:
    """Write docs/img/console.png and docs/img/panel.png."""
    story = load(STORY)
    empty = Scenario(story.title, story.seed, story.badges, story.hubs, story.broker, 1, (), (), (), 0.0)
    with tempfile.TemporaryDirectory(prefix="tocsin-pictures-") as folder:
        stage = Stage(empty, Path(folder), watched=True)
        try:
            await stage.start()
            await stage.protected(["alice"])
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
                )
                console = await browser.new_page(viewport={"width": 1280, "height": 760})
                panel = await browser.new_page(viewport={"width": 1100, "height": 1280})
                await _sign_in(console, stage.console, stage.password)
                await panel.goto(stage.badges["alice"].url)
                await stage.badges["alice"].do("hold", seconds=2.0)
                await console.locator("a[href*='/alarms/']").first.wait_for()
                await console.screenshot(path=IMG / "queue.png")
                await console.locator("a[href*='/alarms/']").first.click()
                await console.get_by_role("button", name="Claim").first.click()
                await console.get_by_text("First sound heard").wait_for()  # a claim begins to listen by itself
                await asyncio.sleep(4)
                await console.screenshot(path=IMG / "console.png", full_page=True)
                await panel.screenshot(path=IMG / "panel.png")
                await browser.close()
        finally:
            await stage.stop()


if __name__ == "__main__":
    asyncio.run(take())
