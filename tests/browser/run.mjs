// Runs the tests in a real Chromium: `node tests/browser/run.mjs [NAME…]`, where a NAME is a part of a
// test's name. The last line is `N passed, N failed`.

import * as page from "./console.mjs";
import * as eventsource from "./eventsource.mjs";
import * as pages from "./pages.mjs";
import { world } from "./server.mjs";

const names = process.argv.slice(2);
const all = Object.entries({ ...eventsource.tests, ...page.tests, ...pages.tests });
const chosen = all.filter(([name]) => !names.length || names.some((part) => name.includes(part)));
let failed = 0;
await world(async (parts) => {
  for (const [name, test] of chosen) {
    try {
      await test(parts);
      console.log(`ok   ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n${error.stack}`);
    }
  }
});
console.log(`${chosen.length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 || chosen.length === 0 ? 1 : 0;
