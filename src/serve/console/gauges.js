// What the server says of its parts: `/healthz` and `/metrics`, as meters.

/** Prometheus text as a list of samples per name; labels as text. */
function readMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const sample = /^([a-z_]+)(?:\{([^}]*)\})? (\S+)/.exec(line);
    if (!sample) continue;
    if (!found.has(sample[1])) found.set(sample[1], []);
    found.get(sample[1]).push({ labels: sample[2] ?? "", value: Number(sample[3]) });
  }
  return found;
}

/** Metrics of the server that are drawn; a test holds them to what it has. */
const METRICS = {
  busy: "forebay_lane_busy_seconds_total", fetched: "forebay_fetched_bytes_total", sent: "forebay_sent_bytes_total",
  cpu: "process_cpu_seconds_total", requests: "forebay_requests_total", inUse: "forebay_arena_buffers_in_use",
  buffers: "forebay_arena_buffers_capacity", queued: "forebay_lane_queue_depth", queue: "forebay_lane_queue_capacity",
  letters: "forebay_mailbox_depth", mailbox: "forebay_mailbox_capacity", memory: "process_resident_memory_bytes",
};
const RATES = ["busy", "fetched", "sent", "cpu", "requests"];

const sumOf = (samples) => (samples ?? []).reduce((sum, { value }) => sum + value, 0);
const maxOf = (samples) => (samples ?? []).reduce((max, { value }) => Math.max(max, value), 0);

class Gauges {
  constructor() {
    this.before = null;
  }

  /** `/healthz` alone, for the state at the top of the page. */
  async health() {
    const health = await fetch("/healthz", { headers: headers(), cache: "no-store" });
    const state = health.status === 200 || health.status === 503 ? await health.clone().json() : null;
    showHealth(health, state);
    if (!state) throw await refusalOf(health);
    return state;
  }

  async refresh(stream) {
    const state = await this.health();
    const response = await fetch("/metrics", { headers: headers(), cache: "no-store" });
    if (!response.ok) throw await refusalOf(response);
    const metrics = readMetrics(await response.text());
    const ring = stream ? await this.ring(stream) : null;
    $("meters").replaceChildren(...this.meters(state, metrics, ring).filter(Boolean));
  }

  async ring(stream) {
    const response = await fetch(`/streams/${stream}`, { headers: headers(), cache: "no-store" });
    return response.ok ? response.json() : null;
  }

  meters(state, metrics, stream) {
    const now = performance.now();
    const sum = (name) => sumOf(metrics.get(METRICS[name]));
    const max = (name) => maxOf(metrics.get(METRICS[name]));
    const values = Object.fromEntries(RATES.map((name) => [name, sum(name)]));
    const { before } = this;
    const seconds = before ? Math.max((now - before.at) / 1000, 0.001) : Infinity;
    const rates = Object.fromEntries(RATES.map((name) => [name, before ? Math.max(0, values[name] - before.values[name]) / seconds : 0]));
    this.before = { at: now, values };
    const cores = state?.cores || 1;
    const { busy, cpu } = rates;
    const arena = [sum("inUse"), sum("buffers")];
    const lane = [sum("queued"), sum("queue")];
    const mail = [max("letters"), max("mailbox")];
    const cache = state?.cache ?? {};
    const ring = stream?.readers?.[0]?.ring;
    const memory = sum("memory");
    return [
      meter("Loops", `${cores} ${cores === 1 ? "core" : "cores"}`, cpu ? `${Math.round(cpu * 100)} % of a CPU, lanes included` : "CPU time is being measured", cpu / cores),
      meter("Lanes", `${lane[0]} waiting`, `extraction busy ${Math.round((busy / cores) * 100)} %, room for ${count(lane[1])}`, busy / cores),
      meter("Mailboxes", `${mail[0]} waiting`, `at most ${count(mail[1])} for each core`, mail[0] / (mail[1] || 1)),
      meter("Arena", `${count(arena[0])} buffers in use`, `of ${count(arena[1])} that are there`, arena[0] / (arena[1] || 1)),
      ring
        ? meter("Ring of this stream", `${count(ring.frames)} frames`, `${bytes(ring.bytes)}, limit now ${count(ring.frames_limit)} frames, ${count(ring.sends)} sends`, ring.frames / (ring.frames_limit || 1))
        : meter("Ring of this stream", stream ? stream.state : "none", stream ? "nobody reads it now" : "start a stream to see its ring", 0),
      stream ? meter("Replay window", bytes(stream.replay.bytes), `of ${bytes(stream.replay.max_bytes)}, ${bytes(stream.replay.unread_bytes)} unread`, stream.replay.bytes / stream.replay.max_bytes) : null,
      meter("Page cache", cache.state === "off" ? "off" : bytes(cache.bytes ?? 0), `${count(cache.entries ?? 0)} pages, of ${bytes(cache.bytes_max ?? 0)}`, (cache.bytes ?? 0) / (cache.bytes_max || 1)),
      meter("Streams", `${count(state?.streams_running ?? 0)} running`, `${bytes(state?.stream_bytes ?? 0)} of events kept`),
      meter("Connections", count(state?.connections ?? 0), `${Math.round(rates.requests)} requests a second`),
      meter("Traffic", `${bytes(rates.sent)}/s sent`, `${bytes(rates.fetched)}/s fetched; ${bytes(values.sent)} and ${bytes(values.fetched)} in all`),
      memory ? meter("Memory", bytes(memory), "resident") : null,
    ];
  }
}

function meter(name, value, note, share) {
  const box = h("div", { class: "meter" }, h("span", {}, name), h("b", {}, value), h("span", {}, note));
  if (share !== undefined) {
    const percent = Math.round(Math.min(Math.max(share, 0), 1) * 100);
    const fill = h("i");
    fill.style.width = `${percent}%`;
    box.append(h("div", { class: "track", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": percent }, fill));
  }
  return box;
}

function showHealth(response, state) {
  const pill = $("health");
  const told = {
    200: ["good", `ready · ${state?.version}`],
    503: ["warn", state?.draining ? "draining" : `not ready · extractor ${state?.extractor}`],
    401: ["warn", "needs an API key"],
    403: ["warn", "up · this key may not see inside"],
  }[response.status] ?? ["bad", `answers ${response.status}`];
  [pill.dataset.state, pill.textContent] = told;
}
