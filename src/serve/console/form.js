// The form: what to ask for and how, as the body of a request. Which options there are, their defaults
// and their bounds are the server's own: `/openapi.json` says them.

/** Labels in the order in which they are shown; an option that is not named here comes last. */
const LABELS = {
  concurrency: "Fetches at a time", order: "Order of results", cache_mode: "Cache", max_age_s: "Oldest page, s",
  freshness: "Freshness by", extractor: "Extractor", timeout_ms: "For one page, ms", deadline_ms: "For all, ms",
  robots: "robots.txt", redirects: "Redirects", max_body_bytes: "Bytes of a page", resume_window_s: "Resume window, s",
  progress_ms: "Progress every, ms", slow_client: "A slow client", stall_timeout_ms: "Stall timeout, ms",
  user_agent: "User-Agent", headers: "Headers, one a line", formats: "Formats", follow: "Follow links",
  limit: "Hits", country: "Country", locale: "Language", include_content: "Fetch the hits",
  "follow.depth": "Depth", "follow.max_pages": "Pages at most", "follow.same_host": "Same host only",
  "follow.include": "Only URLs like, one a line", "follow.exclude": "No URLs like, one a line", "follow.sitemap": "Sitemaps, too",
};
const HINTS = { user_agent: "the server's own", headers: "X-Name: value", country: "us", locale: "en", limit: "10", "follow.max_pages": "100", "follow.include": "/docs/*", "follow.exclude": "*.pdf" };

/** A schema that may be null or refers to another one, as the one that counts. */
function schemaOf(root, schema) {
  let found = schema;
  for (let hops = 0; hops < 8; hops += 1) {
    if (found.$ref) found = { ...found.$ref.slice(2).split("/").reduce((at, part) => at?.[part], root), ...found, $ref: undefined };
    else if (!found.type && found.anyOf) {
      const { anyOf, ...rest } = found;
      found = { ...anyOf.find((each) => each.type !== "null"), ...rest };
    } else break;
  }
  return found;
}

/** Fields of an object's schema: nodes, and what they say where it is not the default. */
class Fields {
  constructor(root, schema, prefix) {
    const known = Object.keys(LABELS);
    const rank = (name) => (known.includes(prefix + name) ? known.indexOf(prefix + name) : known.length);
    const names = Object.keys(schema.properties).sort((one, other) => rank(one) - rank(other));
    this.fields = names.map((name) => [name, fieldOf(root, `${prefix}${name}`, schemaOf(root, schema.properties[name]))]);
    this.nodes = this.fields.map(([, field]) => field.node);
  }

  get value() {
    const found = {};
    for (const [name, { value }] of this.fields) {
      const own = value();
      if (own !== undefined) found[name] = own;
    }
    return found;
  }
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

/** One field: its node, and `value()`, which is undefined at the default. */
function fieldOf(root, path, schema) {
  const id = `option-${path}`;
  const label = LABELS[path] ?? path;
  const about = { title: (schema.description ?? "").replaceAll("`", "") };
  const types = [schema.type].flat();
  const initial = schema.default ?? null;
  const labelled = (input, wide) => h("div", wide ? { class: "wide" } : {}, h("label", { for: id, ...about }, label), input);
  if (types.includes("object") && schema.properties) return objectOf(root, path, schema, label, about);
  if (types.includes("boolean")) {
    const box = h("input", { type: "checkbox", id, checked: initial === true });
    return { node: h("label", { class: "check", ...about }, box, label), value: () => (box.checked === initial ? undefined : box.checked) };
  }
  if (schema.items?.enum) return checksOf(id, schema, label, about);
  if (schema.enum) {
    const words = schema.enum.filter((word) => word !== null && word !== "enabled");
    const own = initial === null ? [h("option", { value: "" }, "default")] : [];
    const select = h("select", { id }, own, words.map((word) => h("option", { value: word, selected: word === initial }, word)));
    return { node: labelled(select), value: () => (select.value === (initial ?? "") ? undefined : select.value) };
  }
  if (types.includes("integer")) {
    const bounds = (schema.anyOf ?? []).find((each) => "maximum" in each) ?? schema;
    const least = (schema.anyOf ?? []).some((each) => each.const === 0) ? 0 : bounds.minimum;
    const input = h("input", { id, type: "number", value: initial, min: least, max: bounds.maximum, placeholder: HINTS[path] });
    return { node: labelled(input), value: () => (input.value === "" || Number(input.value) === initial ? undefined : Number(input.value)) };
  }
  if (schema.type === "object" || schema.type === "array") {
    const input = h("textarea", { id, rows: 2, spellcheck: "false", placeholder: HINTS[path] });
    const pairs = (text) => Object.fromEntries(lines(text).map((line) => /^([^:]*):?(.*)$/.exec(line).slice(1, 3).map((part) => part.trim())));
    const read = schema.type === "object" ? pairs : lines;
    return { node: labelled(input, true), value: () => (input.value.trim() ? read(input.value) : undefined) };
  }
  const input = h("input", { id, type: "text", spellcheck: "false", value: initial, placeholder: HINTS[path] });
  return { node: labelled(input, path === "user_agent"), value: () => (input.value.trim() === (initial ?? "") ? undefined : input.value.trim()) };
}

/** A list of words, each with a box. */
function checksOf(id, schema, label, about) {
  const boxes = schema.items.enum.map((word) => h("input", { type: "checkbox", name: id, value: word, checked: schema.default.includes(word) }));
  const checks = boxes.map((box) => h("label", { class: "check" }, box, box.value));
  const value = () => {
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    return chosen.join() === schema.default.join() ? undefined : chosen;
  };
  return { node: h("fieldset", { class: "wide" }, h("legend", about, label), h("div", { class: "checks" }, checks)), value };
}

/** An object that is there or not: a box, and its fields behind it. */
function objectOf(root, path, schema, label, about) {
  const inner = new Fields(root, schema, `${path}.`);
  const box = h("input", { type: "checkbox", id: `option-${path}` });
  const grid = h("div", { class: "grid", hidden: true }, inner.nodes);
  box.addEventListener("input", () => (grid.hidden = !box.checked));
  const node = h("fieldset", { class: "wide inner" }, h("legend", { class: "hidden" }, label), h("label", { class: "check", ...about }, box, label), grid);
  return { node, value: () => (box.checked ? inner.value : undefined) };
}

class Form {
  constructor() {
    this.own = null;
    this.search = null;
    $("ask").addEventListener("input", () => this.update());
    this.update();
    this.load();
  }

  /** Asks the server what there is to choose. */
  async load() {
    try {
      const response = await fetch("/openapi.json", { headers: headers() });
      if (!response.ok) throw await refusalOf(response);
      const root = await response.json();
      const { Options, DeepsearchRequest } = root.components.schemas;
      const { query, options, ...search } = DeepsearchRequest.properties;
      this.own = new Fields(root, Options, "");
      this.search = new Fields(root, { properties: search }, "");
      $("query").maxLength = query.maxLength;
      $("options").replaceChildren(...this.own.nodes);
      $("search-options").replaceChildren(...this.search.nodes);
      this.update();
    } catch (error) {
      $("options-note").textContent = `can't be read: ${error.message}`;
    }
  }

  get mode() {
    return new FormData($("ask")).get("mode");
  }

  get transport() {
    return new FormData($("ask")).get("transport");
  }

  /** The field that has to be filled first. */
  first() {
    return $(this.mode === "search" ? "query" : "urls");
  }

  urls() {
    return $("urls").value.split(/\s+/).filter(Boolean);
  }

  /** The request as it stands; options only where they differ from their defaults. */
  ask() {
    const options = this.own?.value ?? {};
    const body = this.mode === "search" ? { query: $("query").value.trim(), ...this.search?.value } : { urls: this.urls() };
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
    const changed = Object.keys(this.own?.value ?? {}).length;
    $("options-note").textContent = !this.own ? "…" : changed ? `${changed} changed` : "defaults";
  }
}
