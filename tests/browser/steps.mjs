// What the tests of the pages have in common: opening one, filling its form, waiting, and events that
// are made up.

import assert from "node:assert/strict";
import { sleep } from "./server.mjs";

/** Opens the console and fails the test on any error of its script or its policy. */
export async function open(browser, url, options = {}) {
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

export async function close(page) {
  assert.deepEqual(page.errors, []);
  await page.context().close();
}

export const urls = (origin, number, query = "size=3000") => [...Array(number).keys()].map((n) => `${origin.url}/page/${n}?${query}`);

export async function start(page, lines, { transport = "ndjson", options = {} } = {}) {
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

export const text = (page, selector) => page.locator(selector).textContent();
export const results = (page) => page.evaluate(() => window.forebayConsole.ledger().indices.size);

export async function until(page, what, condition, seconds = 60) {
  for (let n = 0; n < seconds * 20; n += 1) {
    if (await condition()) return;
    await sleep(50);
  }
  const told = await page.evaluate(() => ["state", "proof", "alert"].map((id) => document.getElementById(id)?.textContent));
  throw new Error(`never: ${what}; ${JSON.stringify(told)}`);
}

export const complete = (page) => until(page, "complete", async () => (await text(page, "#state")) === "complete");

export async function assertProof(page, pattern) {
  await page.waitForFunction((source) => new RegExp(source).test(document.getElementById("proof").textContent), pattern.source);
  assert.equal(await page.getAttribute("#proof", "data-state"), "good");
}

/** Answers the next crawls of a page with events that are made up. */
export const answerWith = (page, events) =>
  page.evaluate((events) => {
    window.realFetch ??= window.fetch;
    const body = events.map((event) => `${JSON.stringify(event)}\n`).join("");
    window.fetch = (path, init) => (path === "/crawl/stream" ? Promise.resolve(new Response(body)) : window.realFetch(path, init));
  }, events);

export const madeUp = {
  metadata: (total) => ({ type: "metadata", seq: 0, stream_id: "01J90000000000000000000000", total_urls: total }),
  result: (seq, index, more = {}) => {
    const result = { url: `http://a.example/${index}`, status: 200, cache: "miss", timings_us: { dns: 5 }, document: null, error: null };
    return { type: "result", seq, index, result: { ...result, ...more }, progress: {} };
  },
  gap: (seq, from, to) => ({ type: "gap", seq, from_seq: from, to_seq: to, reason: "window_exceeded" }),
  summary: (seq, total, more = {}) => ({ type: "summary", seq, last_seq: seq, total_urls: total, successful: total, failed: 0, cancelled: 0, status: "completed", ...more }),
};

/** Runs in the page: `window.texts` as a stream's events over a transport, as fast as they can come. */
export async function flood(transport) {
  const { ledger, frames } = window.forebayConsole;
  const before = frames.drawn;
  frames.longest = 0;
  const real = { fetch: window.fetch, WebSocket: window.WebSocket };
  const lines = transport === "sse" ? window.texts.flatMap((text) => [`event: x\ndata: ${text}\n\n`]) : window.texts.flatMap((text) => [text, "\n"]);
  const body = new Blob(lines);
  window.fetch = (path, init) => (init?.method === "POST" ? Promise.resolve(new Response(body.stream())) : real.fetch(path, init));
  // Each message is a task of its own, as those of a socket are.
  window.WebSocket = class {
    constructor() {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = ({ data }) => this.onmessage({ data });
      this.port = port2;
      setTimeout(() => this.onopen(), 0);
    }
    async send() {
      for (let at = 0; at < window.texts.length; at += 100) {
        for (const text of window.texts.slice(at, at + 100)) this.port.postMessage(text);
        await new Promise((resolve) => setTimeout(resolve, 0));
      }
    }
    close() {}
  };
  let [answered, gap, last] = [0, 0, performance.now()];
  const tick = () => {
    const now = performance.now();
    [answered, gap, last] = [answered + 1, Math.max(gap, now - last), now];
  };
  const old = ledger();
  // What an EventSource can't ask for goes by fetch.
  document.getElementById("urls").value = Array(1000).fill("http://a.example/").join("\n");
  document.getElementById("start").click();
  const ticking = setInterval(tick, 5);
  while (ledger() === old || !ledger().over) await new Promise((resolve) => setTimeout(resolve, 5));
  await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  clearInterval(ticking);
  Object.assign(window, real);
  const rows = document.querySelectorAll("#events .event").length;
  return { answered, gap, longest: frames.longest, drawn: frames.drawn - before, rows, total: ledger().indices.size };
}

export const slow = { cache_mode: "bypass", concurrency: 2 };
