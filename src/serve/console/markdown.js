// Markdown as nodes. A document comes from anywhere on the web: every pattern here is bounded, every
// node is built by name, and what is not understood stays text.

const MARKDOWN_CHARS_MAX = 300000;
const INLINE_CHARS_MAX = 20000;
const INLINE =
  /\\([\\`*_{}[\]()#+\-.!<>|~])|(`{1,3})([^`]{1,400}?)\2|!?\[([^[\]]{0,300})\]\(\s{0,9}<?([^\s()<>]{0,1500}(?:\([^\s()<>]{0,300}\)[^\s()<>]{0,300})?)>?(?:\s{1,9}"[^"]{0,300}")?\s{0,9}\)|(\*\*|__)(?=\S)([^\n]{1,300}?\S)\6|(\*|_)(?=[^\s*_])([^*_\n]{1,300})\8|<(https?:[^\s<>]{1,1500})>/g;

/** The nodes of a document; `base` is what its links are relative to. */
function markdown(text, base) {
  const root = h("div", { class: "markdown", tabindex: "0", role: "region", "aria-label": "Document" });
  const cut = text.length > MARKDOWN_CHARS_MAX;
  const lines = (cut ? text.slice(0, MARKDOWN_CHARS_MAX) : text).split(/\r?\n/);
  blocks(lines, root, base, 0);
  if (cut) root.append(h("p", { class: "note" }, `The rest of ${count(text.length)} characters is left out here; the raw event has it.`));
  return root;
}

const LIST_ITEM = /^(\s{0,12})([-*+]|\d{1,9}[.)])\s+(.*)$/;

function blocks(lines, parent, base, depth) {
  let at = 0;
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) parent.append(inline(paragraph.join("\n"), h("p"), base, 0));
    paragraph = [];
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = /^\s{0,3}(`{3,}|~{3,})/.exec(line);
    const heading = /^\s{0,3}(#{1,6})\s+(.*?)\s*#*$/.exec(line.slice(0, 2000));
    if (!line.trim()) {
      flush();
      at += 1;
    } else if (fence) {
      flush();
      const code = [];
      for (at += 1; at < lines.length && !lines[at].trim().startsWith(fence[1]); at += 1) code.push(lines[at]);
      at += 1;
      parent.append(h("pre", { tabindex: "0" }, h("code", {}, code.join("\n"))));
    } else if (heading) {
      flush();
      parent.append(inline(heading[2], h(`h${Math.min(heading[1].length, 4)}`), base, 0));
      at += 1;
    } else if (/^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line.slice(0, 200))) {
      flush();
      parent.append(h("hr"));
      at += 1;
    } else if (/^\s{0,3}>/.test(line) && depth < 4) {
      flush();
      const quoted = [];
      for (; at < lines.length && /^\s{0,3}>/.test(lines[at]); at += 1) quoted.push(lines[at].replace(/^\s{0,3}>\s?/, ""));
      const quote = h("blockquote");
      blocks(quoted, quote, base, depth + 1);
      parent.append(quote);
    } else if (LIST_ITEM.test(line) && depth < 6) {
      flush();
      at = listOf(lines, at, parent, base, depth);
    } else if (line.includes("|") && /^\s*\|?[\s:|-]{3,}$/.test(lines[at + 1] ?? "")) {
      flush();
      at = tableOf(lines, at, parent, base);
    } else {
      paragraph.push(line);
      at += 1;
    }
  }
  flush();
}

function listOf(lines, at, parent, base, depth) {
  const [, indent, mark] = LIST_ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const node = h(ordered ? "ol" : "ul", ordered && parseInt(mark, 10) !== 1 ? { start: parseInt(mark, 10) } : {});
  while (at < lines.length) {
    const item = LIST_ITEM.exec(lines[at]);
    if (!item || item[1].length < indent.length || /\d/.test(item[2]) !== ordered) break;
    if (item[1].length > indent.length + 1) break;
    const inner = [item[3]];
    const hang = indent.length + 2;
    for (at += 1; at < lines.length; at += 1) {
      const deeper = lines[at].startsWith(" ".repeat(hang));
      if (!deeper && (!lines[at].trim() || LIST_ITEM.test(lines[at]) || /^\s{0,3}[#>]/.test(lines[at]))) break;
      inner.push(deeper ? lines[at].slice(hang) : lines[at]);
    }
    while (at < lines.length && !lines[at].trim() && LIST_ITEM.test(lines[at + 1] ?? "")) at += 1;
    const entry = h("li");
    if (inner.length === 1) inline(inner[0], entry, base, 0);
    else blocks(inner, entry, base, depth + 1);
    node.append(entry);
  }
  parent.append(node);
  return at;
}

function tableOf(lines, at, parent, base) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").slice(0, 40);
  const row = (line, tag) => h("tr", {}, cells(line).map((cell) => inline(cell.trim(), h(tag), base, 0)));
  const node = h("table", {}, h("thead", {}, row(lines[at], "th")));
  const body = h("tbody");
  for (at += 2; at < lines.length && lines[at].includes("|"); at += 1) body.append(row(lines[at], "td"));
  node.append(body);
  parent.append(node);
  return at;
}

/** Appends a line's nodes to a parent. */
function inline(text, parent, base, depth) {
  if (text.length > INLINE_CHARS_MAX || depth > 3) {
    parent.append(text);
    return parent;
  }
  let from = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > from) parent.append(text.slice(from, found.index));
    from = found.index + found[0].length;
    const [whole, escaped, , code, label, target, , strong, , emphasis, bare] = found;
    if (escaped !== undefined) parent.append(escaped);
    else if (code !== undefined) parent.append(h("code", {}, code));
    else if (target !== undefined) {
      const node = link("", target, base);
      // An image is told of, not fetched: this page loads nothing from elsewhere.
      if (whole.startsWith("!")) node.append(`[image: ${label || "no description"}]`);
      else inline(label || target, node, base, depth + 1);
      parent.append(node);
    } else if (strong !== undefined) parent.append(inline(strong, h("strong"), base, depth + 1));
    else if (emphasis !== undefined) parent.append(inline(emphasis, h("em"), base, depth + 1));
    else if (bare !== undefined) parent.append(link(bare, bare, base));
  }
  if (from < text.length) parent.append(text.slice(from));
  return parent;
}
