// Times on the page, by the station's clock: this computer's may be wrong.

let ahead = 0; // seconds by which the station's clock is ahead of ours

export function clockIs(at) {
  ahead = at - Date.now() / 1000;
}

export function now() {
  return Date.now() / 1000 + ahead;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB");
}

export function span(seconds) {
  const whole = Math.max(Math.floor(seconds), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d`;
}

// Every <time data-since> counts up and every <time data-until> counts down.
export function paint(root = document) {
  const at = now();
  for (const element of root.querySelectorAll("time[data-since]")) {
    element.textContent = span(at - Number(element.dataset.since));
  }
  for (const element of root.querySelectorAll("time[data-until]")) {
    const left = Number(element.dataset.until) - at;
    element.textContent = left >= 0 ? `${span(left)} left` : `${span(-left)} over`;
  }
}
