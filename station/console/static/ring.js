// The sound of an alarm that waits for somebody: two tones, once every two seconds, until there is none.

let context = null;
let timer = null;

function button() {
  return document.getElementById("sound-off");
}

export function audioContext() {
  if (context === null) context = new AudioContext({ latencyHint: "interactive" });
  return context;
}

// Browsers keep a page silent until somebody has pressed something on it: say so, and offer the press.
async function unlocked() {
  const audio = audioContext();
  if (audio.state !== "running") {
    await Promise.race([audio.resume(), new Promise((done) => setTimeout(done, 300))]);
  }
  button().hidden = audio.state === "running";
  return audio.state === "running";
}

function tone(frequency, start, length) {
  const oscillator = context.createOscillator();
  const gain = context.createGain();
  oscillator.type = "triangle";
  oscillator.frequency.value = frequency;
  gain.gain.setValueAtTime(0, start);
  gain.gain.linearRampToValueAtTime(0.5, start + 0.02);
  gain.gain.setValueAtTime(0.5, start + length - 0.05);
  gain.gain.linearRampToValueAtTime(0, start + length);
  oscillator.connect(gain).connect(context.destination);
  oscillator.start(start);
  oscillator.stop(start + length);
}

async function once() {
  document.body.dataset.rings = String(Number(document.body.dataset.rings || 0) + 1);
  if (!(await unlocked())) return;
  const start = context.currentTime + 0.02;
  tone(880, start, 0.22);
  tone(660, start + 0.26, 0.34);
}

export function ring(on) {
  if (on && timer === null) {
    once();
    timer = setInterval(once, 2000);
  } else if (!on && timer !== null) {
    clearInterval(timer);
    timer = null;
    delete document.body.dataset.rings;
  }
}

export function prepare() {
  document.getElementById("sound-on").addEventListener("click", unlocked);
  // any press on the page unlocks it
  document.addEventListener("pointerdown", unlocked, { once: true });
  document.addEventListener("keydown", unlocked, { once: true });
  unlocked();
}
