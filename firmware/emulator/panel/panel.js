// The badge's panel: buttons to the companion by POST /do, everything else from GET /events.
const $ = (id) => document.getElementById(id);
const SPAN = 8; // seconds of motor shown
const HISTORY = 12;
const LOG = 400;

const ACTS = {
  start_visit: ["Start a visit", "side button, hold"],
  check_in: ["Check in", "side, one press"],
  extend: ["Extend", "side, two presses"],
  amber: ["Leave a note (amber)", "side, three presses"],
  end_visit: ["End the visit", "side button, hold"],
  cancel: ["Cancel", "side button, hold"],
  self_test: ["Self-test", "side, four presses"],
  duress: ["Duress check-in", "side while squeezing the hidden one"],
  duress_cancel: ["Duress cancel or end", "the same, held"],
  pair: ["Pair with a hub", "side, eight seconds"],
  off_duty: ["Go off duty", "side, six and a half seconds"],
  wake: ["Go on duty again", "side button, hold"],
  sos_presses: ["SOS by five presses", "hidden button, rapidly"],
};

let order = Promise.resolve(); // presses reach the badge in the order they were made
function act(body, busy) {
  busy?.setAttribute("aria-busy", "true");
  const send = async () => {
    const reply = await fetch("/do", { method: "POST", body: JSON.stringify(body) });
    const answer = await reply.json();
    $("note").textContent = answer.ok ? "" : answer.error;
  };
  const failed = () => { $("note").textContent = "The badge does not answer."; };
  const done = body.do === "button" ? (order = order.then(send).catch(failed)) : send().catch(failed);
  return done.finally(() => busy?.removeAttribute("aria-busy"));
}

// ---- buttons that are held, by pointer and by keyboard
function holdable(element, button) {
  let down = false;
  const set = (pressed) => {
    if (pressed === down) return;
    down = pressed;
    element.classList.toggle("down", pressed);
    act({ do: "button", button, pressed });
  };
  element.addEventListener("pointerdown", (e) => {
    if (e.button) return;
    element.setPointerCapture(e.pointerId);
    set(true);
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) element.addEventListener(end, () => set(false));
  element.addEventListener("contextmenu", (e) => e.preventDefault());
  element.addEventListener("keydown", (e) => {
    if (e.key === " " || e.key === "Enter") { e.preventDefault(); if (!e.repeat) set(true); }
  });
  element.addEventListener("keyup", (e) => { if (e.key === " " || e.key === "Enter") { e.preventDefault(); set(false); } });
  element.addEventListener("blur", () => set(false));
  addEventListener("pagehide", () => {
    if (down) navigator.sendBeacon("/do", JSON.stringify({ do: "button", button, pressed: false }));
  });
}

// ---- the motor over time
const motor = { edges: [], on: false, drawing: false };
let offset = null; // our clock minus the badge's, the smallest seen
const here = () => performance.now() / 1000;
const badgeNow = () => here() - (offset ?? 0);
function draw() {
  const canvas = $("motor"), c = canvas.getContext("2d"), { width, height } = canvas;
  const end = badgeNow(), begin = end - SPAN, low = height - 26, high = 22;
  const x = (at) => ((at - begin) / SPAN) * width;
  c.clearRect(0, 0, width, height);
  c.strokeStyle = "#2c4249"; c.lineWidth = 1; c.fillStyle = "#9db3b2"; c.font = "20px system-ui, sans-serif"; c.textAlign = "center";
  for (let s = 1; s < SPAN; s++) {
    c.beginPath(); c.moveTo(x(end - s), 0); c.lineTo(x(end - s), height); c.stroke();
    if (s % 2 === 0) c.fillText(`−${s} s`, x(end - s), height - 5);
  }
  while (motor.edges.length > 1 && motor.edges[1].at < begin) motor.edges.shift();
  let level = motor.edges.length && motor.edges[0].at < begin ? motor.edges[0].on : false;
  c.strokeStyle = "#ffb066"; c.lineWidth = 4; c.lineJoin = "round"; c.beginPath(); c.moveTo(0, level ? high : low);
  for (const edge of motor.edges) {
    if (edge.at < begin) continue;
    c.lineTo(x(edge.at), level ? high : low);
    level = edge.on;
    c.lineTo(x(edge.at), level ? high : low);
  }
  c.lineTo(width, level ? high : low); c.stroke();
  const last = motor.edges.at(-1);
  motor.drawing = Boolean(last && (motor.on || last.at > begin));
  if (motor.drawing) requestAnimationFrame(draw);
}
function turn(event) {
  motor.on = event.on;
  motor.edges.push({ at: event.at, on: event.on });
  $("hang").classList.toggle("shaking", event.on);
  if (!motor.drawing) { motor.drawing = true; requestAnimationFrame(draw); }
}

// ---- events
let first = null;
const since = (at) => { first ??= at; return (at - first).toFixed(2).padStart(8); };
const readable = (pattern) => pattern.replaceAll("_", " ");
function log(kind, at, text) {
  const box = $("log"), atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 30;
  const line = document.createElement("div"), time = document.createElement("time"), what = document.createElement("span");
  line.className = kind; time.textContent = since(at); what.textContent = text;
  line.append(time, what); box.append(line);
  while (box.childElementCount > LOG) box.firstChild.remove();
  if (atEnd) box.scrollTop = box.scrollHeight;
}
let asleep = false;
const handlers = {
  motor: turn,
  haptic(e) {
    const [name, meaning] = $("pattern").children;
    name.textContent = readable(e.pattern); meaning.textContent = e.meaning;
    const item = document.createElement("li"), time = document.createElement("time");
    time.textContent = since(e.at).trim(); item.append(time, readable(e.pattern)); item.title = e.meaning;
    $("history").prepend(item);
    while ($("history").childElementCount > HISTORY) $("history").lastChild.remove();
    log("haptic", e.at, `felt: ${readable(e.pattern)}${e.meaning ? ` (${e.meaning})` : ""}`);
  },
  radio(e) {
    $("radio-dot").className = `dot ${e.on ? (e.connections ? "linked" : "on") : ""}`;
    $("radio").textContent = !e.on ? (asleep ? "off duty, asleep" : "radio off") : e.connections ? `connected to ${e.connections} hub${e.connections > 1 ? "s" : ""}` : "no hub connected";
  },
  battery(e) {
    const text = `${Math.round(e.percent)} %`;
    $("battery-text").textContent = `battery ${text}`; $("battery-out").textContent = text; $("battery").value = e.percent;
  },
  lanyard(e) {
    $("hang").classList.toggle("pulled", !e.attached);
    $("lanyard").textContent = e.attached ? "Pull the lanyard" : "Attach the lanyard again";
    $("lanyard").dataset.act = e.attached ? "pull_lanyard" : "attach_lanyard";
    log("state", e.at, e.attached ? "lanyard attached" : "lanyard pulled");
  },
  capture(e) {
    $("listening").textContent = e.on ? "microphone on" : "microphone off";
    $("listening").classList.toggle("live", e.on);
    log("capture", e.at, e.on ? "microphone on" : `microphone off after ${(e.samples / e.rate).toFixed(1)} s`);
  },
  hearing(e) { $("sound").value = e.name; },
  state(e) {
    if (e.state === "deep sleep" || e.state === "booting") asleep = e.state === "deep sleep";
    if (asleep) $("radio").textContent = "off duty, asleep";
    log("state", e.at, e.cause ? `${e.state} (${e.cause.replaceAll("_", " ")})` : e.state);
  },
  button(e) { log("state", e.at, `${e.button === "sos" ? "hidden" : "side"} button ${e.pressed ? "pressed" : "released"}`); },
  trace(e) { log("trace", e.at, e.line); },
  log(e) { log("log", e.at, e.text); },
};
function listen() {
  const source = new EventSource("/events");
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const lag = here() - event.at;
    if (offset === null || lag < offset) offset = lag;
    handlers[event.type]?.(event);
  };
  source.onerror = () => { $("radio-dot").className = "dot"; $("radio").textContent = "the badge's companion has stopped"; };
}

function onCard(name) {
  const text = $("card-name");
  text.textContent = name;
  const room = 236; // of the card's width of 260
  if (text.getComputedTextLength() > room) {
    text.setAttribute("textLength", room);
    text.setAttribute("lengthAdjust", "spacingAndGlyphs");
  }
}

// ---- controls
function sounds(state) {
  $("sound").replaceChildren(...state.sounds.map((name) => new Option(name, name, false, name === state.hearing)));
}
async function begin() {
  holdable($("sos"), "sos");
  holdable($("side"), "side");
  for (const [name, [label, how]] of Object.entries(ACTS)) {
    const button = document.createElement("button"), small = document.createElement("small");
    button.type = "button"; small.textContent = how; button.append(label, small);
    button.addEventListener("click", () => {
      if (name === "wake" && !asleep) $("note").textContent = "The badge is on duty.";
      else act({ do: name }, button);
    });
    $("acts").append(button);
  }
  for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => act({ do: button.dataset.do }, button));
  $("lanyard").addEventListener("click", () => act({ do: $("lanyard").dataset.act ?? "pull_lanyard" }));
  $("battery").addEventListener("input", () => { $("battery-out").textContent = `${$("battery").value} %`; });
  $("battery").addEventListener("change", () => act({ do: "battery", percent: Number($("battery").value) }));
  $("sound").addEventListener("change", () => fetch("/hear", { method: "POST", body: JSON.stringify({ name: $("sound").value }) }));
  $("upload").addEventListener("change", async () => {
    const [file] = $("upload").files;
    if (!file) return;
    const reply = await fetch(`/sounds?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    const answer = await reply.json();
    if (answer.ok) sounds(answer);
    $("note").textContent = answer.ok ? "" : answer.error;
    $("upload").value = "";
  });
  const state = await (await fetch("/state")).json();
  const name = state.name.replace(/^badge:/, "");
  $("name").textContent = name; document.title = `Badge ${name}`;
  if (state.card) onCard(state.card);
  sounds(await (await fetch("/sounds")).json());
  draw();
  listen();
}
begin();
