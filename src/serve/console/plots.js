// Plots of `/latency`, drawn as SVG: percentiles on HdrHistogram's axis, where each step to the right
// is ten times fewer requests, and the last minutes.

const SERIES_COLORS = ["#0b84b5", "#d9622b", "#6a58c4", "#2b9a5f"];
const SERIES_MAX = 4;
const PLOT = { width: 640, height: 260, left: 58, right: 14, top: 10, bottom: 30 };

/** Takes the box's own width, so that one unit is one pixel. */
function measure(box) {
  PLOT.width = Math.max(box.clientWidth, 240);
}

function frame(children, label) {
  const { width, height } = PLOT;
  return s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, children);
}

function emptyPlot(text) {
  return frame([s("text", { class: "none", x: PLOT.width / 2, y: PLOT.height / 2 }, text)], text);
}

/** A logarithmic axis of times: a function to pixels, and its rules. */
function timeAxis(low, high) {
  const from = Math.floor(Math.log10(Math.max(low, 1)));
  const to = Math.max(Math.ceil(Math.log10(Math.max(high, 1.01))), from + 1);
  const span = PLOT.height - PLOT.top - PLOT.bottom;
  const y = (us) => PLOT.height - PLOT.bottom - ((Math.log10(Math.max(us, 1)) - from) / (to - from)) * span;
  const rules = [];
  for (let power = from; power <= to; power += 1) {
    const at = y(10 ** power);
    rules.push(
      s("line", { class: "rule", x1: PLOT.left, x2: PLOT.width - PLOT.right, y1: at, y2: at }),
      s("text", { x: PLOT.left - 8, y: at + 4, "text-anchor": "end" }, micros(10 ** power).replace(/(\d)\.0+ /, "$1 ")),
    );
  }
  return { y, rules };
}

function path(points, color, width, more = {}) {
  const d = points.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  const style = { fill: "none", stroke: color, "stroke-width": width, "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke" };
  return s("path", { d, ...style, ...more });
}

/** `hgrm` text as pairs of 1/(1-p) and µs. */
function readHgrm(text) {
  const points = [];
  for (const line of text.split("\n")) {
    const [value, percentile, , inverse] = line.trim().split(/\s+/);
    if (!/^\d/.test(value ?? "")) continue;
    points.push([inverse ? Number(inverse) : 1 / Math.max(1 - Number(percentile), 1e-9), Number(value)]);
  }
  // The last row is the maximum at 100 %: it stands where the row before it does.
  if (points.length > 1) points[points.length - 1][0] = points[points.length - 2][0] * 1.3;
  return points;
}

function drawPercentiles(box, series) {
  measure(box);
  const drawn = series.filter(({ points }) => points.length);
  if (!drawn.length) return box.replaceChildren(emptyPlot("nothing measured yet"));
  const all = drawn.flatMap(({ points }) => points);
  const decades = Math.max(2, Math.ceil(Math.log10(Math.max(...all.map(([inverse]) => inverse)))));
  const span = PLOT.width - PLOT.left - PLOT.right;
  const x = (inverse) => PLOT.left + (Math.log10(inverse) / decades) * span;
  const { y, rules } = timeAxis(Math.min(...all.map(([, us]) => us)), Math.max(...all.map(([, us]) => us)));
  const names = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
  for (let at = 0; at <= decades; at += 1) {
    const place = PLOT.left + (at / decades) * span;
    rules.push(
      s("line", { class: "rule", x1: place, x2: place, y1: PLOT.top, y2: PLOT.height - PLOT.bottom }),
      s("text", { x: place, y: PLOT.height - 10, "text-anchor": at === decades ? "end" : "middle" }, names[at] ?? ""),
    );
  }
  const lines = drawn.map(({ points, color }) => path(points.map(([inverse, us]) => [x(inverse), y(us)]), color, 2));
  const words = drawn.map(({ name, points }) => `${name} up to ${micros(points.at(-1)[1])}`).join("; ");
  box.replaceChildren(frame([...rules, ...lines], `Latency by percentile: ${words}`));
}

/** Seconds that are remembered; a page that has just been opened shows as many as it has. */
const TIMELINE_S = 300;
const SPANS_S = [60, 120, TIMELINE_S];

function drawTimeline(box, series, now) {
  measure(box);
  const drawn = series.filter(({ history }) => history.some((each) => each.p50 !== null));
  if (!drawn.length) return box.replaceChildren(emptyPlot("nothing in the last minutes"));
  const all = drawn.flatMap(({ history }) => history.filter((each) => each.p50 !== null).flatMap(({ p50, p99 }) => [p50, p99]));
  const { y, rules } = timeAxis(Math.min(...all), Math.max(...all));
  const width = PLOT.width - PLOT.left - PLOT.right;
  const oldest = (now - Math.min(...drawn.flatMap(({ history }) => history.map(({ at }) => at)))) / 1000;
  const seconds = SPANS_S.find((span) => span >= oldest) ?? TIMELINE_S;
  const x = (at) => PLOT.width - PLOT.right - ((now - at) / 1000 / seconds) * width;
  const step = seconds > 120 ? 60 : seconds / 4;
  for (let ago = 0; ago <= seconds; ago += step) {
    const place = x(now - ago * 1000);
    const name = ago === 0 ? "now" : seconds > 120 ? `−${ago / 60} min` : `−${ago} s`;
    rules.push(
      s("line", { class: "rule", x1: place, x2: place, y1: PLOT.top, y2: PLOT.height - PLOT.bottom }),
      s("text", { x: place, y: PLOT.height - 10, "text-anchor": ago ? "middle" : "end" }, name),
    );
  }
  const lines = drawn.flatMap(({ history, color }) =>
    pieces(history).flatMap((piece) => [
      path(piece.map(({ at, p50 }) => [x(at), y(p50)]), color, 1),
      path(piece.map(({ at, p99 }) => [x(at), y(p99)]), color, 2.5, { "stroke-linecap": "round" }),
    ]),
  );
  const words = drawn.map(({ name, history }) => `${name} p99 ${micros(history.findLast((each) => each.p99 !== null).p99)}`).join("; ");
  box.replaceChildren(frame([...rules, ...lines], `Latency over the last ${seconds} seconds: ${words}`));
}

/** Stretches of time in which something was measured; a single point gets a length. */
function pieces(history) {
  const found = [[]];
  for (const each of history) {
    if (each.p50 === null) found.push([]);
    else found.at(-1).push(each);
  }
  return found.filter((piece) => piece.length).map((piece) => (piece.length === 1 ? [{ ...piece[0], at: piece[0].at - 1500 }, piece[0]] : piece));
}

const BY_LIKING = ["ttfr", "ttfb", "page.", "whole", "gap"];

/** The live part: asks, remembers, draws. */
class Latency {
  constructor() {
    this.chosen = new Map();
    this.touched = false;
    /** By series: points of the last minutes, and of the percentile plot. */
    this.history = new Map();
    this.percentiles = new Map();
  }

  /** The last seconds, for the line of time; and all there is, where `whole` of it is to be drawn. */
  async refresh(whole) {
    const ask = async (path) => {
      const response = await fetch(path, { headers: headers(), cache: "no-store" });
      if (!response.ok) throw await refusalOf(response);
      return response;
    };
    const recent = await (await ask("/latency?window=10s")).json();
    this.remember(recent.series);
    if (!whole) return;
    const all = await (await ask("/latency")).json();
    this.offer(all.series);
    this.table(all.series);
    for (const name of this.chosen.keys()) {
      const text = await (await ask(`/latency?format=hgrm&series=${encodeURIComponent(name)}`)).text();
      this.percentiles.set(name, readHgrm(text));
    }
    this.draw();
  }

  remember(recent) {
    const at = Date.now();
    const late = new Map(recent.map((series) => [series.name, series]));
    for (const name of new Set([...late.keys(), ...this.history.keys()])) {
      const each = late.get(name);
      const kept = (this.history.get(name) ?? []).filter((point) => point.at > at - TIMELINE_S * 1000);
      kept.push({ at, p50: each?.p50 ?? null, p99: each?.p99 ?? null });
      this.history.set(name, kept);
    }
  }

  draw() {
    const series = [...this.chosen].map(([name, color]) => ({
      name, color, points: this.percentiles.get(name) ?? [], history: this.history.get(name) ?? [],
    }));
    drawPercentiles($("percentiles"), series);
    drawTimeline($("timeline"), series, Date.now());
  }

  /** Chips for what there is; until the reader chooses, those that say most. */
  offer(series) {
    const names = series.map(({ name }) => name);
    const rank = (name) => {
      const at = BY_LIKING.findIndex((part) => (part.endsWith(".") ? name.startsWith(part) : name.endsWith(`.${part}`)));
      return at < 0 ? BY_LIKING.length : at;
    };
    if (!this.touched) {
      const best = names.filter((name) => /^(crawl|deepsearch)\..*\.(ttfb|ttfr)$|^page\.(ttfb|extract)$/.test(name));
      const liked = [...best, ...names.filter((name) => !best.includes(name))].slice(0, SERIES_MAX);
      this.chosen = new Map(liked.map((name, at) => [name, SERIES_COLORS[at]]));
    }
    // The table has all of them; what few ask for needs no button.
    const rare = /^(other|metrics|health)\.|\.accept_to_parse$/;
    const shown = names.filter((name) => this.chosen.has(name) || !rare.test(name));
    shown.sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
    const key = `${shown.join()}|${[...this.chosen.keys()].join()}`;
    if (key === this.key) return;
    this.key = key;
    const focused = document.activeElement?.dataset?.series;
    const chips = shown.map((name) => {
      const color = this.chosen.get(name);
      const dot = color ? colored(h("i"), color) : null;
      return h("button", { type: "button", "aria-pressed": String(Boolean(color)), "data-series": name, click: () => this.toggle(name) }, dot, name);
    });
    $("series").replaceChildren(...chips);
    chips.find((chip) => chip.dataset.series === focused)?.focus();
  }

  toggle(name) {
    this.touched = true;
    if (this.chosen.has(name)) this.chosen.delete(name);
    else {
      if (this.chosen.size >= SERIES_MAX) this.chosen.delete(this.chosen.keys().next().value);
      const free = SERIES_COLORS.find((color) => ![...this.chosen.values()].includes(color));
      this.chosen.set(name, free);
    }
    this.refresh(true).catch(() => {});
  }

  table(series) {
    const columns = ["count", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
    const rows = series.map((each) =>
      h("tr", {}, h("td", {}, each.name), columns.map((name) => h("td", {}, name === "count" ? count(each.count) : micros(each[name])))),
    );
    const head = h("tr", {}, h("th", { scope: "col" }, "series"), columns.map((name) => h("th", { scope: "col" }, name)));
    $("table").replaceChildren(h("thead", {}, head), h("tbody", {}, rows));
  }
}
