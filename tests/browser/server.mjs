// The real binaries, a proxy that cuts connections, and Chromium: what every browser test needs.

import { spawn } from "node:child_process";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "..");
export const binary = (name) => process.env[`TEST_${name.toUpperCase()}`] ?? path.join(root, "target", "debug", name);

/** Starts a binary and waits until it says where it listens. */
export function start(command, args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  return new Promise((resolve, reject) => {
    let output = "";
    const read = (data) => {
      output += data;
      const found = /listening on (?:http:\/\/)?127\.0\.0\.1:(\d+)/.exec(output);
      if (found) resolve({ child, port: Number(found[1]), url: `http://127.0.0.1:${found[1]}` });
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.on("exit", () => reject(new Error(`${command} did not come up:\n${output}`)));
  });
}

export async function stop({ child }) {
  child.removeAllListeners("exit");
  if (child.exitCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await exited;
}

/** Numbers below a bound, which a seed decides (Mulberry32). */
function random(seed) {
  return (end) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let mixed = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % end;
  };
}

/**
 * Passes bytes on to a port. `cut()` ends every connection; `refuse` turns new ones away; `cutAnywhere`
 * ends those that are there, and those that come from then on after a number of bytes that a seed decides.
 */
class Proxy {
  constructor(port) {
    this.refuse = false;
    this.cuts = 0;
    this.random = undefined;
    this.sure = 0;
    this.open = new Set();
    this.listener = net.createServer((client) => {
      if (this.refuse) return client.destroy();
      const server = net.connect(port, "127.0.0.1");
      this.open.add(client);
      for (const [from, to] of [[client, server], [server, client]]) {
        from.on("error", () => {});
        from.on("close", () => to.destroy());
      }
      client.pipe(server);
      // Behind the first few one in four lives.
      if (this.random && (this.sure-- > 0 || this.random(4) > 0)) this.pass(server, client, this.random(this.most));
      else server.pipe(client);
      client.on("close", () => this.open.delete(client));
    });
  }

  async listen() {
    await new Promise((resolve) => this.listener.listen(0, "127.0.0.1", resolve));
    this.url = `http://127.0.0.1:${this.listener.address().port}`;
    return this;
  }

  cutAnywhere(seed, most) {
    this.random = random(seed);
    this.most = most;
    this.sure = 5;
    // A browser goes on with a connection that it has.
    this.cut();
  }

  /** Passes so many bytes on, to the byte, and ends the connection. */
  pass(from, to, left) {
    from.on("end", () => to.end());
    from.on("data", (data) => {
      if (data.length <= left) {
        left -= data.length;
        to.write(data);
        return;
      }
      this.cuts += 1;
      from.removeAllListeners("data");
      to.end(data.subarray(0, left), () => to.destroy());
    });
  }

  cut() {
    this.cuts += this.open.size;
    for (const socket of this.open) socket.destroy();
  }
}

/** Server, origin, proxy and a browser, for the time of `work`. */
export async function world(work) {
  const origin = await start(binary("loadtest"), ["origin", "--addr", "127.0.0.1:0"]);
  const serve = ["serve", "--listen", "127.0.0.1:0", "--egress-allow", "127.0.0.0/8"];
  const server = await start(binary("forebay"), serve);
  const proxy = await new Proxy(server.port).listen();
  const executablePath = process.env.TEST_CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  try {
    while (!(await fetch(`${server.url}/readyz`)).ok) await sleep(20);
    await work({ origin, server, proxy, browser });
  } finally {
    await browser.close();
    proxy.cut();
    proxy.listener.close();
    await stop(server);
    await stop(origin);
  }
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
