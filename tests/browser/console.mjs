// The console in a real browser: a crawl over each transport, a cut network, a resume, a cancel, light
// and dark, 10,000 events, a hostile document, and what a keyboard and a screen reader need.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { sleep } from "./server.mjs";

/** Opens the console and fails the test on any error of its script or its policy. */
async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error" && /Content Security Policy|Trusted/.test(message.text())) page.errors.push(message.text());
  });
  await page.goto(url);
  return page;
}

async function close(page) {
  assert.deepEqual(page.errors, []);
  await page.context().close();
}

const urls = (origin, number, query = "size=3000") => [...Array(number).keys()].map((n) => `${origin.url}/page/${n}?${query}`);

async function start(page, lines, { transport = "ndjson", options = {} } = {}) {
  await page.fill("#urls", lines.join("\n"));
  await page.check(`input[name=transport][value=${transport}]`, { force: true });
  if (Object.keys(options).length) await page.evaluate(() => (document.querySelector(".options").open = true));
  for (const [name, value] of Object.entries(options)) {
    const field = page.locator(`#option-${name}`);
    if ((await field.evaluate((node) => node.tagName)) === "SELECT") await field.selectOption(value);
    else await field.fill(String(value));
  }
  await page.click("#start");
}

const text = (page, selector) => page.locator(selector).textContent();
const results = (page) => page.evaluate(() => window.forebayConsole.ledger().indices.size);

async function until(page, what, condition, seconds = 60) {
  for (let n = 0; n < seconds * 20; n += 1) {
    if (await condition()) return;
    await sleep(50);
  }
  const told = await page.evaluate(() => ["state", "proof", "alert"].map((id) => document.getElementById(id).textContent));
  throw new Error(`never: ${what}; ${JSON.stringify(told)}`);
}

const complete = (page) => until(page, "complete", async () => (await text(page, "#state")) === "complete");

async function assertProof(page, pattern) {
  await page.waitForFunction((source) => new RegExp(source).test(document.getElementById("proof").textContent), pattern.source);
  assert.equal(await page.getAttribute("#proof", "data-state"), "good");
}

const slow = { cache_mode: "bypass", concurrency: 2 };

export const tests = {
  async "the console runs a crawl over each transport"({ origin, server, browser }) {
    const page = await open(browser, server.url);
    for (const transport of ["ndjson", "sse", "ws"]) {
      await start(page, urls(origin, 6), { transport });
      await complete(page);
      await assertProof(page, /Nothing is missing: seq 0 to 7 .*6 of 6 pages/);
      assert.equal(await page.locator("#events .event").count(), 8);
      assert.ok((await page.locator("#events .event .bar i").count()) > 0, "stages as bars");
    }
    await close(page);
  },

  async "the console goes on where the network was cut, over each transport"({ origin, proxy, browser }) {
    const page = await open(browser, proxy.url);
    for (const transport of ["ndjson", "ws"]) {
      await start(page, urls(origin, 40, "size=2000&latency=40ms"), { transport, options: slow });
      await until(page, "a few results", async () => (await results(page)) > 3);
      proxy.refuse = true;
      proxy.cut();
      await until(page, "cut", async () => (await text(page, "#state")) === "cut");
      proxy.refuse = false;
      await page.click("#resume");
      await complete(page);
      await assertProof(page, /Nothing is missing: seq 0 to 41 without a hole, 1 resume,.*40 of 40/);
    }
    await start(page, urls(origin, 40, "size=2000&latency=40ms"), { transport: "sse", options: slow });
    await until(page, "a few results", async () => (await results(page)) > 3);
    proxy.cut();
    await complete(page);
    await assertProof(page, /Nothing is missing: seq 0 to 41 without a hole/);
    await close(page);
  },

  async "the console's own buttons cut, resume and cancel"({ origin, server, browser }) {
    const page = await open(browser, server.url);
    await start(page, urls(origin, 60, "size=2000&latency=60ms"), { options: slow });
    await until(page, "a few results", async () => (await results(page)) > 2);
    await page.click("#cut");
    assert.equal(await text(page, "#state"), "cut");
    await page.click("#resume");
    await until(page, "more results", async () => (await results(page)) > 6);
    await page.click("#cancel");
    await complete(page);
    await assertProof(page, /Nothing is missing: .*1 resume.*60 of 60/);
    const summary = await page.evaluate(() => window.forebayConsole.ledger().summary);
    assert.equal(summary.status, "cancelled");
    assert.ok(summary.cancelled > 0);
    await close(page);
  },

  async "what the server refuses is told with its field"({ origin, server, browser }) {
    const page = await open(browser, server.url);
    await page.click("#start");
    assert.match(await text(page, "#alert"), /at least one URL/);
    await start(page, urls(origin, 1), { options: { concurrency: 999 } });
    await until(page, "refused", async () => /options\.concurrency/.test(await text(page, "#alert")));
    assert.equal(await text(page, "#state"), "failed");
    await page.check("input[name=mode][value=search]", { force: true });
    await page.fill("#query", "rivers");
    await page.fill("#option-concurrency", "16");
    await page.click("#start");
    // A search runs as well, and finds nothing in the index of a server that has fetched nothing.
    await until(page, "searched", async () => (await text(page, "#state")) === "complete");
    await close(page);
  },

  async "what is copied as curl does the same in a terminal"({ origin, server, browser }) {
    const page = await open(browser, server.url, { permissions: ["clipboard-read", "clipboard-write"] });
    for (const transport of ["ndjson", "sse"]) {
      await page.check(`input[name=transport][value=${transport}]`, { force: true });
      await page.fill("#urls", `${origin.url}/page/3?size=2000&q=it's\n${origin.url}/page/4?q="$HOME"`);
      await page.click("#curl");
      await until(page, "copied", async () => (await text(page, "#copied")) === "Copied.");
      const command = await page.evaluate(() => navigator.clipboard.readText());
      const { stdout } = await promisify(execFile)("bash", ["-c", `${command} -s`], { timeout: 60_000 });
      const lines = stdout.split("\n").map((line) => (transport === "sse" ? line.replace(/^data: /, "") : line));
      const events = lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
      assert.equal(stdout.includes("data: {"), transport === "sse");
      assert.equal(events.at(-1).type, "summary");
      const asked = events.filter((event) => event.type === "result").map((event) => event.result.url);
      assert.deepEqual(asked.sort(), [`${origin.url}/page/3?size=2000&q=it's`, `${origin.url}/page/4?q="$HOME"`]);
      await page.evaluate(() => (document.getElementById("copied").textContent = ""));
    }
    await close(page);
  },

  async "10,000 events leave the page alive"({ origin, server, browser }) {
    const page = await open(browser, server.url);
    await page.check("#ephemeral");
    for (let round = 0; round < 2; round += 1) {
      // The second round comes from the cache, as fast as it can.
      await start(page, urls(origin, 1000, "size=200"), { options: { concurrency: 64, progress_ms: 10 } });
      await complete(page);
    }
    const seen = await page.evaluate(async () => {
      const { ledger, frames } = window.forebayConsole;
      const before = frames.drawn;
      const summary = JSON.stringify(ledger().summary);
      // The same events ten times over, as ten thousand results of one stream.
      const lines = ledger().events.filter((row) => row.type === "result").map((row) => JSON.parse(row.text));
      const total = 10000;
      const texts = [JSON.stringify({ type: "metadata", seq: 0, stream_id: "01J90000000000000000000000", total_urls: total })];
      for (let n = 0; n < total; n += 1) {
        const event = { ...lines[n % lines.length], seq: n + 1, index: n, progress: { completed: n + 1, total, success_rate: 1 } };
        texts.push(JSON.stringify(event));
      }
      texts.push(JSON.stringify({ ...JSON.parse(summary), seq: total + 1, last_seq: total + 1, total_urls: total }));
      const body = new Blob([texts.join("\n"), "\n"]);
      const real = window.fetch;
      window.fetch = (path, init) => (path === "/crawl/stream" ? Promise.resolve(new Response(body.stream())) : real(path, init));
      // A page that is alive answers between two portions of events.
      let answered = 0;
      const ticking = setInterval(() => (answered += 1), 5);
      document.getElementById("start").click();
      while (!window.forebayConsole.ledger().over || window.forebayConsole.ledger().total !== total) await new Promise((resolve) => setTimeout(resolve, 5));
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      clearInterval(ticking);
      window.fetch = real;
      return { answered, drawn: frames.drawn - before, rows: document.querySelectorAll("#events .event").length, total: ledger().indices.size };
    });
    assert.equal(seen.total, 10000);
    assert.ok(seen.answered > 1, `the page answered ${seen.answered} times while the events came`);
    assert.ok(seen.drawn > 1, `drawn ${seen.drawn} times`);
    assert.ok(seen.rows < 60, `${seen.rows} rows are nodes`);
    await assertProof(page, /seq 0 to 10,001 without a hole.*10,000 of 10,000/);
    await page.locator("#events").focus();
    await page.keyboard.press("End");
    assert.match(await text(page, "#detail h3"), /summary/);
    await close(page);
  },

  async "a hostile document is only text"({ server, browser }) {
    const page = await open(browser, server.url);
    const dialogs = [];
    page.on("dialog", (dialog) => dialogs.push(dialog.message()) && dialog.dismiss());
    const hostile = [
      "# <img src=x onerror=alert(1)>", "[click](javascript:alert(2))", "[data](data:text/html,<script>alert(3)</script>)",
      "<script>alert(4)</script>", "![x](https://tracker.invalid/p.png)", "[fine](https://example.com/a)", "[vb](vbscript:x)",
      "| a | <svg onload=alert(5)> |", "| --- | --- |", "| `</code><script>alert(6)</script>` | [j](JaVaScRiPt:alert(7)) |",
      "*".repeat(20000), "[".repeat(20000), "> ".repeat(500), "- ".repeat(2000), "`".repeat(5000),
    ].join("\n\n");
    await page.evaluate((text) => {
      const document = { title: "<b>t</b>", markdown: text, text, links: [{ href: "javascript:alert(8)", text: "<i>l</i>" }], word_count: 1 };
      const result = { url: "javascript:alert(9)", final_url: "https://a.example/", status: 200, cache: "miss", gate_decision: "approved", quality_score: 1, timings_us: { dns: 5 }, document, error: null };
      const events = [
        { type: "metadata", seq: 0, stream_id: "01J90000000000000000000000", total_urls: 1 },
        { type: "result", seq: 1, index: 0, result, progress: { completed: 1, total: 1 } },
        { type: "summary", seq: 2, last_seq: 2, total_urls: 1, successful: 1, failed: 0, cancelled: 0, status: "completed" },
      ];
      const real = window.fetch;
      const body = events.map((event) => `${JSON.stringify(event)}\n`).join("");
      window.fetch = (path, init) => (path === "/crawl/stream" ? Promise.resolve(new Response(body)) : real(path, init));
    }, hostile);
    await start(page, ["https://a.example/"]);
    await complete(page);
    await page.locator("#events .event").nth(1).click();
    assert.equal(await text(page, "#detail h3"), "<b>t</b>");
    for (const tab of [0, 1, 2, 3]) {
      await page.locator("#detail [role=tab]").nth(tab).click();
      const found = await page.evaluate(() => {
        const detail = document.getElementById("detail");
        const links = [...detail.querySelectorAll("a")];
        return {
          nodes: detail.querySelectorAll("img, script, svg, iframe, object, style, [onerror], [onload]").length,
          schemes: [...new Set(links.map((a) => new URL(a.href).protocol))],
          rels: [...new Set(links.map((a) => a.rel))],
        };
      });
      assert.equal(found.nodes, 0);
      assert.deepEqual(found.schemes, ["https:"]);
      assert.deepEqual(found.rels, ["noopener noreferrer"]);
    }
    assert.deepEqual(dialogs, []);
    await close(page);
  },

  async "light and dark follow the system and the button"({ server, browser }) {
    const colour = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await open(browser, server.url, { colorScheme: "light" });
    const dark = await open(browser, server.url, { colorScheme: "dark" });
    const [day, night] = [await colour(light), await colour(dark)];
    assert.notEqual(day, night);
    await light.click("#theme");
    assert.equal(await colour(light), night);
    await light.reload();
    assert.equal(await colour(light), night, "the choice is kept");
    await close(light);
    await close(dark);
  },

  async "an API key stays in its tab"({ server, browser }) {
    const page = await open(browser, server.url);
    await page.click("#key-box summary");
    await page.fill("#key", "fb_not-a-real-key");
    const [request] = await Promise.all([page.waitForRequest((each) => each.headers().authorization !== undefined), page.press("#key", "Enter")]);
    assert.equal(request.headers().authorization, "Bearer fb_not-a-real-key");
    assert.equal(await page.evaluate(() => Object.values(localStorage).join()), "");
    assert.equal(await page.inputValue("#key"), "");
    await close(page);
  },

  async "plots and gauges are drawn from the server's own numbers"({ origin, server, browser }) {
    const page = await open(browser, server.url);
    await start(page, urls(origin, 20));
    await complete(page);
    await page.waitForFunction(() => document.querySelectorAll("#percentiles path").length > 0 && document.querySelectorAll("#timeline path").length > 0);
    assert.ok((await page.locator("#table tbody tr").count()) > 3);
    assert.ok((await page.locator("#meters .meter").count()) >= 8);
    assert.match(await text(page, "#health"), /ready/);
    await close(page);
  },

  async "every control has a name, and a keyboard reaches it in the order of the page"({ origin, server, browser }) {
    for (const where of ["/", "/docs"]) {
      const page = await open(browser, `${server.url}${where}`);
      if (where === "/docs") await page.waitForSelector("#schema-Result");
      else {
        await start(page, urls(origin, 3));
        await complete(page);
        await page.locator("#events").focus();
        await page.keyboard.press("ArrowDown");
        await page.keyboard.press("ArrowDown");
        assert.equal(await page.locator("#events [aria-selected=true]").count(), 1);
      }
      const wrong = await page.evaluate(() => {
        const found = [];
        const name = (node) => node.getAttribute("aria-label") || node.labels?.[0]?.textContent || node.textContent.trim() || node.title;
        for (const node of document.querySelectorAll("button, input, select, textarea, a, summary, [role=listbox], [role=meter], svg[role=img]")) {
          if (!name(node)) found.push(`no name: ${node.id || node.className || node.tagName}`);
        }
        const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
        for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) found.push(`id twice: ${id}`);
        for (const node of document.querySelectorAll("[tabindex]")) if (node.tabIndex > 0) found.push(`tabindex ${node.tabIndex}`);
        for (const node of document.querySelectorAll("[aria-labelledby], [aria-activedescendant]")) {
          const target = node.getAttribute("aria-labelledby") ?? node.getAttribute("aria-activedescendant");
          if (!document.getElementById(target)) found.push(`nothing is ${target}`);
        }
        if (!document.documentElement.lang || !document.title || document.querySelectorAll("h1, main").length < 2) found.push("the page's frame");
        return found;
      });
      assert.deepEqual(wrong, []);
      await page.evaluate(() => document.activeElement.blur());
      await page.mouse.click(2, 2);
      const order = [];
      for (let n = 0; n < 14; n += 1) {
        await page.keyboard.press("Tab");
        order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.name || document.activeElement.textContent.trim().slice(0, 20)));
      }
      if (where === "/") for (const id of ["theme", "urls", "start"]) assert.ok(order.includes(id), `${id} in ${order}`);
      await close(page);
    }
  },

  async "nothing is wider than a phone"({ origin, server, browser }) {
    const page = await open(browser, server.url, { viewport: { width: 390, height: 844 } });
    await start(page, urls(origin, 5));
    await complete(page);
    await page.locator("#events .event").nth(1).click();
    const wide = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok((await wide()) <= 0, "the console");
    await page.goto(`${server.url}/docs`);
    await page.waitForSelector("#schema-Result");
    assert.ok((await wide()) <= 0, "the description");
    await close(page);
  },
};
