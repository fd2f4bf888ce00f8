"""The console in a real browser: an alarm from ringing to closed, by mouse and by keyboard, and honest silence."""

import contextlib
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from station_parts import Badge, Hub
from station_running import PATIENCE_S, Running, running, until

from protocol import events, kinds

WEARER = {
    "name": "Cllr Alice Example",
    "phone": "07700 900123",
    "description": "Tall, red scarf",
    "contact": "J. Example, 07700 900456",
    "safe_word": "marigold",
}
expect.set_options(timeout=30_000)  # no promise is measured here: that is for the bench
SECOND = "second-operator"
PLACE = {"text": "Wirksworth Library", "lat": 53.0822, "lon": -1.5741, "source": "fixed", "age": 2}


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Chromium, as the operating system has it."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def troubles() -> list[str]:
    """What the browser complained of."""
    return []


@pytest.fixture
def page(browser: Browser, station: Running, troubles: list[str]) -> Iterator[Page]:
    """A signed-in console that has complained of nothing at its end."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    opened = context.new_page()
    _watch(opened, troubles)
    _sign_in(opened, station)
    yield opened
    context.close()
    assert troubles == []


def _watch(page: Page, troubles: list[str]) -> None:
    page.on("pageerror", lambda error: troubles.append(str(error)))
    # Chromium says so when a page wants to sound before anybody pressed anything: the console asks for the press
    page.on(
        "console",
        lambda m: troubles.append(m.text) if m.type == "error" and "AudioContext" not in m.text else None,
    )


def _sign_in(page: Page, station: Running, name: str = "op1", password: str = "first-operator") -> None:
    page.goto(station.url)
    page.fill("#username", name)
    page.fill("#password", password)
    page.keyboard.press("Enter")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "on")


def _wait(page: Page, expression: str) -> None:
    # Playwright's own waiting evaluates strings in the page, which the console's policy forbids
    until(lambda: page.evaluate(expression), expression)


class Speaker(threading.Thread):
    """A badge that sends sound until it is stopped."""

    def __init__(self, station: Running, badge: Badge, hub: Hub, incident: bytes) -> None:
        super().__init__(daemon=True)
        self._station, self._badge, self._hub = station, badge, hub
        self._over = threading.Event()
        body = events.pack_audio(1, kinds.SOS, 0, 0, 400)
        station.say(hub, hub.event(badge, badge.event(kinds.AUDIO_START, incident=incident, body=body)))
        self.start()

    def run(self) -> None:
        first = 0
        while not self._over.wait(0.1):
            packets = self._badge.sound(1, first, 4, 9000)
            self._station.say(self._hub, self._hub.sound(self._badge, 1, packets), "audio")
            first += 4

    def stop(self) -> None:
        """The last packet has been sent when this returns."""
        self._over.set()
        self.join()


def _raise(station: Running, wearer: Any = None) -> tuple[Badge, Hub, events.Event]:
    badge, hub = station.badge(wearer or WEARER), station.hub()
    sos = badge.event(kinds.SOS)
    station.say(hub, hub.event(badge, sos, rssi=-61, place=PLACE))
    return badge, hub, sos


def test_an_alarm_is_handled_from_ringing_to_closed(
    station: Running, page: Page, request: pytest.FixtureRequest
) -> None:
    expect(page.locator("#announce")).to_have_attribute("role", "alert")
    badge, hub = station.badge(WEARER), station.hub()
    sos = badge.event(kinds.SOS)
    station.say(hub, hub.event(badge, sos, rssi=-61, place=PLACE))
    expect(page.locator("#announce")).to_contain_text("Cllr Alice Example")
    _wait(page, "Number(document.body.dataset.rings) >= 1")
    _wait(page, "document.title.includes('ALARM')")
    alarm = station.alarm(badge)
    row = page.locator(f'[data-alarm="{alarm["id"]}"]')
    expect(row).to_contain_text("SOS")
    expect(row).to_contain_text("Wirksworth Library")
    until(lambda: station.alarm(badge)["seen_at"], "the station knows that it is shown")

    speaker = Speaker(station, badge, hub, sos.ident)
    request.addfinalizer(speaker.stop)  # the station is other tests' too
    expect(row).to_contain_text("Sound is arriving")
    row.get_by_role("link", name="Cllr Alice Example").click()
    for fact in ("07700 900123", "Tall, red scarf", "marigold", "53.08220, -1.57410"):
        expect(page.locator("main")).to_contain_text(fact)
    expect(page.locator("#head")).to_contain_text("has not confirmed")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "on")  # its script is there
    page.click("#claim-listen")
    _wait(page, "Number(document.body.dataset.heard) > 0")
    expect(page.locator("#head")).to_contain_text("An operator has heard the room: you")
    expect(page.locator("#level")).to_have_attribute("aria-label", "Level of the live sound: voices")
    assert page.evaluate("document.body.dataset.rings") is None or _others_wait(station, badge)
    station.say(hub, hub.status(badge, badge.status(incident=sos.ident, level=kinds.CLAIMED)), "status")
    expect(page.locator("#head")).to_contain_text("The badge knows that an operator is with the wearer")

    page.click("#next-step")
    expect(page.locator("#steps .done")).to_have_count(1)
    page.fill("#note", "Voices, nobody hurt")
    page.keyboard.press("Enter")
    expect(page.locator("#timeline")).to_contain_text("Voices, nobody hurt")
    until(lambda: station.alarm(badge)["audio"]["seconds"] > 0.5, "archived")
    page.click("#replay")
    _wait(page, "document.querySelector('#player').readyState >= 2")
    assert page.evaluate("document.querySelector('#player').duration") > 0.5
    assert page.get_attribute("#listen", "aria-pressed") == "true", "live goes on beside the replay"

    page.select_option("#outcome", "resolved")
    page.select_option("#welfare", "spoke_to_wearer")
    page.click("#close")
    expect(page.locator("#head")).to_contain_text("Closed at")
    expect(page.locator("#listen-state")).to_contain_text("closed")
    speaker.stop()
    closed = station.alarm(badge)
    assert (closed["open"], closed["outcome"], closed["owner"]) == (False, "resolved", "op1")


def _others_wait(station: Running, badge: Badge) -> bool:
    found = station.api.get("/api/alarms?state=open").json()["alarms"]
    return any(a["owner"] is None and a["badge"] != badge.number for a in found)


@pytest.mark.parametrize("late", [0.0, 0.7], ids=["script there", "script late"])
def test_a_whole_alarm_by_keyboard_alone(station: Running, page: Page, late: float) -> None:
    def slow(route: Route) -> None:
        time.sleep(late)
        route.continue_()

    if late:
        page.route("**/console.js", slow)
    badge, _, _ = _raise(station, "Cllr Keyboard")
    alarm = station.alarm(badge)
    expect(page.locator(f'[data-alarm="{alarm["id"]}"]')).to_be_visible()

    def reach(selector: str) -> None:
        for _ in range(300):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
        raise AssertionError(f"{selector} cannot be reached by Tab")

    reach(f"#claim-{alarm['id']}")
    page.keyboard.press("Enter")
    expect(page.locator("#head")).to_contain_text("yours")
    reach("#next-step")
    page.keyboard.press("Enter")
    expect(page.locator("#steps .done")).to_have_count(1)
    # polled, because a form sent before the script was there comes back as a page of its own
    until(lambda: page.evaluate("document.activeElement.id") == "next-step", "the focus stays on the button")
    reach("#note")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    expect(page.locator("#timeline")).to_contain_text("by keyboard")

    def choose(selector: str, value: str) -> None:
        # not by its first letters: a browser forgets those that were typed more than a second ago
        reach(selector)
        for _ in range(10):
            page.keyboard.press("ArrowDown")
            if page.evaluate("document.activeElement.value") == value:
                return
        raise AssertionError(f"{value} cannot be chosen by arrow keys")

    choose("#outcome", "training")
    choose("#welfare", "seen_in_person")
    reach("#close")
    page.keyboard.press("Enter")
    expect(page.locator("#head")).to_contain_text("Training or drill. Seen in person.")


def test_a_second_operator_is_warned_and_takes_over_on_purpose(
    station: Running, page: Page, browser: Browser, troubles: list[str]
) -> None:
    badge, _, _ = _raise(station, "Cllr Twice")
    alarm = station.alarm(badge)
    context = browser.new_context()
    other = context.new_page()
    _sign_in(other, station, "op2", SECOND)
    other.goto(f"{station.url}/alarms/{alarm['id']}")
    # a page that has not heard of the claim yet: its stream is neither answered nor refused
    other.route("**/events", lambda route: None)
    other.reload()
    with station.person() as op1:
        op1.post(f"/alarms/{alarm['id']}/claim")
    other.click("#claim")
    expect(other.locator("#error")).to_contain_text("op1 has claimed this alarm")
    other.fill("#reason", "end of shift")
    other.click("#takeover")
    expect(other.locator("#head")).to_contain_text("This alarm is yours")
    expect(other.locator("#timeline")).to_contain_text("Taken over by op2: from op1: end of shift")
    context.close()


def test_nothing_that_comes_or_goes_by_itself_moves_a_button_from_under_the_hand(station: Running, page: Page) -> None:
    badge, _, _ = _raise(station, "Cllr Still")
    page.goto(f"{station.url}/alarms/{station.alarm(badge)['id']}")
    before = page.locator("#claim").bounding_box()
    shown = "document.getElementById('announce').textContent = 'New alarm'"
    page.evaluate(f"() => {{ document.getElementById('sound-off').hidden = false; {shown}; }}")
    assert page.locator("#claim").bounding_box() == before
    page.evaluate("() => { document.getElementById('sound-off').hidden = true; }")
    assert page.locator("#claim").bounding_box() == before


@pytest.mark.parametrize("released", [True, False], ids=["released", "never released"])
def test_no_press_is_lost_where_the_page_changes_between_press_and_release(
    station: Running, page: Page, released: bool
) -> None:
    badge, _, _ = _raise(station, "Cllr Pressed")
    alarm = station.alarm(badge)
    page.clock.install()
    page.goto(f"{station.url}/alarms/{alarm['id']}")
    expect(page.locator("#pulse")).to_have_attribute("data-state", "on")
    # for the page no time passes while the button is down, however slow everything else is
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 60)
    expect(page.locator("#silence")).to_be_empty()  # with the next tick, after a minute that was none
    box = page.locator("#claim").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    with (
        page.expect_response(lambda r: r.url == page.url, timeout=60_000) as fresh,
        station.person("op2", SECOND) as op2,
    ):
        op2.post(f"/alarms/{alarm['id']}/note", json={"text": "meanwhile"}).raise_for_status()
    fresh.value.finished()
    page.evaluate("fetch('/static/mark.svg').then((reply) => reply.text())")  # what it came with is drawn, or is not
    expect(page.locator("#timeline")).not_to_contain_text("meanwhile")
    if released:
        page.mouse.up()
        until(lambda: station.alarm(badge)["owner"] == "op1", "claimed")
        page.clock.resume()
    else:
        page.clock.fast_forward(2_100)
    expect(page.locator("#timeline")).to_contain_text("meanwhile")
    page.mouse.up()


def test_a_duress_tells_the_operator_not_to_ring_the_wearer(station: Running, page: Page) -> None:
    badge, hub = station.badge(WEARER), station.hub()
    duress = badge.event(kinds.DURESS, body=events.pack_duress(kinds.CHECK_IN, b""))
    station.say(hub, hub.event(badge, duress))
    page.goto(f"{station.url}/alarms/{station.alarm(badge)['id']}")
    expect(page.locator("#head")).to_contain_text("Do not ring them")
    expect(page.locator("main")).to_contain_text("do not ring: duress")
    expect(page.locator("main")).not_to_contain_text("07700 900123")


def test_a_console_that_hears_nothing_says_so_within_seconds_and_recovers(station: Running, browser: Browser) -> None:
    page = browser.new_page()
    page.clock.install()
    _sign_in(page, station)
    try:
        station.process.send_signal(signal.SIGSTOP)
        page.clock.fast_forward(2_000)
        expect(page.locator("#silence")).to_be_empty()
        page.clock.fast_forward(5_000)
        expect(page.locator("#silence")).to_contain_text("NOT RECEIVING")
        expect(page.locator("#pulse-text")).to_have_text("Not receiving")
    finally:
        station.process.send_signal(signal.SIGCONT)
    expect(page.locator("#silence")).to_be_empty()
    page.close()


def test_a_console_that_is_greeted_and_never_told_which_alarms_are_open_says_so(
    tmp_path: Path, browser: Browser
) -> None:
    station = Running(tmp_path)
    page = browser.new_page()
    greeted: list[str] = []
    page.on("request", lambda request: greeted.append(request.url) if request.url.endswith("/events") else None)

    def spoil(level: int) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "station.db", timeout=5)) as db, db:
            db.execute("UPDATE alarms SET level = ?", (level,))

    try:
        _raise(station)
        until(lambda: station.api.get("/api/alarms").json()["alarms"], "alarm")
        _sign_in(page, station)
        spoil(99)  # a level that there is none: no snapshot can be made of it, whatever the reason would be
        page.goto(f"{station.url}/visits")
        greeted.clear()
        expect(page.locator("#silence")).to_contain_text("NOT RECEIVING")
        expect(page.locator("#pulse")).to_have_attribute("data-state", "off")
        until(lambda: page.get_attribute("#pulse", "data-state") == "off" and len(greeted) > 6, "still off")
        spoil(kinds.RECEIVED)
        expect(page.locator("#silence")).to_be_empty()
    finally:
        page.close()
        station.stop()


def test_a_console_whose_session_ended_elsewhere_goes_to_the_sign_in(station: Running, browser: Browser) -> None:
    page = browser.new_page()
    _sign_in(page, station)
    token = next(c["value"] for c in page.context.cookies() if c["name"] == "tocsin_session")
    # not asked by the console itself: only the stream's end and its refusal tell it
    page.route("**/tick", lambda route: route.abort())
    headers = {"Origin": station.url, "Cookie": f"tocsin_session={token}"}
    assert httpx.post(f"{station.url}/logout", headers=headers, trust_env=False, timeout=PATIENCE_S).status_code == 303
    page.wait_for_url("**/login*", timeout=60_000)
    page.close()


def test_visits_and_devices_are_handled_on_their_pages(station: Running, page: Page, troubles: list[str]) -> None:
    badge = station.badge("Cllr Visitor")
    hub = Hub()
    page.get_by_role("link", name="Visits").click()
    page.select_option("#badge", str(badge.number))
    page.fill("#vplace", "12 Mill Lane")
    page.fill("#minutes", "30")
    page.get_by_role("button", name="Plan the visit").click()
    row = page.locator(".visit", has_text="Cllr Visitor")
    expect(row).to_contain_text("29 min")
    row.get_by_role("button", name="Checked in by telephone").click()
    expect(row).to_contain_text("last check-in")
    row.get_by_role("button", name="End the visit of Cllr Visitor", exact=True).click()
    expect(page.locator("#ended")).to_contain_text("Cllr Visitor")
    page.fill("#minutes", "never")
    page.get_by_role("button", name="Plan the visit").click()
    expect(page.locator("#error")).to_contain_text("minutes must be a number")
    troubles.clear()  # Chromium notes the 400

    page.get_by_role("link", name="Devices").first.click()
    station.say(hub, hub.hello(), "hello")
    hub_row = page.locator("#hubs tr", has_text=hub.name)
    hub_row.get_by_role("button", name="Accept").click()
    expect(hub_row).not_to_contain_text("waits to be accepted")
    station.say(hub, hub.status(badge, badge.status(), rssi=-50), "status")
    until(
        lambda: any(
            b["badge"] == badge.number and b["protected"] for b in station.api.get("/api/badges").json()["badges"]
        ),
        "heard",
    )
    page.reload()
    expect(page.locator("#badges tr", has_text="Cllr Visitor")).to_contain_text("protected")
    expect(page.locator("#badges tr", has_text="Cllr Visitor")).to_contain_text("88 %")


_SMALL = """() => [...document.querySelectorAll('button, input, select, nav a')].filter((e) => {
  const box = e.getBoundingClientRect();
  return box.width && e.type !== 'checkbox' && e.type !== 'hidden' && (box.height < 44 || box.width < 44);
}).map((e) => e.outerHTML.slice(0, 80))"""

_NAMELESS = """() => [...document.querySelectorAll('input, select')].filter((e) =>
  e.type !== 'hidden' && !e.labels.length && !e.ariaLabel).map((e) => e.outerHTML.slice(0, 80))"""

# the ratio of WCAG 2, for every piece of text on its nearest opaque background
_PALE = """() => {
  const light = (c) => { const v = c / 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const numbers = (s) => s.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !e.checkVisibility()) continue;
    if (e.closest('option, meter, .vh, .skip')) continue;
    const [a, b] = [luminance(numbers(getComputedStyle(e).color)), luminance(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 80)}`);
  }
  return bad;
}"""


def test_every_page_can_be_hit_read_and_named(station: Running, page: Page) -> None:
    badge, _, _ = _raise(station)
    alarm = station.alarm(badge)
    station.api.post("/visits", json={"badge": badge.number, "minutes": 30})
    for path in ("/", f"/alarms/{alarm['id']}", "/visits", "/devices"):
        page.goto(station.url + path)
        expect(page.locator("#pulse")).to_have_attribute("data-state", "on")
        assert page.evaluate(_SMALL) == [], path
        assert page.evaluate(_NAMELESS) == [], path
        assert page.evaluate(_PALE) == [], path
        assert page.evaluate("document.querySelectorAll('h1').length") == 1, path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.set_viewport_size({"width": 420, "height": 800})
    page.goto(f"{station.url}/alarms/{alarm['id']}")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")


def test_a_new_signal_in_a_claimed_alarm_rings_again_on_every_console(browser: Browser, tmp_path: Path) -> None:
    with running(tmp_path / "station") as station:  # its own: no other alarm may be waiting
        contexts = [browser.new_context() for _ in range(2)]
        mine, other = [context.new_page() for context in contexts]
        _sign_in(mine, station)
        _sign_in(other, station, "op2", SECOND)
        badge, hub, sos = _raise(station)
        alarm = station.alarm(badge)
        mine.goto(f"{station.url}/alarms/{alarm['id']}")
        mine.click("#claim")
        mine.select_option("#outcome", "accidental")
        mine.select_option("#welfare", "spoke_to_wearer")
        expect(mine.locator("#head")).to_contain_text("This alarm is yours")
        for page in (mine, other):
            _wait(page, "document.body.dataset.rings === undefined")
        station.say(hub, hub.event(badge, badge.event(kinds.CANCEL, incident=sos.ident)))
        expect(mine.locator("#head")).to_contain_text("The wearer cancelled")
        assert [p.evaluate("document.body.dataset.rings") for p in (mine, other)] == [None, None]
        station.say(hub, hub.beacon(badge, badge.event(kinds.SOS)))
        for page in (mine, other):
            expect(page.locator("#announce")).to_contain_text("New signal: SOS, Cllr Alice Example")
            _wait(page, "Number(document.body.dataset.rings) >= 2")
        other.reload()
        _wait(other, "Number(document.body.dataset.rings) >= 1")
        # who was about to close it is told what to do first, and has to fill in nothing twice
        mine.click("#close")
        expect(mine.locator("#error")).to_contain_text("a new signal has come")
        assert station.alarm(badge)["open"]
        mine.get_by_role("button", name="I have seen the new signal").click()
        expect(mine.locator("#error")).to_have_text("")
        for page in (mine, other):
            _wait(page, "document.body.dataset.rings === undefined")
        expect(mine.locator("#head")).to_contain_text("This alarm is yours")
        expect(mine.locator("#head")).not_to_contain_text("Escalated")
        mine.click("#close")
        expect(mine.locator("#head")).to_contain_text("Closed at")
        for context in contexts:
            context.close()
