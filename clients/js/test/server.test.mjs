// Tests the client in Node against `fdpush serve`, with the package ws and with Node's own WebSocket.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { afterEach, test } from "node:test";
import WebSocket from "ws";
import { connect } from "../fdpush.js";
import { DEADLINE_MS, startBackEnd, startProxy, startServer, until } from "./servers.mjs";

const CLASSES = { ws: WebSocket, global: globalThis.WebSocket };
// The reconnect delay is short, so that the tests of reconnects are short.
const RETRY = { retryFirst: 50, retryMax: 200 };
const SECRET = "a secret of the test with more than 32 bytes";

let cleanups = [];
afterEach(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
  cleanups = [];
});

async function serve(...options) {
  const server = await startServer(...options);
  cleanups.push(() => server.stop());
  return server;
}

async function proxyTo(server) {
  const proxy = await startProxy(server);
  cleanups.push(proxy.stop);
  return proxy;
}

function open(url, options = {}) {
  const client = connect(url, { WebSocket, timeout: DEADLINE_MS, ...RETRY, ...options });
  cleanups.push(() => client.close());
  const heard = { message: [], joined: [], left: [], text: [], binary: [], error: [], close: [], open: [] };
  for (const [type, list] of Object.entries(heard)) client.on(type, (event) => list.push(event));
  return { client, heard };
}

const isOpen = (client) => until("the client is open", () => client.state === "open");
const codeOf = (promise) => promise.then(() => "resolved", ({ code }) => code);
const token = (...flags) => execFileSync(process.env.FDPUSH_BIN, ["token", "--jwt-secret", SECRET, ...flags], { encoding: "utf8" }).trim();

for (const [name, WebSocket] of Object.entries(CLASSES)) {
  test(`${name}: every request and every event of the server`, async () => {
    const backEnd = await startBackEnd();
    cleanups.push(backEnd.stop);
    const server = await serve(["--webhook", backEnd.url, "--webhook-events", "send"]);
    const [ann, bob] = ["ann", "bob"].map((uid) => open(server.url, { uid, WebSocket }));
    for (const { client } of [ann, bob]) await isOpen(client);
    assert.equal(ann.client.uid, "ann");

    const ack = await ann.client.push({ to: "bob" }, { text: "grüße", list: [1, null] });
    assert.deepEqual({ ...ack, id: 0 }, { type: "ack", id: 0, matched: 1, queued: 1, dropped: 0 });
    await until("bob receives the message", () => bob.heard.message.length);
    assert.deepEqual(bob.heard.message, [{ type: "message", from: "ann", fd: ann.client.fd, data: { text: "grüße", list: [1, null] } }]);
    assert.equal((await ann.client.push({ to: ["bob", "nobody"] }, 1)).matched, 1);
    assert.equal((await ann.client.push({ fd: bob.client.fd }, 2)).matched, 1);
    assert.equal((await ann.client.push({ all: true }, 3)).matched, 2);
    assert.deepEqual(await ann.client.online(["bob", "nobody", "ann"]), ["bob", "ann"]);

    await ann.client.join("room");
    await bob.client.join("room");
    await until("ann sees bob join", () => ann.heard.joined.some(({ uid, group, count }) => uid === "bob" && group === "room" && count === 2));
    assert.equal((await bob.client.push({ group: "room" }, 4)).matched, 2);
    await bob.client.leave("room");
    await until("ann sees bob leave", () => ann.heard.left.some(({ uid, count }) => uid === "bob" && count === 1));

    await ann.client.send({ order: 7 });
    await until("the back end receives the data", () => backEnd.events.some(({ type, data }) => type === "send" && data.order === 7));
    assert.equal(await codeOf(ann.client.push({}, 1)), "bad_request");
    assert.equal(await codeOf(ann.client.online(Array(1001).fill("x"))), "too_large");

    await server.call("/api/push", { uid: "ann", text: "no frame" });
    await server.call("/api/push", { uid: "ann", binary: "AAEC" });
    await until("ann receives a text and a binary message", () => ann.heard.text.length && ann.heard.binary.length);
    assert.deepEqual(ann.heard.text, ["no frame"]);
    assert.deepEqual([...new Uint8Array(ann.heard.binary[0])], [0, 1, 2]);
    assert.deepEqual(ann.heard.error, []);
  });

  for (const signal of ["SIGKILL", "SIGTERM"]) {
    test(`${name}: after ${signal} and a restart, the client is in its groups again, and a waiting push arrives`, async () => {
      let server = await serve();
      const proxy = await proxyTo(server);
      const [ann, bob] = ["ann", "bob"].map((uid) => open(proxy.url, { uid, WebSocket }));
      for (const { client } of [ann, bob]) await client.join("room");
      proxy.target = null;
      await server.stop(signal);
      for (const { client } of [ann, bob]) await until("the client waits", () => client.state === "waiting" || client.state === "connecting");
      const attempts = proxy.accepted;
      await until("an attempt fails", () => proxy.accepted > attempts);
      const waiting = ann.client.push({ to: "ann" }, "sent while the server was down");
      proxy.target = server = await serve();
      assert.equal((await waiting).matched, 1);
      await isOpen(bob.client);
      await until("bob is in the group", async () => (await ann.client.push({ group: "room" }, "again")).matched === 2);
      await until("bob receives the message", () => bob.heard.message.some(({ data, group }) => data === "again" && group === "room"));
      assert.deepEqual(ann.heard.open.map(({ isReconnect }) => isReconnect), [false, true]);
    });
  }
}

test("a connection that no longer transfers bytes is replaced", async () => {
  const server = await serve();
  const proxy = await proxyTo(server);
  const { client, heard } = open(proxy.url, { uid: "ann", heartbeat: 50, timeout: 6000 });
  await client.join("room");
  proxy.isStalled = true;
  await until("the heartbeat has no answer", () => heard.close.some(({ reason }) => reason === "no answer received"));
  proxy.isStalled = false;
  await until("the client is in its group again", async () => await codeOf(client.push({ group: "room" }, 1)) === "resolved" && heard.open.length > 1);
});

test("on a slow network, every message arrives once and in order, on one connection", async () => {
  const server = await serve();
  const proxy = await proxyTo(server);
  const [ann, bob] = ["ann", "bob"].map((uid) => open(proxy.url, { uid }));
  for (const { client } of [ann, bob]) await isOpen(client);
  proxy.bytesEach = 500;
  const sent = Array.from({ length: 20 }, (_, n) => `${n} ${"x".repeat(n * 300)}`);
  const acks = await Promise.all(sent.map((data) => ann.client.push({ to: "bob" }, data)));
  assert.ok(acks.every(({ queued }) => queued === 1));
  await until("all messages arrive", () => bob.heard.message.length === sent.length);
  assert.deepEqual(bob.heard.message.map(({ data }) => data), sent);
  assert.deepEqual([...ann.heard.close, ...bob.heard.close], []);
});

test("a second login closes the first client with 4001, and the first client does not reconnect", async () => {
  const server = await serve(["--on-second-login", "kick_old"]);
  const first = open(server.url, { uid: "ann" });
  await isOpen(first.client);
  const second = open(server.url, { uid: "ann" });
  await until("the first client is closed", () => first.client.state === "closed");
  assert.deepEqual(first.heard.close, [{ code: 4001, reason: "uid connected again", delay: null }]);
  assert.equal((await second.client.push({ to: "ann" }, 1)).matched, 1);
  assert.equal(await codeOf(first.client.push({ to: "ann" }, 1)), "closed");
});

test("a token connects, a new token is used for a reconnect, and an expired token is final (4003)", async () => {
  const server = await serve(["--auth", "jwt"], { FDPUSH_JWT_SECRET: SECRET });
  const ttls = ["1h"];
  const { client, heard } = open(server.url, { token: () => token("--uid", "ann", "--ttl", ttls.pop() ?? "1s") });
  await isOpen(client);
  assert.equal(client.uid, "ann");
  assert.equal(await codeOf(client.push({ group: "secret" }, 1)), "not_allowed");
  await server.call("/api/close", { uid: "ann", code: 1012 });
  await until("the client is closed", () => client.state === "closed");
  const [first, last] = [heard.close[0], heard.close.at(-1)];
  assert.deepEqual([first.code, first.delay !== null, last.code, last.delay], [1012, true, 4003, null]);
  const refused = open(server.url, { token: "invalid" });
  await until("two attempts are refused", () => refused.heard.close.length >= 2);
  assert.ok(refused.heard.close.every(({ code }) => code === 1006));
});

test("a client over the message rate gets an error, and the code 1008 is final", async () => {
  const server = await serve(["--message-rate", "1", "--message-burst", "1"]);
  const { client, heard } = open(server.url, { uid: "ann" });
  await isOpen(client);
  const results = await Promise.all(Array.from({ length: 100 }, (_, n) => codeOf(client.push({ to: "ann" }, n))));
  assert.match(results.join(" "), /^(resolved )+(rate_limited (resolved )*)+(closed ?)+$/);
  assert.deepEqual(heard.close, [{ code: 1008, reason: "message rate exceeded", delay: null }]);
  assert.equal(heard.error[0].code, "rate_limited");
});
