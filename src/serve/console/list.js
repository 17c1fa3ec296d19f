// The list of events: as many rows as fit are nodes, the rest is room to scroll.

const STAGES = ["queue", "pace", "dns", "connect", "tls", "ttfb", "body", "extract_wait", "extract", "emit_wait"];
const STAGE_COLORS = {
  queue: "#9aa7b1", pace: "#c3a26b", dns: "#7a5fc0", connect: "#3f7fd6", tls: "#2fa4c7",
  ttfb: "#1f9e77", body: "#7fb93b", extract_wait: "#e0b02e", extract: "#e0762e", emit_wait: "#d0497a",
};

function legend(node) {
  for (const stage of STAGES) node.append(h("li", {}, colored(h("i"), STAGE_COLORS[stage]), stage));
}

/** A colour by script: the page's policy allows no style attributes in markup. */
function colored(node, color) {
  node.style.background = color;
  return node;
}

/** Stages as a bar; `share` of the width is for the longest page so far. */
function stageBar(timings, share) {
  const bar = h("div", { class: "bar", role: "img", "aria-label": stagesInWords(timings) });
  bar.style.width = `${Math.max(share * 100, 0.5)}%`;
  for (const stage of STAGES) {
    const us = timings[stage] ?? 0;
    if (us <= 0) continue;
    const part = colored(h("i", { title: `${stage} ${micros(us)}` }), STAGE_COLORS[stage]);
    part.style.flexGrow = us;
    bar.append(part);
  }
  return bar;
}

const stagesInWords = (timings) =>
  STAGES.filter((stage) => timings[stage] > 0).map((stage) => `${stage} ${micros(timings[stage])}`).join(", ") || "no time";

class EventList {
  constructor(box, choose) {
    this.box = box;
    this.runway = box.querySelector(".runway");
    this.choose = choose;
    this.ledger = null;
    this.rows = [];
    this.chosen = -1;
    this.chosenRow = null;
    this.nodes = new Map();
    box.addEventListener("scroll", () => this.draw(), { passive: true });
    box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(box);
  }

  get height() {
    return matchMedia("(max-width: 640px)").matches ? 48 : 34;
  }

  reset(ledger) {
    this.ledger = ledger;
    this.rows = [];
    this.chosen = -1;
    this.chosenRow = null;
    this.box.removeAttribute("aria-activedescendant");
    this.clear();
  }

  clear() {
    for (const node of this.nodes.values()) node.remove();
    this.nodes.clear();
  }

  /** Takes rows as they are to be shown; the chosen one stays chosen, wherever it stands now. */
  show(rows, follow) {
    this.rows = rows;
    if (this.chosenRow && rows[this.chosen] !== this.chosenRow) {
      this.chosen = rows.indexOf(this.chosenRow);
      // Rows that change their places are made anew, with their marks.
      this.clear();
      this.activate();
    }
    this.runway.style.height = `${rows.length * this.height}px`;
    if (follow) this.box.scrollTop = this.box.scrollHeight;
    this.draw(true);
  }

  draw(scale = false) {
    const height = this.height;
    const first = Math.max(0, Math.floor(this.box.scrollTop / height) - 4);
    const last = Math.min(this.rows.length, first + Math.ceil(this.box.clientHeight / height) + 8);
    for (const [at, node] of this.nodes) {
      // The chosen row stays a node wherever the list is: the box names it as its active one.
      if (((at < first || at >= last) && at !== this.chosen) || node.row !== this.rows[at]) {
        node.remove();
        this.nodes.delete(at);
      }
    }
    const wanted = this.chosen >= 0 && (this.chosen < first || this.chosen >= last) ? [this.chosen] : [];
    for (let at = first; at < last; at += 1) wanted.push(at);
    for (const at of wanted) {
      if (!this.nodes.has(at)) this.add(at);
      const node = this.nodes.get(at);
      node.style.top = `${at * height}px`;
      node.setAttribute("aria-setsize", this.rows.length);
      if (scale && node.bar) node.bar.style.width = `${Math.max((node.row.us / this.ledger.longest) * 100, 0.5)}%`;
    }
  }

  add(at) {
    const row = this.rows[at];
    const [label, kind] = badgeOf(row);
    const page = h("span", { class: "page" });
    if (row.type === "result") page.append(h("b", {}, row.title || row.error || row.url), " ", row.title || row.error ? row.url : "");
    else page.append(row.note ?? "");
    const bar = row.type === "result" ? stageBar(row.timings, row.us / this.ledger.longest) : null;
    const node = h(
      "div",
      {
        class: "event", role: "option", id: `event-${at}`, "aria-selected": String(at === this.chosen),
        "aria-posinset": at + 1, click: () => this.pick(at),
      },
      h("span", { class: "seq" }, row.seq === null ? "–" : String(row.seq)),
      h("span", { class: "badge", "data-kind": kind }, label),
      page,
      h("span", { class: "track" }, bar),
      h("span", { class: "ms" }, row.us ? three(row.us / 1000) : ""),
    );
    node.row = row;
    node.bar = bar;
    this.nodes.set(at, node);
    this.runway.append(node);
  }

  pick(at) {
    if (at < 0 || at >= this.rows.length) return;
    this.nodes.get(this.chosen)?.setAttribute("aria-selected", "false");
    this.chosen = at;
    this.chosenRow = this.rows[at];
    const height = this.height;
    const top = at * height;
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    if (top + height > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + height - this.box.clientHeight;
    this.draw();
    this.nodes.get(at)?.setAttribute("aria-selected", "true");
    this.activate();
    this.choose(this.rows[at]);
  }

  /** Tells a screen reader which row is the active one. */
  activate() {
    if (this.chosen < 0) this.box.removeAttribute("aria-activedescendant");
    else this.box.setAttribute("aria-activedescendant", `event-${this.chosen}`);
  }

  key(event) {
    const page = Math.floor(this.box.clientHeight / this.height) - 1;
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    this.pick(Math.min(Math.max(this.chosen + moves[event.key], 0), this.rows.length - 1));
  }
}

function badgeOf(row) {
  if (row.type !== "result") {
    const kinds = { error: "bad", gap: "warn", progress: "dim", heartbeat: "dim" };
    return [row.type, kinds[row.type] ?? ""];
  }
  if (row.error) return [row.status ? String(row.status) : "failed", "bad"];
  const kind = row.status >= 200 && row.status < 300 ? "good" : "warn";
  return [`${row.status} ${row.cache}`, kind];
}

/** One event in full: its document as a reader wants it, and as it came. */
function showDetail(box, row) {
  box.replaceChildren();
  box.hidden = !row;
  if (!row) return;
  if (row.text === null) {
    box.append(h("p", { class: "note" }, "This event is not kept any more: the newest 96 MiB are."));
    return;
  }
  const event = JSON.parse(row.text);
  const raw = () => h("pre", { class: "raw", tabindex: "0", role: "region", "aria-label": "The event as it came" }, JSON.stringify(event, null, 2));
  if (row.type !== "result") {
    box.append(h("h3", {}, `${row.type}${row.seq === null ? "" : ` ${row.seq}`}`), raw());
    return;
  }
  const { result } = event;
  const { document: page, error } = result;
  const base = result.final_url ?? result.url;
  box.append(
    h("h3", {}, page?.title || link(result.url, result.url)),
    h(
      "p",
      { class: "facts" },
      h("span", {}, link(base, base)),
      h("span", {}, `status ${result.status}`),
      h("span", {}, `cache ${result.cache}`),
      h("span", {}, `${result.gate_decision}, quality ${result.quality_score}`),
      result.bytes ? h("span", {}, `${bytes(result.bytes.wire)} sent, ${bytes(result.bytes.body)} decoded`) : null,
      page ? h("span", {}, `${count(page.word_count)} words`) : null,
      page?.byline ? h("span", {}, page.byline) : null,
      page?.published ? h("span", {}, page.published) : null,
    ),
    stageBar(row.timings, 1),
    h(
      "div",
      { class: "stages" },
      STAGES.filter((stage) => row.timings[stage] > 0).map((stage) => h("span", {}, colored(h("i"), STAGE_COLORS[stage]), stage, h("b", {}, micros(row.timings[stage])))),
    ),
  );
  if (error) box.append(h("p", { class: "alert" }, `${error.code} in stage ${error.stage}: ${error.message}${error.retryable ? " (may work later)" : ""}`));
  const views = [];
  if (page?.markdown) views.push(["Document", () => markdown(page.markdown, base)]);
  if (page?.text) views.push(["Text", () => h("pre", { class: "raw", tabindex: "0", role: "region", "aria-label": "The page's text" }, page.text)]);
  if (page?.links?.length) views.push([`Links (${page.links.length})`, () => linkList(page.links, base)]);
  views.push(["Event", raw]);
  box.append(...tabs(views));
}

function linkList(links, base) {
  const shown = links.slice(0, 500);
  const list = h("ul", {}, shown.map(({ href, text }) => h("li", {}, link(text || href, href, base))));
  return h("div", { class: "markdown", tabindex: "0", role: "region", "aria-label": "Links of the page" }, list, links.length > shown.length ? h("p", { class: "note" }, `and ${links.length - shown.length} more`) : null);
}

function tabs(views) {
  const panel = h("div", { role: "tabpanel", id: "detail-panel", tabindex: "-1" });
  const bar = h("div", { class: "tabs", role: "tablist", "aria-label": "Views of the page" });
  const open = (at) => {
    [...bar.children].forEach((tab, n) => {
      tab.setAttribute("aria-selected", String(n === at));
      tab.tabIndex = n === at ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", `detail-tab-${at}`);
    panel.replaceChildren(views[at][1]());
  };
  views.forEach(([name], at) => bar.append(h("button", { type: "button", role: "tab", id: `detail-tab-${at}`, "aria-controls": "detail-panel", click: () => open(at) }, name)));
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const now = [...bar.children].indexOf(document.activeElement);
    const next = (now + step + views.length) % views.length;
    open(next);
    bar.children[next].focus();
  });
  open(0);
  return [bar, panel];
}
