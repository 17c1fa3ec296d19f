// A browser's EventSource that loses its connection comes back by itself and misses nothing.

import assert from "node:assert/strict";
import { sleep } from "./server.mjs";

/** Runs in the page: collects durable events until the summary, or until the source gives up. */
function collect(target) {
  window.got = { events: [], opened: 0, errors: 0, ended: false };
  const source = new EventSource(target);
  source.onopen = () => (window.got.opened += 1);
  source.onerror = () => {
    window.got.errors += 1;
    if (source.readyState === EventSource.CLOSED) window.got.ended = true;
  };
  for (const type of ["metadata", "result", "gap", "error", "summary", "progress"]) {
    source.addEventListener(type, (message) => {
      // A lost connection is an `error` event, too, but without data.
      if (message.data === undefined) return;
      const event = JSON.parse(message.data);
      window.got.events.push({ type: event.type, seq: event.seq, index: event.index, id: message.lastEventId });
    });
  }
}

const target = (origin, count, options) => {
  const query = new URLSearchParams({ cache_mode: "bypass", ...options });
  for (let n = 0; n < count; n += 1) query.append("url", `${origin.url}/page/${n}?size=4000&latency=40ms`);
  return `/crawl/sse?${query}`;
};

async function until(page, condition, seconds = 60) {
  for (let n = 0; n < seconds * 20; n += 1) {
    if (await page.evaluate(condition)) return;
    await sleep(50);
  }
  throw new Error(`never: ${condition}; ${JSON.stringify(await page.evaluate(() => window.got))}`);
}

function assertWhole(events, count) {
  const durable = events.filter((event) => event.seq !== undefined);
  assert.deepEqual(durable.map((event) => event.seq), [...Array(count + 2).keys()]);
  assert.equal(durable.at(-1).type, "summary");
  const indices = durable.filter((event) => event.type === "result").map((event) => event.index);
  assert.deepEqual([...indices].sort((a, b) => a - b), [...Array(count).keys()]);
}

export const tests = {
  async "an EventSource that is cut again and again misses nothing"({ origin, proxy, browser }) {
    const page = await browser.newPage();
    await page.goto(`${proxy.url}/livez`);
    await page.evaluate(collect, target(origin, 60, { concurrency: 2 }));
    for (let cut = 0; cut < 3; cut += 1) {
      await until(page, `window.got.opened > ${cut} && window.got.events.length > ${4 + cut * 8}`);
      proxy.cut();
    }
    // The last event is followed by the end of the answer; the next attempt is told 204: no more.
    await until(page, "window.got.ended");
    const got = await page.evaluate(() => window.got);
    assertWhole(got.events, 60);
    assert.ok(got.opened >= 3, `opened ${got.opened} times`);
    await page.close();
  },

  async "an EventSource that is cut at any byte misses nothing"({ origin, proxy, browser }) {
    const seed = Number(process.env.TEST_SEED ?? 20261130);
    const page = await browser.newPage();
    await page.goto(`${proxy.url}/livez`);
    proxy.cutAnywhere(seed, 60_000);
    const before = proxy.cuts;
    await page.evaluate(collect, target(origin, 60, { concurrency: 8 }));
    await until(page, "window.got.ended || window.got.events.some((event) => event.type === 'summary')", 120);
    proxy.random = undefined;
    assertWhole(await page.evaluate(() => window.got.events), 60);
    assert.ok(proxy.cuts - before >= 3, `seed ${seed}: cut ${proxy.cuts - before} times`);
    await page.close();
  },

  async "an EventSource outlives a network that is down for a while"({ origin, proxy, browser }) {
    const page = await browser.newPage();
    await page.goto(`${proxy.url}/livez`);
    await page.evaluate(collect, target(origin, 30, { concurrency: 2 }));
    await until(page, "window.got.events.length > 4");
    proxy.refuse = true;
    proxy.cut();
    await sleep(1500);
    proxy.refuse = false;
    await until(page, "window.got.ended || window.got.events.some((event) => event.type === 'summary')");
    assertWhole(await page.evaluate(() => window.got.events), 30);
    await page.close();
  },

  async "progress carries no id and does not move the cursor"({ origin, proxy, browser }) {
    const page = await browser.newPage();
    await page.goto(`${proxy.url}/livez`);
    await page.evaluate(collect, target(origin, 20, { concurrency: 1, progress_ms: 20 }));
    await until(page, "window.got.ended");
    const events = await page.evaluate(() => window.got.events);
    let last = "";
    for (const event of events) {
      if (event.seq === undefined) assert.equal(event.id, last);
      else assert.match((last = event.id), new RegExp(`^[0-9A-Z]{26}\\.${event.seq}$`));
    }
    assert.ok(events.some((event) => event.type === "progress"));
    assertWhole(events, 20);
    await page.close();
  },
};
