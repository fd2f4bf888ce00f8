// The console: follows the station's events, proves that it does, rings, and keeps the page fresh.
// Without it every page still works by links and forms.

import { Ear } from "./listen.js";
import { prepare, ring } from "./ring.js";
import { clock, clockIs, paint } from "./time.js";

const SILENT_MS = 5000; // without a tick for so long the operator must know
const ANSWER_MS = 4000; // a tick of ours at least so often; the station gives up an owner after 30 s
const HOLD_MS = 2000; // a press of which the end is never seen is over by then
const CLICK_MS = 100; // a release becomes a click within

const page = document.body.dataset.page;
const here = Number(document.body.dataset.alarm || 0);
const title = document.title;
const open = new Map(); // open alarms by number
const shown = new Set(); // alarms whose showing the station does not know of yet

let source = null;
let consoleName = "";
let whole = false; // this connection's snapshot has come and was shown
let heardAt = performance.now(); // the last tick of a connection that began with a whole snapshot
let answeredAt = 0;

const element = (id) => document.getElementById(id);

// --- receiving ------------------------------------------------------------------------------------------------

function connect() {
  source?.close();
  source = new EventSource("/events");
  const on = (name, handle) =>
    source.addEventListener(name, (event) => handle(JSON.parse(event.data)));
  on("hello", (data) => {
    // a connection proves nothing: a station that cannot say which alarms are open greets again every second
    whole = false;
    consoleName = data.console;
    clockIs(data.at);
  });
  on("snapshot", (data) => {
    open.clear();
    for (const alarm of data.alarms) know(alarm);
    show();
    whole = true;
    refresh();
  });
  on("tick", (data) => {
    if (!whole) return;
    heardAt = performance.now();
    clockIs(data.at);
    receiving(true, data.at);
    // answered when the station's tick comes and not by a timer of ours: browsers slow those down in hidden tabs
    if (performance.now() - answeredAt > ANSWER_MS) answer();
  });
  on("alarm", (data) => {
    const before = open.get(data.alarm.id);
    know(data.alarm);
    if (data.change === "raised") announce(data.alarm, "New alarm");
    else if (data.alarm.new_signal && !before?.new_signal) announce(data.alarm, "New signal");
    show();
    if (page === "queue" || data.alarm.id === here) refresh();
    else refresh(["nav-waiting"]);
  });
  on("visit", () => page === "visits" && refresh());
  on("test", () => page === "devices" && refresh());
  on("device", () => (page === "devices" || page === "queue" ? refresh() : refresh(["nav-troubles"])));
}

function receiving(on, at) {
  const pulse = element("pulse");
  pulse.dataset.state = on ? "on" : "off";
  element("pulse-text").textContent = on ? `Receiving ${clock(at)}` : "Not receiving";
  const bar = element("silence");
  const text = on ? "" : "NOT RECEIVING: this console hears nothing from the station. Alarms will not show here.";
  if (bar.textContent !== text) bar.textContent = text;
}

setInterval(() => {
  paint();
  if (performance.now() - heardAt > SILENT_MS) receiving(false);
  if (source?.readyState === EventSource.CLOSED) {
    // refused, not lost: where the session has ended the page itself leads to the sign-in
    connect();
    refresh();
  }
}, 1000);

async function answer() {
  answeredAt = performance.now();
  const seen = [...shown];
  try {
    const reply = await fetch("/tick", {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json" },
      body: JSON.stringify({ console: consoleName, seen }),
    });
    if (reply.ok) for (const id of seen) shown.delete(id);
    if (reply.status === 401) location.assign("/login");
  } catch {
    answeredAt = 0; // the next tick tries again
  }
}

// --- alarms ---------------------------------------------------------------------------------------------------

function know(alarm) {
  if (alarm.open) open.set(alarm.id, alarm);
  else open.delete(alarm.id);
  if (alarm.open && alarm.seen_at === null) shown.add(alarm.id);
}

// nobody has claimed it, or its owner has not seen what came since
function waiting() {
  return [...open.values()].filter((alarm) => alarm.owner === null || alarm.new_signal);
}

const KINDS = {
  sos: "SOS",
  duress: "Duress",
  missed_check_in: "Missed check-in",
  lanyard: "Lanyard pulled",
  fall: "Fall",
  loss_of_contact: "Loss of contact",
};

function announce(alarm, what) {
  const text = `${what}: ${KINDS[alarm.kind] ?? alarm.kind}, ${alarm.wearer}`;
  const link = document.createElement("a");
  link.href = `/alarms/${alarm.id}`;
  link.textContent = text;
  element("announce").replaceChildren(link);
}

function show() {
  const count = waiting().length;
  ring(count > 0);
  if (count === 0) element("announce").replaceChildren();
  if ([...shown].length > 0) answer();
}

let flash = false;
setInterval(() => {
  const count = waiting().length;
  flash = count > 0 && !flash;
  document.title = flash ? `(${count}) ALARM` : title;
}, 800);

// --- keeping the page fresh -------------------------------------------------------------------------------------

const pressing = new Map(); // pointers that are down, and until when that counts

function down(event, ms) {
  pressing.set(event.pointerId, performance.now() + ms);
}

document.addEventListener("pointerdown", (event) => down(event, HOLD_MS), true);
document.addEventListener("pointerup", (event) => down(event, CLICK_MS), true);
document.addEventListener("pointercancel", (event) => pressing.delete(event.pointerId), true);

// A button that is replaced or moved between press and release gives no click: the press would be lost.
async function handOff() {
  const since = performance.now();
  const held = (now) => now - since < HOLD_MS && [...pressing.values()].some((until) => now < until);
  while (held(performance.now())) await new Promise((done) => setTimeout(done, 20));
}

let fetching = false;
let again = null;
const drawn = new Map(); // what the server last gave for each part, by its id

// Takes the server's page anew and replaces the parts that changed, without moving the focus.
async function refresh(only = null) {
  if (fetching) {
    again = again === null || only === null ? { only } : { only: [...(again.only ?? []), ...only] };
    if (only === null) again = { only: null };
    return;
  }
  fetching = true;
  try {
    const reply = await fetch(location.pathname, { headers: { Accept: "text/html" } });
    if (reply.redirected && new URL(reply.url).pathname === "/login") return location.assign("/login");
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    await handOff(); // what changes meanwhile is fetched again
    for (const part of document.querySelectorAll("[data-live]")) {
      if (only !== null && !only.includes(part.id)) continue;
      const wanted = fresh.getElementById(part.id);
      if (wanted === null || drawn.get(part.id) === wanted.outerHTML) continue;
      replace(part, wanted);
    }
    paint();
  } catch {
    // the station is away: the bar says so, and the next event brings the page up to date
  } finally {
    fetching = false;
    if (again !== null) {
      const { only: next } = again;
      again = null;
      refresh(next);
    }
  }
}

function replace(part, wanted) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  if (focused?.matches("input, select, textarea") && focused.value) return; // somebody is writing in it
  const html = wanted.outerHTML;
  part.className = wanted.className;
  part.replaceChildren(...wanted.childNodes);
  drawn.set(part.id, html);
  if (focused) (element(focused.id) ?? part.querySelector("button, a") ?? element("main")).focus();
}

// --- acts -------------------------------------------------------------------------------------------------------

const busy = new WeakSet(); // forms whose answer has not come yet

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches("form[data-act]")) return;
  event.preventDefault();
  if (busy.has(form)) return; // pressed twice; a disabled button would lose the focus instead
  busy.add(form);
  // within the press itself, because browsers allow sound only then
  if (form.dataset.then === "listen") listen(true);
  try {
    const reply = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    const answer = await reply.json();
    if (reply.ok) form.reset();
    complain(reply.ok ? "" : answer.error);
  } catch {
    complain("The station did not answer: this was not done. Try again.");
  } finally {
    busy.delete(form);
    refresh();
  }
});

function complain(text) {
  const place = element("error");
  if (!place) return;
  place.replaceChildren();
  if (!text) return;
  const paragraph = document.createElement("p");
  paragraph.className = "error";
  paragraph.textContent = text;
  place.append(paragraph);
}

// sound arrives without an event for every packet: the archive's length is looked up now and then
if (element("archive")) setInterval(() => open.has(here) && refresh(["archive"]), 5000);

// --- sound ------------------------------------------------------------------------------------------------------

let ear = null;

function listen(on) {
  const button = element("listen");
  if (!button) return;
  ear ??= new Ear(here, element("level"), (text) => {
    if (element("listen-state").textContent !== text) element("listen-state").textContent = text;
  });
  ear.onend = () => pressed(false);
  if (on && !ear.listening) ear.start();
  if (!on && ear.listening) ear.stop();
  pressed(ear.listening);
}

function pressed(on) {
  element("listen").setAttribute("aria-pressed", String(on));
  element("listen").textContent = on ? "Stop listening" : "Listen live";
}

element("listen")?.addEventListener("click", () => listen(!(ear?.listening ?? false)));

element("replay")?.addEventListener("click", async () => {
  // the length is fixed for this replay; pressed again it is as long as the archive is then
  const reply = await fetch(`/alarms/${here}/audio.wav`, { method: "HEAD" });
  const packets = Number(reply.headers.get("X-Tocsin-Packets") ?? 0);
  const player = element("player");
  player.src = `/alarms/${here}/audio.wav?packets=${packets}`;
  if (packets > 0) player.play();
});

for (const part of document.querySelectorAll("[data-live]")) drawn.set(part.id, part.outerHTML);
prepare();
paint();
connect();
// a form that was sent before this script was there came back as a new page: the keyboard goes on where it was
if (location.hash && document.activeElement === document.body) element(location.hash.slice(1))?.focus();
window.addEventListener("pagehide", () => source?.close());
