// Tests the JavaScript client of the README, unchanged, in Chromium and in Node with ws, against `fdpush serve`. Also tests
// Chromium and ws with compression. ./run.sh runs these tests and lists the requirements.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";
import WebSocket from "ws";

const DEADLINE_MS = 60_000;
// Only the tests that restart a server listen on this address, so that no other server gets the port of this server
// before it starts again.
const UNSHARED = "127.0.0.79:0";
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

async function clientOf(readme) {
  const source = (await readFile(new URL(readme, import.meta.url), "utf8")).match(/```js\n([^]*?)```/)[1];
  assert.ok(source.includes("ws://127.0.0.1:9501/"), "the client must contain the address that the test replaces");
  return source;
}

// Starts a server on these addresses. Returns the bound addresses.
async function startServer(listen, api, ...flags) {
  const args = ["serve", "--listen", listen, "--api", api, ...flags];
  const child = spawn(process.env.FDPUSH_BIN, args, { stdio: ["ignore", "ignore", "pipe"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);   // also ends the server after a failed test
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
  const metric = async (name) => {
    const lines = (await (await fetch(`http://${places.api}/metrics`)).text()).split("\n");
    return Number(lines.find((line) => line.startsWith(`${name} `)).slice(name.length));
  };
  return { ...places, stop, call, metric };
}

async function until(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (Date.now() < deadline) {
    const found = await condition();
    if (found) return found;
    await pause(20);
  }
  throw new Error(`expected within ${DEADLINE_MS} ms: ${what}`);
}

test("the README's client exchanges messages, reconnects after a restart, and stops after a final code", async () => {
  let server = await startServer(UNSHARED, UNSHARED);
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  try {
    const tab = await browser.newPage();
    tab.setDefaultTimeout(DEADLINE_MS);
    const said = [], uncaught = [];
    tab.on("pageerror", (error) => uncaught.push(error.message));
    tab.on("console", (message) => { if (message.type() === "log") said.push(message.text()); });
    // Opens another page of the server's origin, because the demo page allows only its own script.
    await tab.goto(`http://${server.listen}/nothing-is-served-here`);
    const source = await clientOf("../../README.md");
    await tab.addScriptTag({ content: source.replace("127.0.0.1:9501", server.listen) });
    const online = async () => (await server.call("/api/online", { uids: ["10086"] })).offline.length === 0;
    await until("the client connects", online);
    const receives = async (text) => {
      assert.equal((await server.call("/api/push", { uid: "10086", data: text })).queued, 1);
      await until(text, () => said.includes(`undefined ${text}`));
    };
    for (const text of ["no JSON", "null"]) await server.call("/api/push", { uid: "10086", text });
    await receives("hello");
    assert.deepEqual(uncaught, []);
    assert.equal(await tab.evaluate(() => send({ type: "push", to: "10086", data: "to myself" })), true);
    await until("the client receives its own push", () => said.includes("10086 to myself"));

    await server.stop();
    await until("the connection ends", () => tab.evaluate(() => send({ type: "heartbeat" }) === false));
    server = await startServer(server.listen, server.api);
    await until("the client reconnects", online);
    await receives("again");

    assert.deepEqual(await server.call("/api/close", { uid: "10086", code: 4000, reason: "signed out" }), { matched: 1 });
    await until("the client reports the final code", () => said.includes("ended by the server: 4000 signed out"));
    await tab.clock.install();   // after this, the test controls the timers, and a reconnect timer would fire
    await tab.clock.fastForward(60_000);
    assert.equal(await online(), false);
  } finally {
    await browser.close();
    await server.stop();
  }
});

test("the README's client runs in Node with ws, with pushes of text and a restart", async () => {
  let server = await startServer(UNSHARED, UNSHARED);
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
    await until("the client connects", online);
    for (const text of ["no JSON", "null", "7", "[]", "{}"]) await server.call("/api/push", { uid: "10086", text });
    await receives("hello");
    await server.stop();
    const deaf = createServer((socket) => socket.destroy());
    const [host, port] = server.listen.split(":");
    deaf.listen(Number(port), host);
    await once(deaf, "connection");   // an attempt to reconnect fails
    deaf.close();
    await once(deaf, "close");
    server = await startServer(server.listen, server.api);
    await until("the client reconnects", online);
    await receives("again");
    assert.equal(client.exitCode, null);
    await server.call("/api/close", { uid: "10086", code: 4000, reason: "signed out" });
    await until("the client exits", () => client.exitCode === 0);   // the client exits only if no timer is left
    assert.ok(said.includes("ended by the server: 4000 signed out"));
  } finally {
    kill();
    process.removeListener("exit", kill);
    await server.stop();
  }
});

// This text compresses to less than a third of its length.
const LONG = JSON.stringify(Array.from({ length: 200 }, (_, n) => ({ id: n, name: `item ${(n * 7919) % 1009}` })));
const EXTENSION = /^permessage-deflate(?=.*server_no_context_takeover)(?=.*client_no_context_takeover)/;

test("Chromium negotiates compression, and exchanges messages of every length", async () => {
  const server = await startServer("127.0.0.1:0", "127.0.0.1:0", "--compression", "on");
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  try {
    const tab = await browser.newPage();
    tab.setDefaultTimeout(DEADLINE_MS);
    await tab.goto(`http://${server.listen}/nothing-is-served-here`);
    const extensions = await tab.evaluate((url) => new Promise((resolve, reject) => {
      window.received = [];
      window.socket = new WebSocket(url);
      socket.onmessage = ({ data }) => received.push(JSON.parse(data));
      socket.onopen = () => resolve(socket.extensions);
      socket.onerror = () => reject(new Error("no WebSocket"));
    }), `ws://${server.listen}/?uid=ann`);
    assert.match(extensions, EXTENSION);
    assert.equal(await server.metric("fdpush_deflate_opens_total"), 1);
    const texts = ["", "short", LONG, "x".repeat(300_000), "grüße 世界 ".repeat(3000), LONG];
    for (const data of texts) assert.equal((await server.call("/api/push", { uid: "ann", data })).queued, 1);
    const own = (text) => tab.evaluate((data) => socket.send(JSON.stringify({ type: "push", to: "ann", data })), text);
    for (const text of texts) await own(text);
    const messages = () => tab.evaluate(() => received.filter(({ type }) => type === "message").map(({ data }) => data));
    const all = await until("all messages arrive", async () => (await messages()).length === 2 * texts.length && messages());
    assert.deepEqual(all, [...texts, ...texts]);
    // The server compresses messages of 512 bytes to 256 KiB.
    assert.equal(await server.metric('fdpush_deflate_messages_total{direction="out"}'), 6);
    // Chromium compresses every message that it sends.
    assert.equal(await server.metric('fdpush_deflate_messages_total{direction="in"}'), texts.length);
    assert.equal(await server.metric("fdpush_inflate_failures_total"), 0);
  } finally {
    await browser.close();
    await server.stop();
  }
});

test("Node's ws negotiates compression by each of its options, and sends fragments", async () => {
  const server = await startServer("127.0.0.1:0", "127.0.0.1:0", "--compression", "on");
  const sockets = [];
  try {
    const options = [
      { threshold: 0 },
      { threshold: 0, serverNoContextTakeover: true, clientNoContextTakeover: true },
      { threshold: 0, serverMaxWindowBits: 9 },
      { threshold: 0, clientMaxWindowBits: 10, serverMaxWindowBits: 12 },
    ];
    for (const [number, perMessageDeflate] of options.entries()) {
      const uid = `user${number}`, received = [];
      const socket = new WebSocket(`ws://${server.listen}/?uid=${uid}`, { perMessageDeflate });
      sockets.push(socket);
      socket.on("message", (bytes) => { const frame = JSON.parse(bytes); if (frame.type === "message") received.push(frame.data); });
      await once(socket, "open");
      assert.match(socket.extensions, /^permessage-deflate/);
      const texts = ["", "short", LONG, "x".repeat(300_000), LONG];
      for (const data of texts) await server.call("/api/push", { uid, data });
      for (const data of texts) {
        const text = JSON.stringify({ type: "push", to: uid, data });
        socket.send(text);
        // The client sends the same message again in fragments, with a ping between them and an empty last fragment.
        const half = text.length >> 1;
        socket.send(text.slice(0, half), { fin: false });
        socket.ping("between");
        socket.send(text.slice(half), { fin: false });
        socket.send("", { fin: true });
      }
      await until("all messages arrive", () => received.length === 3 * texts.length);
      assert.deepEqual(received, [...texts, ...texts.flatMap((text) => [text, text])]);
    }
    assert.equal(await server.metric("fdpush_deflate_opens_total"), options.length);
    assert.equal(await server.metric('fdpush_deflate_messages_total{direction="in"}'), options.length * 10);
    assert.equal(await server.metric("fdpush_inflate_failures_total"), 0);
    const closed = once(sockets[0], "close");
    sockets[0].send("0".repeat(5 << 20));
    assert.equal((await closed)[0], 1009);
  } finally {
    for (const socket of sockets) socket.terminate();
    await server.stop();
  }
});
