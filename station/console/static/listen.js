// Live sound of an alarm: packets from the WebSocket, through a jitter buffer, to the loudspeaker and the level meter.
// The format of the messages is in docs/station-api.md.

const HEADER = 16;
const RATE = 16000;
const JITTER_S = 0.15; // played so much later than it came, so that a late packet still finds its place
const BEHIND_S = 0.8; // further behind than this the buffer is shortened: live means live

export class Ear {
  constructor(alarm, canvas, say) {
    this.alarm = alarm;
    this.canvas = canvas;
    this.say = say;
    this.socket = null;
    this.next = 0;
    this.seconds = 0;
    this.packets = 0;
  }

  get listening() {
    return this.socket !== null;
  }

  start() {
    this.audio = new AudioContext({ sampleRate: RATE, latencyHint: "interactive" });
    this.audio.resume();
    this.meter = this.audio.createAnalyser();
    this.meter.fftSize = 512;
    this.meter.connect(this.audio.destination);
    this.levels = [];
    this.next = 0;
    this.over = false; // the station said that the alarm was closed
    this.say("Connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/alarms/${this.alarm}/audio`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.say("Connected: waiting for sound");
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = (event) => this.ended(event);
    this.drawing = setInterval(() => this.draw(), 50);
  }

  stop() {
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    clearInterval(this.drawing);
    this.audio?.close();
    this.say("Not listening");
  }

  ended(event) {
    if (this.socket === null) return;
    this.stop();
    const closed = this.over || event.code === 4409;
    this.say(closed ? "The alarm is closed" : "The sound was cut off: press Listen live again");
    this.onend?.();
  }

  receive(data) {
    if (typeof data === "string") {
      const message = JSON.parse(data);
      if (message.type === "end") this.say("The badge has stopped sending sound");
      if (message.type === "closed") this.over = true;
      return;
    }
    const view = new DataView(data);
    const samples = (data.byteLength - HEADER) / 2;
    if (view.getUint8(0) !== 1 || samples < 1) return;
    const buffer = this.audio.createBuffer(1, samples, RATE);
    const channel = buffer.getChannelData(0);
    for (let i = 0; i < samples; i += 1) channel[i] = view.getInt16(HEADER + 2 * i, true) / 32768;
    this.play(buffer);
    this.packets += 1;
    document.body.dataset.heard = String(this.packets);
    if (this.packets % 40 === 1) this.say("Live");
  }

  play(buffer) {
    const at = this.audio.currentTime;
    if (this.next < at) this.next = at + JITTER_S;
    if (this.next > at + BEHIND_S) return;
    const source = this.audio.createBufferSource();
    source.buffer = buffer;
    source.connect(this.meter);
    source.start(this.next);
    this.next += buffer.duration;
  }

  draw() {
    const samples = new Float32Array(this.meter.fftSize);
    this.meter.getFloatTimeDomainData(samples);
    let sum = 0;
    for (const sample of samples) sum += sample * sample;
    const level = Math.sqrt(sum / samples.length);
    // 60 dB from bottom to top, as ears judge loudness
    this.levels.push(Math.min(Math.max(1 + Math.log10(level + 1e-6) / 3, 0), 1));
    const { width, height } = this.canvas;
    const bars = Math.floor(width / 4);
    this.levels = this.levels.slice(-bars);
    const pen = this.canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    this.levels.forEach((value, i) => {
      pen.fillStyle = value > 0.92 ? "#ff8a8a" : "#57d38c";
      const tall = Math.max(value * (height - 6), 1);
      pen.fillRect(width - 4 * (this.levels.length - i), (height - tall) / 2, 3, tall);
    });
    this.canvas.setAttribute("aria-label", `Level of the live sound: ${level > 0.02 ? "voices" : level > 0.003 ? "quiet" : "silence"}`);
  }
}
