// The form: what to ask for and how, as the body of a request.

/** Options with their defaults, as the description of the API has them. */
const OPTIONS = [
  { name: "concurrency", label: "Fetches at a time", kind: "number", value: 16, min: 1, max: 256 },
  { name: "order", label: "Order of results", kind: "select", value: "completion", from: ["completion", "input"] },
  { name: "cache_mode", label: "Cache", kind: "select", value: "read_through", from: ["read_through", "bypass", "read_only", "write_only", "revalidate"] },
  { name: "max_age_s", label: "Oldest page, s", kind: "number", value: 3600, min: 0, max: 31536000 },
  { name: "timeout_ms", label: "For one page, ms", kind: "number", value: 15000, min: 1, max: 600000 },
  { name: "deadline_ms", label: "For all, ms", kind: "number", value: 60000, min: 1, max: 3600000 },
  { name: "resume_window_s", label: "Resume window, s", kind: "number", value: 120, min: 0, max: 3600 },
  { name: "progress_ms", label: "Progress every, ms", kind: "number", value: 250, min: 0, max: 60000 },
  { name: "redirects", label: "Redirects", kind: "number", value: 5, min: 0, max: 20 },
  { name: "max_body_bytes", label: "Bytes of a page", kind: "number", value: 10485760, min: 1, max: 67108864 },
  { name: "extractor", label: "Extractor", kind: "select", value: "article", from: ["article", "full"] },
  { name: "robots", label: "robots.txt", kind: "select", value: "respect", from: ["respect", "ignore"] },
  { name: "slow_client", label: "A slow client", kind: "select", value: "block", from: ["block", "disconnect"] },
  { name: "freshness", label: "Freshness by", kind: "select", value: "ttl", from: ["ttl", "http"] },
  { name: "user_agent", label: "User-Agent", kind: "text", value: "", wide: true },
  { name: "formats", label: "Formats", kind: "checks", value: ["markdown", "text", "links", "metadata"], wide: true },
];

class Form {
  constructor(changed) {
    this.changed = changed;
    $("options").append(...OPTIONS.map((option) => this.field(option)));
    $("ask").addEventListener("input", () => this.update());
    this.update();
  }

  field(option) {
    const id = `option-${option.name}`;
    const wide = option.wide ? { class: "wide" } : {};
    if (option.kind === "checks") {
      const checks = option.value.map((name) =>
        h("label", { class: "check" }, h("input", { type: "checkbox", name: id, value: name, checked: true }), name),
      );
      return h("fieldset", wide, h("legend", {}, option.label), h("div", { class: "checks" }, checks));
    }
    const input =
      option.kind === "select"
        ? h("select", { id }, option.from.map((name) => h("option", { value: name, selected: name === option.value }, name)))
        : h("input", { id, type: option.kind, value: option.value, min: option.min, max: option.max, placeholder: option.kind === "text" ? "the server's own" : null });
    return h("div", wide, h("label", { for: id }, option.label), input);
  }

  get mode() {
    return new FormData($("ask")).get("mode");
  }

  get transport() {
    return new FormData($("ask")).get("transport");
  }

  urls() {
    return $("urls").value.split(/\s+/).filter(Boolean);
  }

  /** Options that differ from their defaults. */
  options() {
    const found = {};
    for (const { name, kind, value } of OPTIONS) {
      if (kind === "checks") {
        const chosen = [...document.getElementsByName(`option-${name}`)].filter((box) => box.checked).map((box) => box.value);
        if (chosen.length !== value.length) found[name] = chosen;
        continue;
      }
      const text = $(`option-${name}`).value.trim();
      const own = kind === "number" && text !== "" ? Number(text) : text;
      if (own !== value && own !== "") found[name] = own;
    }
    return found;
  }

  /** The request as it stands. */
  ask() {
    const options = this.options();
    const body = this.mode === "search" ? { query: $("query").value.trim(), limit: Number($("limit").value) || 10 } : { urls: this.urls() };
    if (Object.keys(options).length) body.options = options;
    return { mode: this.mode, body };
  }

  /** What is missing, in words; nothing where it can be sent. */
  missing() {
    if (this.mode === "search") return $("query").value.trim() ? "" : "Enter a query.";
    const urls = this.urls();
    if (!urls.length) return "Paste at least one URL.";
    const bad = urls.find((url) => !safeUrl(url));
    return bad ? `${bad.slice(0, 80)} is no http or https URL.` : "";
  }

  update() {
    const search = this.mode === "search";
    $("urls-field").hidden = search;
    $("query-field").hidden = !search;
    const number = this.urls().length;
    const missing = this.missing();
    $("urls-note").textContent = number && missing ? missing : number ? `${count(number)} ${number === 1 ? "page" : "pages"}` : "Nothing to fetch yet.";
    const changed = Object.keys(this.options()).length;
    $("options-note").textContent = changed ? `${changed} changed` : "defaults";
    this.changed();
  }
}
