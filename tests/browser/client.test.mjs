// Tests the JavaScript client of the README, unchanged, in Chromium and in Node with ws, against `fdpush serve`.
// ./run.sh runs it and lists the requirements.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";

const DEADLINE_MS = 20_000;
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function clientOf(readme) {
  const source = (await readFile(new URL(readme, import.meta.url), "utf8")).match(/```js\n([^]*?)```/)[1];
  assert.ok(source.includes("ws://127.0.0.1:9501/"), "the address to replace");
  return source;
}

// Starts a server on these addresses. Returns the bound addresses.
async function startServer(listen, api) {
  const args = ["serve", "--listen", listen, "--api", api];
  const child = spawn(process.env.FDPUSH_BIN, args, { stdio: ["ignore", "ignore", "pipe"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);   // ends the server after a failed test too
  const exited = once(child, "exit");
  const stop = async () => {
    kill();
    await exited;
    process.removeListener("exit", kill);
  };
  const places = await new Promise((resolve, reject) => {
    const found = {};
    createInterface({ input: child.stderr }).on("line", (line) => {
      found.listen ??= line.match(/listening on (127[\d.]+:\d+)$/)?.[1];
      found.api ??= line.match(/the API is on (127[\d.]+:\d+)$/)?.[1];
      if (found.listen && found.api) resolve(found);
    });
    child.once("exit", (code) => reject(new Error(`the server exited with ${code}`)));
  });
  const call = async (path, body) => {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`http://${places.api}${path}`, { method: "POST", headers, body: JSON.stringify(body) });
    assert.equal(answer.status, 200);
    return answer.json();
  };
  return { ...places, stop, call };
}

async function until(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (Date.now() < deadline) {
    const found = await condition();
    if (found) return found;
    await pause(20);
  }
  throw new Error(`not within ${DEADLINE_MS} ms: ${what}`);
}

test("the README's client exchanges messages, reconnects after a restart, and stops after a final code", async () => {
  let server = await startServer("127.0.0.1:0", "127.0.0.1:0");
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  try {
    const tab = await browser.newPage();
    const said = [], uncaught = [];
    tab.on("pageerror", (error) => uncaught.push(error.message));
    tab.on("console", (message) => { if (message.type() === "log") said.push(message.text()); });
    // A page of the server's origin. The demo page allows no other script.
    await tab.goto(`http://${server.listen}/nothing-is-served-here`);
    const source = await clientOf("../../README.md");
    await tab.addScriptTag({ content: source.replace("127.0.0.1:9501", server.listen) });
    const online = async () => (await server.call("/api/online", { uids: ["10086"] })).offline.length === 0;
    await until("a connection", online);
    const receives = async (text) => {
      assert.equal((await server.call("/api/push", { uid: "10086", data: text })).queued, 1);
      await until(text, () => said.includes(`undefined ${text}`));
    };
    for (const text of ["no JSON", "null"]) await server.call("/api/push", { uid: "10086", text });
    await receives("hello");
    assert.deepEqual(uncaught, []);
    assert.equal(await tab.evaluate(() => send({ type: "push", to: "10086", data: "to myself" })), true);
    await until("its own push", () => said.includes("10086 to myself"));

    await server.stop();
    await until("the end", () => tab.evaluate(() => send({ type: "heartbeat" }) === false));
    server = await startServer(server.listen, server.api);
    await until("a reconnect", online);
    await receives("again");

    assert.deepEqual(await server.call("/api/close", { uid: "10086", code: 4000, reason: "signed out" }), { matched: 1 });
    await until("the end", () => said.includes("ended by the server: 4000 signed out"));
    await tab.clock.install();   // would fire a reconnect timer
    await tab.clock.fastForward(60_000);
    assert.equal(await online(), false);
  } finally {
    await browser.close();
    await server.stop();
  }
});

test("the README's client runs in Node with ws, with pushes of text and a restart", async () => {
  let server = await startServer("127.0.0.1:0", "127.0.0.1:0");
  const source = (await clientOf("../../README.md")).replace("127.0.0.1:9501", server.listen);
  const args = ["--input-type=module", "--eval", `import WebSocket from "ws";\n${source}`];
  const client = spawn(process.execPath, args, { cwd: import.meta.dirname, stdio: ["ignore", "pipe", "inherit"] });
  const kill = () => client.kill("SIGKILL");
  process.once("exit", kill);
  const said = [];
  createInterface({ input: client.stdout }).on("line", (line) => said.push(line));
  try {
    const online = async () => (await server.call("/api/online", { uids: ["10086"] })).offline.length === 0;
    const receives = async (text) => {
      await server.call("/api/push", { uid: "10086", data: text });
      await until(text, () => said.includes(`undefined ${text}`));
    };
    await until("a connection", online);
    for (const text of ["no JSON", "null", "7", "[]", "{}"]) await server.call("/api/push", { uid: "10086", text });
    await receives("hello");
    await server.stop();
    const deaf = createServer((socket) => socket.destroy());
    deaf.listen(Number(server.listen.split(":")[1]), "127.0.0.1");
    await once(deaf, "connection");   // an attempt fails
    deaf.close();
    await once(deaf, "close");
    server = await startServer(server.listen, server.api);
    await until("a reconnect", online);
    await receives("again");
    assert.equal(client.exitCode, null);
    await server.call("/api/close", { uid: "10086", code: 4000, reason: "signed out" });
    await until("its exit", () => client.exitCode === 0);   // no timer is left
    assert.ok(said.includes("ended by the server: 4000 signed out"));
  } finally {
    kill();
    process.removeListener("exit", kill);
    await server.stop();
  }
});
