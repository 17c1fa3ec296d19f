// Pictures of the pages: `node tests/browser/shots.mjs FOLDER [README.webp]`. The console after a crawl
// with a chosen document and plots, and the API's description, at the width of a desk and of a phone,
// in light and dark; with a second argument also the README's picture.

import fs from "node:fs/promises";
import path from "node:path";
import { sleep, world } from "./server.mjs";

const [folder, picture] = process.argv.slice(2);
if (!folder) throw new Error("node tests/browser/shots.mjs FOLDER [README.webp]");
const SIZES = { desk: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } };
const PICTURE = { width: 1280, height: 1190 };
const PICTURE_BYTES_MAX = 150_000;

/** A crawl of slow and quick pages, of large and small ones, and of one that is not there. */
const urls = (origin) =>
  [...Array(48).keys()].map((n) => `${origin.url}/page/${n}?size=${3000 + (n % 7) * 4000}&latency=${20 + ((n * 37) % 11) * 18}ms`);

async function crawl(page, lines) {
  await page.fill("#urls", lines.join("\n"));
  await page.click("#start");
  await page.waitForFunction(() => ["complete", "failed"].includes(document.getElementById("state").textContent), null, { timeout: 60_000 });
}

async function fillConsole(page, url, origin) {
  await page.goto(url);
  await page.waitForSelector("#option-concurrency", { state: "attached" });
  // From the origin each time, so that the bars have all of their stages.
  await page.locator("#option-cache_mode").evaluate((select) => (select.value = "bypass"));
  // Several crawls, so that the line of time has a shape.
  for (let round = 0; round < 3; round += 1) {
    await crawl(page, urls(origin).slice(0, 16 + round * 16));
    await sleep(3500);
  }
  await page.locator("#urls").evaluate((box) => box.scrollTo(0, 0));
  await page.locator("#events").evaluate((box) => box.scrollTo(0, box.scrollHeight / 2));
  await page.locator("#plots").scrollIntoViewIfNeeded();
  await page.waitForFunction(() => document.querySelectorAll("#percentiles path").length > 0 && document.querySelectorAll("#timeline path").length > 0);
  await sleep(3500);
  await page.evaluate(() => scrollTo(0, 0));
}

/** A picture as WebP, drawn by the browser itself; smaller until it is small enough. */
async function webp(page, png, file) {
  for (const quality of [0.86, 0.8, 0.7, 0.6, 0.5]) {
    const base64 = await page.evaluate(
      async ([png, quality]) => {
        const image = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
        const canvas = new OffscreenCanvas(image.width, image.height);
        canvas.getContext("2d").drawImage(image, 0, 0);
        const blob = await canvas.convertToBlob({ type: "image/webp", quality });
        return btoa(Array.from(new Uint8Array(await blob.arrayBuffer()), (byte) => String.fromCharCode(byte)).join(""));
      },
      [png.toString("base64"), quality],
    );
    const bytes = Buffer.from(base64, "base64");
    if (bytes.length < PICTURE_BYTES_MAX) return fs.writeFile(file, bytes);
  }
  throw new Error("the picture is too large");
}

await fs.mkdir(folder, { recursive: true });
await world(async ({ origin, server, browser }) => {
  for (const [size, viewport] of Object.entries(SIZES)) {
    for (const colorScheme of ["light", "dark"]) {
      const context = await browser.newContext({ viewport, colorScheme });
      const page = await context.newPage();
      await fillConsole(page, server.url, origin);
      const shot = (name) => path.join(folder, `${name}-${size}-${colorScheme}.png`);
      if (picture && size === "desk" && colorScheme === "light") {
        await page.setViewportSize(PICTURE);
        await sleep(500);
        await webp(await context.newPage(), await page.screenshot(), picture);
        await page.setViewportSize(viewport);
      }
      await page.locator("#events .event").nth(5).click();
      await page.screenshot({ path: shot("console"), fullPage: true });
      await page.goto(`${server.url}/docs`);
      await page.screenshot({ path: shot("docs"), fullPage: false });
      await page.evaluate(() => document.getElementById("crawlStream").scrollIntoView());
      await page.screenshot({ path: shot("docs-route"), fullPage: false });
      await page.evaluate(() => document.getElementById("events").scrollIntoView());
      await page.screenshot({ path: shot("docs-events"), fullPage: false });
      await context.close();
    }
  }
});
