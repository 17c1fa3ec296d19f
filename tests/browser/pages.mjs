// The console and the description for everybody: by keyboard, for a screen reader, in light and dark, on
// a phone, and without a script.

import assert from "node:assert/strict";
import axe from "axe-core";
import { answerWith, close, complete, madeUp, open, start, text, until, urls } from "./steps.mjs";

/** What axe finds wrong with a page, in a line each. */
async function violations(page) {
  await page.evaluate(axe.source);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.target.join(" ")}: ${node.failureSummary}`));
}

export const tests = {
  async "axe finds nothing wrong, in light and dark, wide and narrow"({ origin, server, browser }) {
    for (const colorScheme of ["light", "dark"]) {
      for (const viewport of [{ width: 1280, height: 800 }, { width: 390, height: 844 }]) {
        const where = `${colorScheme} ${viewport.width}`;
        const page = await open(browser, server.url, { colorScheme, viewport });
        assert.deepEqual(await violations(page), [], `the console, ${where}`);
        await page.waitForSelector("#option-concurrency", { state: "attached" });
        await page.evaluate(() => (document.querySelector(".options").open = document.getElementById("key-box").open = true));
        await page.check("#option-follow");
        assert.deepEqual(await violations(page), [], `the form, ${where}`);
        await page.uncheck("#option-follow");
        await page.evaluate(() => (document.querySelector(".options").open = document.getElementById("key-box").open = false));
        await start(page, [...urls(origin, 6), `${origin.url}/page/7?status=500`, "http://10.0.0.1/"]);
        await complete(page);
        await page.locator("#events").focus();
        for (let n = 0; n < 3; n += 1) await page.keyboard.press("ArrowDown");
        await page.waitForFunction(() => document.querySelectorAll("#percentiles path").length > 0);
        for (const tab of await page.locator("#detail [role=tab]").all()) {
          await tab.click();
          assert.deepEqual(await violations(page), [], `after a crawl, ${where}`);
        }
        await page.goto(`${server.url}/docs`);
        assert.deepEqual(await violations(page), [], `the description, ${where}`);
        await close(page);
      }
    }
  },

  async "a screen reader is told of states, not of every event"({ server, browser }) {
    const page = await open(browser, server.url);
    await page.evaluate(() => {
      window.said = [];
      const look = new MutationObserver(() => window.said.push(document.getElementById("said").textContent));
      look.observe(document.getElementById("said"), { childList: true, characterData: true, subtree: true });
    });
    const results = [...Array(500).keys()].map((n) => madeUp.result(n + 1, n));
    await answerWith(page, [madeUp.metadata(500), ...results, madeUp.summary(501, 500)]);
    await start(page, ["https://a.example/"]);
    await complete(page);
    const said = await page.evaluate(() => window.said);
    assert.ok(said.length <= 4, `told ${said.length} times: ${said}`);
    assert.match(said.at(-1), /^complete. Nothing is missing: .*500 of 500/);
    const live = await page.evaluate(() => [...document.querySelectorAll("[role=status], [role=alert], [aria-live]")].map((node) => node.id).sort());
    assert.deepEqual(live, ["alert", "copied", "health", "said"]);
    await page.locator("#events").focus();
    await page.keyboard.press("ArrowDown");
    for (let n = 0; n < 20; n += 1) await page.keyboard.press("PageDown");
    // The chosen row is scrolled far away, and is there all the same.
    await page.locator("#events").evaluate((box) => (box.scrollTop = 0));
    await until(page, "an active row", () => page.evaluate(() => Boolean(document.getElementById(document.getElementById("events").getAttribute("aria-activedescendant")))));
    const controls = await page.evaluate(() => [...document.querySelectorAll("[aria-controls]")].every((node) => document.getElementById(node.getAttribute("aria-controls"))));
    assert.ok(controls);
    await close(page);
  },

  async "the description is whole without a script, and shows what is inside of things"({ server, browser }) {
    const plain = await open(browser, `${server.url}/docs`, { javaScriptEnabled: false, colorScheme: "dark" });
    const rows = await plain.locator("td:first-child > code").allTextContents();
    for (const name of ["error.code", "resume.window_s", "webhook.url", "readers[].ring.frames", "options.order", "follow"]) {
      assert.ok(rows.includes(name), `no row for ${name}`);
    }
    assert.match(await plain.locator("#schema-JobRequest").textContent(), /webhook\.secret required\s*string\s*\d+ to \d+ characters/);
    const { schemas } = (await (await fetch(`${server.url}/openapi.json`)).json()).components;
    for (const name of Object.keys(schemas)) assert.equal(await plain.locator(`[id="schema-${name}"]`).count(), 1, name);
    const colour = await plain.evaluate(() => getComputedStyle(document.body).backgroundColor).catch(() => null);
    assert.equal(await plain.locator("#filter").count(), 0);
    await plain.context().close();
    const page = await open(browser, `${server.url}/docs`, { permissions: ["clipboard-read", "clipboard-write"], colorScheme: "dark" });
    if (colour) assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), colour);
    assert.match(await text(page, "#crawlStream pre.curl"), new RegExp(server.url));
    await page.locator("#crawlStream .copy").last().click();
    await until(page, "copied", async () => /^curl -N 'http/.test(await page.evaluate(() => navigator.clipboard.readText())));
    await page.fill("#filter", "post crawl");
    const shown = await page.locator("#index li:visible").allTextContents();
    assert.ok(shown.length >= 3 && shown.every((entry) => /POST .*crawl/.test(entry)), shown.join());
    await page.fill("#filter", "");
    await page.evaluate(() => document.getElementById("schema-ResultEvent").scrollIntoView());
    await until(page, "the mark", async () => (await page.locator("#index [aria-current]").allTextContents()).join() === "result");
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
