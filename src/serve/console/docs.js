// What a script adds to the description: this server's address in the examples, buttons that copy
// them, a filter for the contents, and a mark at what is being read.

const ADDRESS = /\b(https?|wss?):\/\/localhost:\d+/g;

/** Examples name this server as the reader's browser knows it. */
function localize(node) {
  const secure = location.protocol === "https:";
  node.textContent = node.textContent.replace(ADDRESS, (_, scheme) => {
    const own = scheme.startsWith("ws") ? `ws${secure ? "s" : ""}:` : location.protocol;
    return `${own}//${location.host}`;
  });
}

function copyButton(node) {
  const button = h("button", { type: "button", class: "copy", "aria-label": "Copy the example" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(node.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(node);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  const box = h("div", { class: "example" });
  node.replaceWith(box);
  box.append(node, button);
}

/** Leaves only those entries of the contents that have the words. */
function filter(index) {
  const input = h("input", { type: "search", id: "filter", placeholder: "Filter", "aria-label": "Filter the contents", spellcheck: "false" });
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const list of index.querySelectorAll("ul")) {
      for (const entry of list.children) {
        const text = entry.textContent.toLowerCase();
        entry.hidden = !words.every((word) => text.includes(word));
      }
      const none = [...list.children].every((entry) => entry.hidden);
      list.hidden = none;
      list.previousElementSibling.hidden = none && words.length > 0;
    }
  });
  index.prepend(input);
}

/** Marks the entry of what stands at the top of the window. */
function follow(index) {
  const links = new Map([...index.querySelectorAll("li a")].map((link) => [decodeURIComponent(link.hash.slice(1)), link]));
  const targets = [...links.keys()].map((id) => document.getElementById(id)).filter(Boolean);
  let marked = null;
  const mark = () => {
    const now = links.get(targets.findLast((target) => target.getBoundingClientRect().top < 140)?.id) ?? null;
    if (now === marked) return;
    marked?.removeAttribute("aria-current");
    now?.setAttribute("aria-current", "true");
    marked = now;
    // Beside the text, not above it: only there does the list scroll by itself.
    if (now && index.scrollHeight > index.clientHeight && getComputedStyle(index).position === "sticky") {
      index.scrollTop += now.getBoundingClientRect().top - index.getBoundingClientRect().top - index.clientHeight / 2;
    }
  };
  let waiting = false;
  addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      mark();
    });
  }, { passive: true });
  mark();
}

setUpTheme($("theme"));
document.querySelectorAll("pre.curl").forEach(localize);
document.querySelectorAll("pre").forEach(copyButton);
filter($("index"));
follow($("index"));
