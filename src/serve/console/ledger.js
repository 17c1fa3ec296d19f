// What has come of a stream, and the proof that nothing is missing: every `seq` once, in order, over
// however many connections.

/** Characters of events that are kept in full; above it the oldest can be looked at no more. */
const KEPT_CHARS_MAX = 96 * 1024 * 1024;

class Ledger {
  constructor() {
    this.events = [];
    this.next = 0;
    this.duplicates = 0;
    this.ephemeral = 0;
    this.lost = 0;
    this.jumps = 0;
    this.indices = new Set();
    this.twice = 0;
    this.total = 0;
    this.failed = 0;
    this.good = 0;
    this.bytes = 0;
    this.chars = 0;
    this.firstKept = 0;
    this.longest = 1;
    this.connections = 0;
    this.cuts = 0;
    this.stream = "";
    this.summary = null;
    this.error = null;
    this.firstResultAt = null;
    this.began = performance.now();
    this.ended = null;
  }

  /** Takes an event's text; the row to show, or null for one that was here before. */
  add(text, parsed) {
    const event = parsed ?? JSON.parse(text);
    const { seq, type } = event;
    if (seq === undefined) {
      this.ephemeral += 1;
      if (type === "progress") this.total = event.items_total ?? this.total;
      return this.keep({ type, seq: null, note: event.current_item ?? "", us: 0 }, text);
    }
    if (seq < this.next) {
      this.duplicates += 1;
      return null;
    }
    // A gap covers what it names, from `from_seq` up to its own place, and nothing before.
    const told = type === "gap" ? Math.min(event.from_seq, seq) : seq;
    this.jumps += Math.max(told - this.next, 0);
    if (type === "gap") this.lost += seq - Math.max(told, this.next) + 1;
    this.next = seq + 1;
    return this.keep(this.row(event), text);
  }

  row(event) {
    const row = { type: event.type, seq: event.seq, us: 0, note: "" };
    if (event.type === "metadata") {
      this.stream = event.stream_id;
      this.total = event.total_urls;
      row.note = `${count(event.total_urls)} pages, stream ${event.stream_id}`;
    } else if (event.type === "result") {
      const { result } = event;
      if (this.indices.has(event.index)) this.twice += 1;
      this.indices.add(event.index);
      this.total = event.progress?.total ?? this.total;
      this.firstResultAt ??= performance.now();
      this.bytes += result.bytes?.wire ?? 0;
      if (result.error) this.failed += 1;
      else this.good += 1;
      row.index = event.index;
      row.status = result.status;
      row.cache = result.cache;
      row.url = result.url;
      row.title = result.document?.title ?? "";
      row.error = result.error?.code ?? "";
      row.timings = result.timings_us ?? {};
      row.us = Object.values(row.timings).reduce((sum, part) => sum + part, 0);
      this.longest = Math.max(this.longest, row.us);
    } else if (event.type === "search") {
      row.note = `${event.urls_found} hits from ${event.provider} in ${event.search_time_ms} ms`;
    } else if (event.type === "gap") {
      row.note = `events ${event.from_seq} to ${event.to_seq} are gone: ${event.reason}`;
    } else if (event.type === "summary") {
      this.summary = event;
      this.ended = performance.now();
      row.note = `${event.status}: ${event.successful} successful, ${event.failed} failed, ${event.cancelled} cancelled`;
    } else if (event.type === "error") {
      this.error = event.error;
      this.ended = performance.now();
      row.note = `${event.error.code}: ${event.error.message}`;
    }
    return row;
  }

  keep(row, text) {
    row.text = text;
    this.chars += text.length;
    this.events.push(row);
    while (this.chars > KEPT_CHARS_MAX && this.firstKept < this.events.length - 1) {
      const old = this.events[this.firstKept];
      this.chars -= old.text.length;
      old.text = null;
      this.firstKept += 1;
    }
    return row;
  }

  get over() {
    return Boolean(this.summary || this.error);
  }

  /** One sentence on whether all is there, and its state. */
  proof() {
    if (this.next === 0) return ["none", "Waiting for the first event…"];
    const parts = [];
    const times = this.connections - 1;
    parts.push(`${times} ${times === 1 ? "resume" : "resumes"}`);
    if (this.duplicates) parts.push(`${count(this.duplicates)} came twice and were dropped`);
    const rest = parts.join(", ");
    if (this.jumps || this.twice) {
      const what = `${count(this.jumps)} missing from seq 0 to ${this.next - 1}, ${this.twice} results twice`;
      return ["bad", `Something is wrong: ${what}; ${rest}.`];
    }
    if (this.lost) return ["wait", `${count(this.lost)} events fell out of the replay window, and a gap says so; ${rest}.`];
    const line = `seq 0 to ${count(this.next - 1)} without a hole, ${rest}`;
    if (!this.over) return ["wait", `So far ${line}.`];
    const pages = `${count(this.indices.size)} of ${count(this.summary?.total_urls ?? this.total)} pages with exactly one result`;
    if (!this.summary) return ["wait", `The stream was given up: ${line}, ${pages}.`];
    const { last_seq, total_urls, successful, failed, cancelled } = this.summary;
    if (last_seq !== this.next - 1) return ["bad", `The summary says ${last_seq}: ${line}.`];
    if (this.indices.size !== total_urls) return ["bad", `Results are missing: ${line}, but only ${pages}.`];
    if (successful + failed + cancelled !== total_urls) {
      return ["bad", `The summary's ${successful} successful, ${failed} failed and ${cancelled} cancelled are not ${total_urls}: ${line}, ${pages}.`];
    }
    return ["good", `Nothing is missing: ${line}, ${pages}.`];
  }
}
