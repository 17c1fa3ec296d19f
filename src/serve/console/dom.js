// Building nodes: text is always text here, never markup.

const $ = (id) => document.getElementById(id);

/** An element: `h("p", { class: "note" }, "text", child)`. Functions become listeners. */
function h(tag, props = {}, ...children) {
  return furnish(document.createElement(tag), props, children);
}

/** The same for SVG. */
function s(tag, props = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), props, children);
}

function furnish(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Whether an address may become a link: http and https alone. */
function safeUrl(text, base) {
  try {
    const url = new URL(text, base || undefined);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null;
  }
}

/** A link to somewhere else, or its text where it may be none. */
function link(text, href, base) {
  const url = safeUrl(href, base);
  if (!url) return h("span", {}, text);
  const attributes = { href: url, target: "_blank", rel: "noopener noreferrer", referrerpolicy: "no-referrer" };
  return h("a", attributes, text);
}

const count = (number) => Number(number).toLocaleString("en");

/** A number with three digits, or with as many as it needs in front of its point. */
const three = (number) => (number < 99.95 ? number.toPrecision(3) : count(Math.round(number)));

/** Microseconds with three digits and a unit that suits. */
function micros(us) {
  if (us < 999.5) return `${Math.round(us)} µs`;
  return us < 999500 ? `${three(us / 1e3)} ms` : `${three(us / 1e6)} s`;
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${at === 0 ? Math.round(number) : three(number)} ${units[at]}`;
}

/** Remembers the choice of light or dark; without one the system's counts. */
function setUpTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("forebay-theme");
    } catch {}
    document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  };
  button.hidden = false;
  system.addEventListener("change", apply);
  button.addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("forebay-theme", next);
    } catch {}
    document.documentElement.dataset.theme = next;
  });
  apply();
}
