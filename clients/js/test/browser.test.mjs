// Tests the client in Chromium. The pages load the module from `fdpush serve`, through a proxy whose address does not change.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, afterEach, before, test } from "node:test";
import { chromium } from "playwright-core";
import { DEADLINE_MS, startProxy, startServer, until } from "./servers.mjs";

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const RETRY = { retryFirst: 50, retryMax: 200 };
// With this reconnect delay, only an event of the page causes an attempt to connect during a test.
const NO_RETRY = { retryFirst: 2 ** 31 - 1, retryMax: 2 ** 31 - 1 };

let browser, server, proxy, context;

before(async () => {
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
});

after(() => browser?.close());

afterEach(async () => {
  await context?.close();
  proxy?.stop();
  await server?.stop();
});

/** Opens a page of the server's origin with a client that records its events. */
async function openPage(options = {}) {
  server = await startServer();
  proxy = await startProxy(server);
  context = await browser.newContext();
  context.setDefaultTimeout(DEADLINE_MS);
  const page = await context.newPage();
  await page.goto(`${proxy.origin}/nothing-is-served-here`);
  await page.evaluate(async (options) => {
    const { connect } = await import("/fdpush.js");
    window.client = connect("/", { uid: "ann", timeout: 60_000, ...options });
    window.heard = { message: [], open: [], close: [] };
    for (const [type, list] of Object.entries(heard)) client.on(type, (event) => list.push(event));
    await client.join("room");
  }, { ...RETRY, ...options });
  return page;
}

const stateOf = (page) => page.evaluate(() => client.state);
const hasState = (page, state) => until(`the client is ${state}`, async () => await stateOf(page) === state);
const messages = (page) => page.evaluate(() => heard.message.map(({ data }) => data));
const push = (body) => server.call("/api/push", body);

/** Ends the server. The client cannot connect until `startAgain`. */
async function kill(signal) {
  proxy.target = null;
  await server.stop(signal);
}

async function startAgain() {
  proxy.target = server = await startServer();
}

/** Resolves when the client receives a message of its group. An earlier connection of the client may still be in the group. */
async function receivesInGroup(page, text) {
  await until("a message of the group arrives", async () => {
    await push({ group: "room", data: text });
    return (await messages(page)).includes(text);
  });
}

test("the server serves the client of this directory", async () => {
  await openPage();
  const served = await (await fetch(`${proxy.origin}/fdpush.js`)).text();
  assert.equal(served, await readFile(new URL("../fdpush.js", import.meta.url), "utf8"));
});

test("the example of the main README receives messages", async () => {
  const page = await openPage();
  const printed = [];
  page.on("console", (message) => printed.push(message.text()));
  const readme = await readFile(new URL("../../../README.md", import.meta.url), "utf8");
  const [, script] = readme.match(/```html\n<script type="module">\n([^]*?)<\/script>/);
  assert.ok(script.includes("ws://127.0.0.1:9501/"), "the example must contain the address that the test replaces");
  await page.addScriptTag({ type: "module", content: script.replace("ws://127.0.0.1:9501/", proxy.url) });
  await until("the example is in its group", async () => (await push({ group: "room", data: "to the group" })).queued === 2);
  await until("the example receives the message", () => printed.includes("undefined to the group"));
});

for (const signal of ["SIGKILL", "SIGTERM"]) {
  test(`after ${signal} and a restart, the page is in its group again, and a waiting push arrives`, async () => {
    const page = await openPage();
    await kill(signal);
    await until("the connection ends", async () => await stateOf(page) !== "open");
    const attempts = proxy.accepted;
    await until("an attempt fails", () => proxy.accepted > attempts);
    await page.evaluate(() => { window.waiting = client.push({ to: "ann" }, "waited"); });
    await startAgain();
    assert.equal(await page.evaluate(async () => (await waiting).matched), 1);
    await receivesInGroup(page, "again");
    assert.equal(await page.evaluate(() => heard.open.at(-1).isReconnect), true);
  });
}

test("on a slow network, every message arrives once and in order, on one connection", async () => {
  const page = await openPage();
  proxy.bytesEach = 500;
  const texts = Array.from({ length: 20 }, (_, n) => `${n} ${"x".repeat(n * 300)}`);
  const acks = await page.evaluate((texts) => Promise.all(texts.map((text) => client.push({ to: "ann" }, text))), texts);
  assert.ok(acks.every(({ queued }) => queued === 1));
  await until("all messages arrive", async () => (await messages(page)).length === texts.length);
  assert.deepEqual(await messages(page), texts);
  assert.equal(await page.evaluate(() => heard.close.length), 0);
});

test("a page that was frozen receives the messages of this time, in order, on the same connection", async () => {
  const page = await openPage();
  const fd = await page.evaluate(() => client.fd);
  const session = await context.newCDPSession(page);
  await session.send("Page.setWebLifecycleState", { state: "frozen" });
  const texts = Array.from({ length: 50 }, (_, n) => `message ${n}`);
  for (const data of texts) assert.equal((await push({ uid: "ann", data })).queued, 1);
  await session.send("Page.setWebLifecycleState", { state: "active" });
  await until("all messages arrive", async () => (await messages(page)).length === texts.length);
  assert.deepEqual(await messages(page), texts);
  assert.equal(await page.evaluate(() => client.fd), fd);
});

test("a page that was frozen during a restart connects when it is active again", async () => {
  const page = await openPage(NO_RETRY);
  const session = await context.newCDPSession(page);
  await session.send("Page.setWebLifecycleState", { state: "frozen" });
  await kill("SIGKILL");
  await startAgain();
  await session.send("Page.setWebLifecycleState", { state: "active" });
  await until("the page notices the end of its connection", async () => {
    // The event `resume` may come before the client notices the end of its connection, so the test makes the page visible again.
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    return page.evaluate(() => heard.open.length === 2);
  });
  await receivesInGroup(page, "again");
});

test("a page that is online again connects immediately", async () => {
  const page = await openPage(NO_RETRY);
  await kill("SIGKILL");
  await hasState(page, "waiting");
  await startAgain();
  const attempts = proxy.accepted;
  await context.setOffline(true);
  await until("the page is offline", () => page.evaluate(() => !navigator.onLine));
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  assert.equal(await stateOf(page), "waiting");   // without a network, the client does not try to connect
  assert.equal(proxy.accepted, attempts);
  await context.setOffline(false);
  await hasState(page, "open");
  await receivesInGroup(page, "again");
});

test("a page that becomes visible replaces a connection that no longer transfers bytes", async () => {
  const page = await openPage({ timeout: 6000 });
  proxy.isStalled = true;
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  const isReplaced = () => heard.close.some(({ reason }) => reason === "no answer received");
  await until("the check has no answer", () => page.evaluate(isReplaced));
  proxy.isStalled = false;
  await receivesInGroup(page, "again");
});
