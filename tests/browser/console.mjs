// The console in a real Chromium: a crawl over each transport, a cut network, a resume, a cancel, light
// and dark, 10,000 events, a hostile document.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { binary, sleep, start as run, stop } from "./server.mjs";
import { answerWith, assertProof, close, complete, flood, madeUp, open, results, slow, start, text, until, urls } from "./steps.mjs";

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
    const made = await page.evaluate(async () => {
      const { ledger } = window.forebayConsole;
      // The same events ten times over, as ten thousand results of one stream.
      const lines = ledger().events.filter((row) => row.type === "result").map((row) => JSON.parse(row.text));
      const total = 10000;
      const texts = [JSON.stringify({ type: "metadata", seq: 0, stream_id: "01J90000000000000000000000", total_urls: total })];
      for (let n = 0; n < total; n += 1) {
        const event = { ...lines[n % lines.length], seq: n + 1, index: n, progress: { completed: n + 1, total, success_rate: 1 } };
        texts.push(JSON.stringify(event));
      }
      texts.push(JSON.stringify({ ...ledger().summary, seq: total + 1, last_seq: total + 1, total_urls: total, successful: total, failed: 0, cancelled: 0 }));
      window.texts = texts;
      return texts.length;
    });
    assert.equal(made, 10002);
    for (const transport of ["ndjson", "sse", "ws"]) {
      await page.check(`input[name=transport][value=${transport}]`, { force: true });
      const seen = await page.evaluate(flood, transport);
      assert.equal(seen.total, 10000, transport);
      // A page that is alive answers between two portions of events.
      assert.ok(seen.answered > 1, `${transport}: the page answered ${seen.answered} times while the events came`);
      assert.ok(seen.gap < 1000, `${transport}: the page was dead for ${seen.gap} ms`);
      assert.ok(seen.longest < 2000, `${transport}: an event waited ${seen.longest} ms for a chance to be drawn`);
      assert.ok(seen.drawn > 1, `${transport}: drawn ${seen.drawn} times`);
      assert.ok(seen.rows < 60, `${transport}: ${seen.rows} rows are nodes`);
      await assertProof(page, /seq 0 to 10,001 without a hole.*10,000 of 10,000/);
    }
    await page.locator("#events").focus();
    await page.keyboard.press("End");
    assert.match(await text(page, "#detail h3"), /summary/);
    await close(page);
  },

  async "the proof is green only where all of it is there"({ server, browser }) {
    const page = await open(browser, server.url);
    const { metadata, result, gap, summary } = madeUp;
    const error = { type: "error", seq: 2, error: { code: "overloaded", message: "m", retryable: true, status: 503 } };
    for (const [events, state, pattern] of [
      [[metadata(2), result(1, 0), result(2, 1), summary(3, 2)], "good", /^Nothing is missing.*0 resumes.*2 of 2 pages/],
      [[metadata(5), result(1, 0), result(2, 1), result(3, 2), summary(4, 5)], "bad", /Results are missing.*3 of 5 pages/],
      [[metadata(1), result(1, 0), summary(2, 1, { successful: 0 })], "bad", /0 successful, 0 failed and 0 cancelled are not 1/],
      [[metadata(2), result(2, 1), summary(3, 2)], "bad", /1 missing from seq/],
      [[metadata(2), result(1, 0), result(2, 0), summary(3, 2)], "bad", /1 results twice/],
      [[metadata(2), result(1, 0), result(2, 1), summary(3, 2, { last_seq: 9 })], "bad", /The summary says 9/],
      [[metadata(9), gap(5, 1, 4), result(6, 8), summary(7, 9)], "wait", /5 events fell out of the replay window/],
      [[metadata(9), result(1, 0), gap(6, 4, 5), summary(7, 9)], "bad", /2 missing from seq/],
      [[metadata(2), result(1, 0), error], "wait", /given up: seq 0 to 2 .*1 of 2 pages/],
    ]) {
      await answerWith(page, events);
      await start(page, ["https://a.example/"]);
      await page.waitForFunction((source) => new RegExp(source).test(document.getElementById("proof").textContent), pattern.source);
      assert.equal(await page.getAttribute("#proof", "data-state"), state, pattern.source);
    }
    await close(page);
  },

  async "a stream that is gone is told as gone, and resumes are counted"({ origin, server, proxy, browser }) {
    const page = await open(browser, server.url);
    for (const transport of ["sse", "ndjson", "ws"]) {
      await start(page, urls(origin, 40, "size=2000&latency=60ms"), { transport, options: { ...slow, resume_window_s: 0 } });
      await until(page, "a few results", async () => (await results(page)) > 2);
      const stream = await text(page, "#stream-id");
      await page.click("#cut");
      // Without a window the stream ends with its connection.
      await until(page, "gone", () => page.evaluate(async (stream) => (await fetch(`/streams/${stream}`)).status === 404, stream));
      await page.click("#resume");
      await until(page, "told", async () => (await text(page, "#state")) === "failed");
      assert.match(await text(page, "#alert"), /stream_expired|not_found/, transport);
      assert.ok(await page.isDisabled("#resume"), transport);
    }
    await close(page);
    const cut = await open(browser, proxy.url);
    await start(cut, urls(origin, 40, "size=2000&latency=40ms"), { transport: "sse", options: slow });
    await until(cut, "a few results", async () => (await results(cut)) > 3);
    proxy.cut();
    await complete(cut);
    await assertProof(cut, /1 resume,.*40 of 40/);
    await close(cut);
  },

  async "a chosen row stays chosen whatever else is shown"({ server, browser }) {
    const page = await open(browser, server.url);
    const { metadata, result, summary } = madeUp;
    const progress = { type: "progress", items_total: 3, current_item: "x" };
    await answerWith(page, [metadata(3), progress, result(1, 0), progress, result(2, 1), result(3, 2), summary(4, 3)]);
    await start(page, ["https://a.example/"]);
    await complete(page);
    await page.locator("#events .event").nth(2).click();
    const chosen = () => page.locator("#events [aria-selected=true] .seq").allTextContents();
    const active = () => page.evaluate(() => document.getElementById(document.getElementById("events").getAttribute("aria-activedescendant")).querySelector(".seq").textContent);
    for (const shown of [5, 7, 5]) {
      await until(page, `${shown} rows`, async () => (await page.locator("#events .event").count()) === shown);
      assert.deepEqual([await chosen(), await active()], [["2"], "2"]);
      assert.equal(await page.locator("#events .event").first().getAttribute("aria-setsize"), String(shown));
      await page.locator("#ephemeral").click();
    }
    await page.keyboard.press("Tab");
    await page.locator("#events").focus();
    await page.keyboard.press("ArrowDown");
    assert.equal((await chosen()).length, 1);
    await close(page);
  },

  async "the page asks the server seldom, not when hidden, and later when it is refused"({ server, browser }) {
    const page = await open(browser, server.url, { viewport: { width: 1280, height: 400 } });
    await page.waitForFunction(() => document.querySelectorAll("#meters .meter").length > 0);
    await sleep(3000);
    let asked = [];
    page.on("request", (request) => asked.push(new URL(request.url()).pathname));
    await sleep(9500);
    // Four turns of at most two each where neither gauges nor plots are in sight.
    assert.ok(asked.length <= 8, `asked for ${asked}`);
    await page.evaluate(() => {
      Object.defineProperty(document, "hidden", { value: true, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await sleep(500);
    asked = [];
    await sleep(4000);
    assert.deepEqual(asked, []);
    const refusal = { error: { code: "rate_limited", message: "too much", retryable: true, status: 429 } };
    await page.route("**/latency*", (route) => route.fulfill({ status: 429, headers: { "Retry-After": "30" }, json: refusal }));
    await page.evaluate(() => {
      delete document.hidden;
      document.dispatchEvent(new Event("visibilitychange"));
    });
    await until(page, "refused", async () => (await text(page, "#gauges-note")) === "too much");
    asked = [];
    await sleep(7000);
    assert.deepEqual(asked, [], "a server that has had enough is left alone");
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
    // What a pattern that tries one place after the other takes minutes for.
    const nbsp = "\u00a0";
    const slow = [
      ...Array(40).fill(`# ${nbsp.repeat(1900)}x\u2028x`), `${"#".repeat(60000)}x`, `# ${"#".repeat(60000)}x`,
      `a|b\n${nbsp.repeat(60000)}x`, `a|b\n${" ".repeat(60000)}x`, `- ${nbsp.repeat(9000)}\u2028x`, "- ".repeat(9000), "* ".repeat(9000) + "x",
    ].join("\n\n");
    const document = { title: "<b>t</b>", markdown: hostile, text: hostile, links: [{ href: "javascript:alert(8)", text: "<i>l</i>" }], word_count: 1 };
    const more = { url: "javascript:alert(9)", final_url: "https://a.example/", gate_decision: "approved", quality_score: 1 };
    await answerWith(page, [
      madeUp.metadata(2),
      madeUp.result(1, 0, { ...more, document }),
      madeUp.result(2, 1, { ...more, document: { ...document, markdown: slow } }),
      madeUp.summary(3, 2),
    ]);
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
    const took = await page.evaluate(() => {
      const began = performance.now();
      document.querySelectorAll("#events .event")[2].click();
      return performance.now() - began;
    });
    assert.equal(await page.locator("#detail .markdown h1").count(), 41);
    assert.ok(took < 2000, `a document took ${took} ms`);
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
    // Every metric that is drawn is one that the server has.
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    const drawn = [...(await (await fetch(server.url)).text()).matchAll(/"((?:forebay|process)_[a-z_]+)"/g)].map(([, name]) => name);
    assert.ok(drawn.length >= 10);
    for (const name of drawn) assert.match(metrics, new RegExp(`^${name}[ {]`, "m"));
    await page.locator("#meters").scrollIntoViewIfNeeded();
    await until(page, "traffic", async () => /[1-9].* in all/.test(await text(page, "#meters")));
    await close(page);
  },

  async "options are the server's, and each gets into the request"({ origin, server, browser }) {
    const page = await open(browser, server.url);
    await page.waitForSelector("#option-concurrency", { state: "attached" });
    const described = (await (await fetch(`${server.url}/openapi.json`)).json()).components.schemas;
    const fields = await page.evaluate(() => [...document.querySelectorAll("#options [id^=option-], #options [name^=option-]")].map((node) => (node.id || node.name).slice(7)));
    for (const name of Object.keys(described.Options.properties)) assert.ok(fields.includes(name), `no field for ${name}`);
    for (const name of Object.keys(described.Follow.properties)) assert.ok(fields.includes(`follow.${name}`), `no field for follow.${name}`);
    assert.equal(await page.getAttribute("#option-concurrency", "max"), String(described.Options.properties.concurrency.maximum));
    assert.equal(await page.inputValue("#option-deadline_ms"), String(described.Options.properties.deadline_ms.default));
    let body = null;
    await page.route("**/crawl/stream", (route) => {
      body = route.request().postDataJSON();
      return route.continue();
    });
    await page.evaluate(() => (document.querySelector(".options").open = true));
    await page.check("#option-follow");
    await page.fill("#option-follow\\.depth", "2");
    await page.fill("#option-follow\\.include", "/page/*\n*/other");
    await page.uncheck("#option-follow\\.same_host");
    await page.uncheck("input[name=option-formats][value=links]");
    await start(page, urls(origin, 2), { options: { stall_timeout_ms: 5000, headers: "X-A: b: c\nX-D:e", order: "input" } });
    await complete(page);
    assert.deepEqual(body.options, {
      order: "input", stall_timeout_ms: 5000, headers: { "X-A": "b: c", "X-D": "e" }, formats: ["markdown", "text", "metadata"],
      follow: { depth: 2, same_host: false, include: ["/page/*", "*/other"] },
    });
    assert.match(await text(page, "#options-note"), /5 changed/);
    await page.uncheck("#option-follow");
    await page.route("**/deepsearch/stream", (route) => {
      body = route.request().postDataJSON();
      return route.continue();
    });
    await page.check("input[name=mode][value=search]", { force: true });
    await page.fill("#query", " старые плотины ");
    await page.fill("#option-limit", "3");
    await page.fill("#option-country", "us");
    await page.fill("#option-locale", "pt-BR");
    await page.uncheck("#option-include_content");
    await page.click("#start");
    await complete(page);
    const { options, ...asked } = body;
    assert.deepEqual(asked, { query: "старые плотины", limit: 3, country: "us", locale: "pt-BR", include_content: false });
    await close(page);
  },

  async "with API keys every transport works, and the key is told to nobody"({ origin, browser }) {
    const folder = await fs.mkdtemp(path.join(os.tmpdir(), "forebay-"));
    const file = path.join(folder, "keys.toml");
    const made = await promisify(execFile)(binary("forebay"), ["key", "new", "--name", "a", "--scopes", "crawl,metrics"]);
    await fs.writeFile(file, made.stdout);
    const key = made.stderr.trim();
    const flags = ["--listen", "127.0.0.1:0", "--egress-allow", "127.0.0.0/8", "--auth-keys-file", file];
    const server = await run(binary("forebay"), ["serve", ...flags]);
    while (!(await fetch(`${server.url}/readyz`)).ok) await sleep(20);
    try {
      const page = await open(browser, server.url);
      await start(page, urls(origin, 2), { transport: "ws" });
      await until(page, "refused", async () => /authentication_error/.test(await text(page, "#alert")));
      await page.click("#key-box summary");
      await page.fill("#key", key);
      await page.press("#key", "Enter");
      for (const transport of ["ndjson", "sse", "ws"]) {
        await start(page, urls(origin, 4), { transport });
        await complete(page);
        await assertProof(page, /4 of 4 pages/);
      }
      const kept = await page.evaluate(() => document.body.innerText + location.href + document.cookie);
      assert.ok(!kept.includes(key));
      await close(page);
    } finally {
      await stop(server);
      await fs.rm(folder, { recursive: true });
    }
  },
};
