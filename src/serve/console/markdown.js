// Markdown as nodes. A document comes from anywhere on the web: every pattern here is bounded or tries
// each character once, every node is built by name, and what is not understood stays text.

const MARKDOWN_CHARS_MAX = 300000;
const INLINE_CHARS_MAX = 20000;
/** Characters by which a line is told to be a heading, an item, …; what it says is taken whole. */
const HEAD_CHARS_MAX = 2000;
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

const FENCE = /^[ \t]{0,3}(`{3,}|~{3,})/;
const HEADING = /^[ \t]{0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^[ \t]{0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^[ \t]{0,3}>[ \t]?/;
const LIST_ITEM = /^([ \t]{0,12})([-*+]|\d{1,9}[.)])[ \t]+/;
/** The line below a table's head. */
const TABLE_RULE = /^[ \t:|-]{3,}$/;

/** What a line begins with, if it begins like that. */
const begins = (pattern, line) => pattern.exec((line ?? "").slice(0, HEAD_CHARS_MAX));

function blocks(lines, parent, base, depth) {
  let at = 0;
  let paragraph = [];
  const flush = () => {
    if (paragraph.length) parent.append(inline(paragraph.join("\n"), h("p"), base, 0));
    paragraph = [];
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = begins(FENCE, line);
    const heading = begins(HEADING, line);
    if (!line.trim()) {
      flush();
      at += 1;
    } else if (fence) {
      flush();
      const code = [];
      for (at += 1; at < lines.length && !lines[at].trim().startsWith(fence[1]); at += 1) code.push(lines[at]);
      at += 1;
      parent.append(h("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, h("code", {}, code.join("\n"))));
    } else if (heading) {
      flush();
      const text = withoutClosing(line.slice(heading[0].length));
      parent.append(inline(text, h(`h${Math.min(heading[1].length, 4)}`), base, 0));
      at += 1;
    } else if (line.length < HEAD_CHARS_MAX && RULE.test(line)) {
      flush();
      parent.append(h("hr"));
      at += 1;
    } else if (begins(QUOTE, line) && depth < 4) {
      flush();
      const quoted = [];
      for (let mark; at < lines.length && (mark = begins(QUOTE, lines[at])); at += 1) quoted.push(lines[at].slice(mark[0].length));
      const quote = h("blockquote");
      blocks(quoted, quote, base, depth + 1);
      parent.append(quote);
    } else if (begins(LIST_ITEM, line) && depth < 6) {
      flush();
      at = listOf(lines, at, parent, base, depth);
    } else if (line.includes("|") && begins(TABLE_RULE, lines[at + 1])) {
      flush();
      at = tableOf(lines, at, parent, base);
    } else {
      paragraph.push(line);
      at += 1;
    }
  }
  flush();
}

/** A heading's text without the marks that may close it. */
function withoutClosing(text) {
  const whole = text.trim();
  let end = whole.length;
  while (end > 0 && whole[end - 1] === "#") end -= 1;
  return end === 0 || /\s/.test(whole[end - 1]) ? whole.slice(0, end).trimEnd() : whole;
}

function listOf(lines, at, parent, base, depth) {
  const [, indent, mark] = begins(LIST_ITEM, lines[at]);
  const ordered = /\d/.test(mark);
  const node = h(ordered ? "ol" : "ul", ordered && parseInt(mark, 10) !== 1 ? { start: parseInt(mark, 10) } : {});
  while (at < lines.length) {
    const item = begins(LIST_ITEM, lines[at]);
    if (!item || item[1].length < indent.length || /\d/.test(item[2]) !== ordered) break;
    if (item[1].length > indent.length + 1) break;
    const inner = [lines[at].slice(item[0].length)];
    const hang = indent.length + 2;
    for (at += 1; at < lines.length; at += 1) {
      const deeper = lines[at].startsWith(" ".repeat(hang));
      if (!deeper && (!lines[at].trim() || begins(LIST_ITEM, lines[at]) || /^[ \t]{0,3}[#>]/.test(lines[at]))) break;
      inner.push(deeper ? lines[at].slice(hang) : lines[at]);
    }
    while (at < lines.length && !lines[at].trim() && begins(LIST_ITEM, lines[at + 1])) at += 1;
    const entry = h("li");
    if (inner.length === 1) inline(inner[0], entry, base, 0);
    else blocks(inner, entry, base, depth + 1);
    node.append(entry);
  }
  parent.append(node);
  return at;
}

function tableOf(lines, at, parent, base) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|", 40);
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
