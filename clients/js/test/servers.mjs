// Servers, proxies and waits for the tests. Every wait is for a condition, with a deadline.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, connect as connectTcp } from "node:net";
import { createServer as createHttpServer } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as pause } from "node:timers/promises";

export const DEADLINE_MS = 60_000;

export async function until(what, condition) {
  for (const deadline = Date.now() + DEADLINE_MS; Date.now() < deadline;) {
    const found = await condition();
    if (found) return found;
    await pause(10);
  }
  throw new Error(`expected within ${DEADLINE_MS} ms: ${what}`);
}

/** Starts `fdpush serve` on free ports. */
export async function startServer(flags = [], env = {}) {
  const args = ["serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", ...flags];
  const child = spawn(process.env.FDPUSH_BIN, args, { env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);   // ends the server also after a failed test
  const exited = once(child, "exit");
  const stop = async (signal = "SIGKILL") => {
    child.kill(signal);
    await exited;
    process.removeListener("exit", kill);
  };
  const found = {};
  await new Promise((resolve, reject) => {
    createInterface({ input: child.stderr }).on("line", (line) => {
      found.listen ??= line.match(/listening on (127[\d.]+:\d+)$/)?.[1];
      found.api ??= line.match(/the API is on (127[\d.]+:\d+)$/)?.[1];
      if (found.listen && found.api) resolve();
    });
    child.once("exit", (code) => reject(new Error(`the server exited with ${code}`)));
  });
  const call = async (path, body) => {
    const headers = { "Content-Type": "application/json" };
    return (await fetch(`http://${found.api}${path}`, { method: "POST", headers, body: JSON.stringify(body) })).json();
  };
  return { ...found, url: `ws://${found.listen}/`, stop, call };
}

/**
 * Starts a TCP proxy. `proxy.target = server` replaces the server behind the proxy. The address of the proxy stays the same.
 *
 * Without a target, the proxy resets each connection. With `bytesEach`, the proxy forwards this number of bytes at a time, with
 * pauses of 1 ms. While `isStalled` is true, the proxy forwards nothing, and neither end of a connection sees an error.
 */
export async function startProxy(target) {
  const proxy = { target, bytesEach: Infinity, isStalled: false, accepted: 0 };
  const sockets = new Set();
  const server = createServer((client) => {
    proxy.accepted++;
    if (!proxy.target) return client.resetAndDestroy();
    const [host, port] = proxy.target.listen.split(":");
    const upstream = connectTcp(Number(port), host);
    for (const [from, to] of [[client, upstream], [upstream, client]]) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => { sockets.delete(from); to.destroy(); });
      forward(from, to, proxy);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  proxy.url = `ws://127.0.0.1:${port}/`;
  proxy.origin = `http://127.0.0.1:${port}`;
  proxy.stop = () => {
    for (const socket of sockets) socket.destroy();
    server.close();
  };
  return proxy;
}

async function forward(from, to, proxy) {
  try {
    for await (const chunk of from) {
      for (let at = 0; at < chunk.length;) {
        while (proxy.isStalled && !from.destroyed) await pause(10);
        const end = Math.min(chunk.length, at + proxy.bytesEach);
        if (!to.write(chunk.subarray(at, end))) await once(to, "drain");
        at = end;
        if (proxy.bytesEach < Infinity) await pause(1);
      }
    }
    to.end();
  } catch { /* the connection ended */ }
}

/** Starts a back end that records the events of the webhook. */
export async function startBackEnd() {
  const events = [];
  const server = createHttpServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    events.push(...JSON.parse(body).events);
    response.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}/`, events, stop: () => server.close() };
}
