// Drives the demo page of `fdpush serve`, with one browser context for each user. Every wait is for a visible
// condition, with a deadline. ./run.sh runs these tests and lists the requirements.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { chromium } from "playwright-core";

const DEADLINE_MS = 60_000;
// The page shows a user as offline only if the user had no connection for this time, in milliseconds. The script of
// the page has the same constant.
const GRACE_MS = 3000;
// Only the test that restarts a server listens on this address, so that no other server gets the port of this server
// before it starts again.
const UNSHARED = "127.0.0.78:0";
const POLL_MS = 20;
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

let browser, server;
let tabs = [];      // tabs of the running test
let faults = [];    // console errors, exceptions and foreign requests of the running test

before(async () => {
  server = await startServer("127.0.0.1:0");
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
});

after(async () => {
  await browser?.close();
  await server?.stop();
});

afterEach(async () => {
  await closeTabs();
  const found = faults;
  faults = [];
  assert.deepEqual(found, [], "there must be no console errors, exceptions or requests to other hosts");
});

/* Servers, tabs, waits */

async function startServer(listen, flags = []) {
  // The API takes a free port, because two servers may run at the same time.
  const env = { ...process.env, FDPUSH_API: "127.0.0.1:0" };
  const child = spawn(process.env.FDPUSH_BIN, ["serve", "--listen", listen, "--api", "off", ...flags], { env, stdio: ["ignore", "pipe", "inherit"] });
  const kill = () => child.kill("SIGKILL");
  process.once("exit", kill);   // also ends the server after a failed test
  const exited = once(child, "exit");
  const stop = async (signal = "SIGTERM") => {
    child.kill(signal);
    await exited;
    process.removeListener("exit", kill);
  };
  const lines = createInterface({ input: child.stdout });
  const url = await new Promise((resolve, reject) => {
    lines.on("line", (line) => { const found = line.match(/https?:\/\/[\d.]+:\d+\//); if (found) resolve(found[0]); });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`the server exited with ${code} before it printed its URL`)));
  });
  return { url, stop };
}

async function closeTabs() {
  const open = tabs;
  tabs = [];
  await Promise.all(open.map((tab) => tab.context().close()));
}

async function openTab(url, { options = {}, tolerate = /^$/, context, peer } = {}) {
  context ??= await browser.newContext({ viewport: { width: 1200, height: 800 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  const tab = await context.newPage();
  tabs.push(tab);
  const fault = (text) => { if (!tolerate.test(text)) faults.push(text); };
  const { host } = new URL(url);
  tab.on("console", (message) => { if (message.type() === "error") fault(message.text()); });
  tab.on("pageerror", (error) => fault(String(error)));
  tab.on("request", (request) => { if (!request.url().startsWith("data:") && new URL(request.url()).host !== host) fault(request.url()); });
  tab.on("websocket", (socket) => { if (new URL(socket.url()).host !== host) fault(socket.url()); });
  if (peer) await tab.routeWebSocket(/./, peer);
  await tab.goto(url);
  return tab;
}

async function enter(uid, options) {
  const tab = await openTab(options?.url ?? server.url, options);
  await tab.locator("#uid").fill(uid);
  await tab.locator("#connect").click();
  await connected(tab);
  return tab;
}

async function until(what, condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (Date.now() < deadline) {
    const found = await condition();
    if (found) return found;
    await pause(POLL_MS);
  }
  throw new Error(`expected within ${DEADLINE_MS} ms: ${what}`);
}

/* Actions and observations of a user */

const connected = (tab) => state(tab, "online");
const state = (tab, name) => tab.locator(`#status[data-state="${name}"]`).waitFor({ timeout: DEADLINE_MS });
const fdOf = async (tab) => (await tab.locator("#my-fd").textContent()).replace("fd ", "");
const roster = (tab, uid, rest = "") => tab.locator(`#roster li[data-uid="${uid}"]${rest}`);
const seesOnline = (tab, uid, fd) => roster(tab, uid, `[data-state="online"][data-fd="${fd}"]`).waitFor({ timeout: DEADLINE_MS });

async function write(tab, kind, name, text) {
  await tab.locator("#target-kind").selectOption(kind);
  if (kind !== "all") await tab.locator("#target-name").fill(name);
  await tab.locator("#text").fill(text);
  await tab.locator("#text").press("Enter");
}

const message = (tab, direction, text) =>
  tab.locator(`#log .message.${direction}`).filter({ has: tab.getByText(text, { exact: true }) });

async function reads(tab, text, { from, scope }) {
  const item = message(tab, "in", text);
  await item.waitFor({ timeout: DEADLINE_MS });
  assert.equal(await item.count(), 1, `"${text}" must arrive once`);
  assert.equal(await item.getAttribute("data-from"), from);
  assert.equal(await item.getAttribute("data-scope"), scope);
}

async function receiptOf(tab, text) {
  const receipt = message(tab, "out", text).locator(".receipt");
  return until(`a receipt for "${text}"`, async () => {
    const said = await receipt.textContent();
    return said !== "sending…" && said;
  });
}

async function joins(tab, group) {
  await tab.locator("#join-name").fill(group);
  await tab.locator("#join-name").press("Enter");
  await tab.locator(`#groups li[data-group="${group}"]`).waitFor({ timeout: DEADLINE_MS });
}

// Records each state that the roster shows for `uid`, and the time of the change, until the tab is closed. The state
// is "missing" while the roster does not contain `uid`.
function watchRoster(tab, uid) {
  return tab.evaluate((uid) => {
    const list = document.getElementById("roster");
    const look = () => [...list.children].find((item) => item.dataset.uid === uid)?.dataset.state ?? "missing";
    globalThis.sightings = [];
    const note = () => {
      const state = look();
      if (globalThis.sightings.at(-1)?.state !== state) globalThis.sightings.push({ state, at: performance.now() });
    };
    note();
    new MutationObserver(note).observe(list, { subtree: true, childList: true, attributes: true });
  }, uid);
}

const sightings = (tab) => tab.evaluate(() => globalThis.sightings);

// Returns the records with the state "offline" or "missing" that the page showed too early: not after the state
// "suspect", or less than GRACE_MS after the state "suspect". On a busy machine, a reload can take longer than GRACE_MS,
// so an absence after GRACE_MS is not an error.
async function earlyAbsences(tab) {
  const all = await sightings(tab);
  const isAbsence = ({ state }) => state === "offline" || state === "missing";
  // A timer may fire a few milliseconds early.
  const isEarly = ({ at }, before) => before?.state !== "suspect" || at - before.at < GRACE_MS - 10;
  return all.filter((one, index) => isAbsence(one) && isEarly(one, all[index - 1]));
}

/* Messages and presence */

test("two people see each other and exchange messages point to point, to a group and to all", async () => {
  const [alice, bob] = [await enter("alice"), await enter("bob")];
  await seesOnline(alice, "bob", await fdOf(bob));
  await seesOnline(bob, "alice", await fdOf(alice));
  assert.notEqual(await fdOf(alice), await fdOf(bob));

  await write(alice, "to", "bob", "for bob alone");
  await reads(bob, "for bob alone", { from: "alice", scope: "to you" });
  assert.equal(await receiptOf(alice, "for bob alone"), "queued for 1 of 1");

  await write(bob, "fd", await fdOf(alice), "for that fd");
  await reads(alice, "for that fd", { from: "bob", scope: "to you" });

  await joins(alice, "room");
  await joins(bob, "room");
  const carol = await enter("carol");
  await write(bob, "group", "room", "for the room");
  await reads(alice, "for the room", { from: "bob", scope: "# room" });

  await write(alice, "all", "", "for everyone");
  await reads(bob, "for everyone", { from: "alice", scope: "everyone" });
  await reads(carol, "for everyone", { from: "alice", scope: "everyone" });
  // Messages arrive in order, so a message to carol before the broadcast would already be shown.
  assert.equal(await carol.locator("#log .message.in").count(), 1);
  assert.equal(await message(alice, "in", "for everyone").count(), 0, "the page must show no echo of its own message");

  await write(alice, "to", "nobody", "hello?");
  assert.equal(await receiptOf(alice, "hello?"), "offline");
});

test("the page shows whether it uses wss, and uses wss if it was loaded by https", async () => {
  const out = mkdtempSync(join(tmpdir(), "fdpush-page-"));
  const files = ["--cert-file", "cert.pem", "--key-file", "key.pem"];
  execFileSync(process.env.FDPUSH_BIN, ["cert", "--for", "localhost,127.0.0.1", "--out", out, ...files]);
  const secure = await startServer("tls:127.0.0.1:0", ["--tls-cert", join(out, "cert.pem"), "--tls-key", join(out, "key.pem")]);
  try {
    assert.match(secure.url, /^https:/);
    const alice = await openTab(secure.url, { options: { ignoreHTTPSErrors: true } });
    const sockets = [];
    alice.on("websocket", (socket) => sockets.push(socket.url()));
    await alice.locator("#uid").fill("alice");
    await alice.locator("#connect").click();
    await connected(alice);
    assert.equal(new URL(sockets[0]).protocol, "wss:");
    assert.equal(await alice.locator("#scheme").textContent(), "wss: encrypted");
    const bob = await enter("bob", { url: secure.url, options: { ignoreHTTPSErrors: true } });
    await write(alice, "to", "bob", "for bob");
    await reads(bob, "for bob", { from: "alice", scope: "to you" });
    const carol = await enter("carol");
    assert.equal(await carol.locator("#scheme").textContent(), "ws: not encrypted");
  } finally {
    // A page whose server has ended tries to reconnect, and Chromium logs each failed attempt.
    await closeTabs();
    await secure.stop();
    rmSync(out, { recursive: true });
  }
});

test("a page gets no messages of a group that it has left", async () => {
  const [alice, bob] = [await enter("alice"), await enter("bob")];
  for (const tab of [alice, bob]) await joins(tab, "room");
  await bob.locator('#groups li[data-group="room"]').getByRole("button", { name: "Leave room" }).click();
  await bob.locator('#groups li[data-group="room"]').waitFor({ state: "detached", timeout: DEADLINE_MS });
  await write(alice, "group", "room", "anyone left?");
  await receiptOf(alice, "anyone left?");
  await write(alice, "to", "bob", "just you");
  await reads(bob, "just you", { from: "alice", scope: "to you" });
  assert.equal(await message(bob, "in", "anyone left?").count(), 0);
});

test("a reload keeps uid and groups, and others see no change", async () => {
  const [alice, bob] = [await enter("alice"), await enter("bob")];
  await joins(bob, "room");
  await seesOnline(alice, "bob", await fdOf(bob));
  await watchRoster(alice, "bob");

  for (let round = 0; round < 5; round++) {
    const before = await fdOf(bob);
    await bob.reload();
    await connected(bob);
    await bob.locator('#groups li[data-group="room"]').waitFor({ timeout: DEADLINE_MS });
    assert.notEqual(await fdOf(bob), before);
    assert.equal(await bob.locator("#my-uid").textContent(), "bob");
    // The state of bob is "online", not "suspect". So no timer runs, and this reload cannot show bob as offline later.
    await seesOnline(alice, "bob", await fdOf(bob));
    await seesOnline(bob, "alice", await fdOf(alice));
  }
  assert.deepEqual(await earlyAbsences(alice), []);

  // Bob closes his last tab. The recorded states must then contain his absence, which shows that the recording works.
  await bob.close();
  await roster(alice, "bob", '[data-state="offline"]').waitFor({ timeout: DEADLINE_MS });
  assert.equal((await sightings(alice)).at(-1).state, "offline");
});

test("a message to a uid reaches both of its tabs, and the uid stays online until the last tab closes", async () => {
  const [alice, first] = [await enter("alice"), await enter("bob")];
  await seesOnline(alice, "bob", await fdOf(first));
  await watchRoster(alice, "bob");
  const second = await openTab(`${server.url}#uid=bob`, { context: first.context() });
  await connected(second);
  const [one, two] = [await fdOf(first), await fdOf(second)];
  assert.notEqual(one, two);
  await seesOnline(alice, "bob", `${one} ${two}`);
  await seesOnline(second, "bob", `${two} ${one}`);
  // The server sends no `joined` frame for the second tab of a uid, so the tab does not get the count of members from
  // such a frame.
  await second.locator('#groups li[data-group="lobby"]').getByText("2", { exact: true }).waitFor({ timeout: DEADLINE_MS });

  await write(alice, "to", "bob", "both of you");
  for (const tab of [first, second]) await reads(tab, "both of you", { from: "alice", scope: "to you" });
  assert.equal(await receiptOf(alice, "both of you"), "queued for 2 of 2");

  await first.close();
  let round = 0;
  await until("the page shows one tab of bob", async () => {
    const text = `still there? ${round++}`;
    await write(alice, "to", "bob", text);
    return (await receiptOf(alice, text)) === "queued for 1 of 1";
  });
  await seesOnline(alice, "bob", two);
  assert.deepEqual(await earlyAbsences(alice), []);
});

test("?uid= connects immediately, an empty uid is anonymous, a logout survives a reload", async () => {
  const alice = await openTab(`${server.url}?uid=alice%20%C3%A4%2B`);
  await connected(alice);
  assert.equal(await alice.locator("#my-uid").textContent(), "alice ä+");
  const anonymous = await enter("");
  await write(anonymous, "to", "alice ä+", "guess who");
  await reads(alice, "guess who", { from: "anonymous", scope: "to you" });
  await alice.locator("#disconnect").click();
  await alice.reload();
  await alice.locator("#login").waitFor({ timeout: DEADLINE_MS });
});

for (const signal of ["SIGKILL", "SIGTERM"]) {
  test(`the page reconnects after ${signal} and a restart of the server`, async () => {
    let server = await startServer(UNSHARED);
    const listen = new URL(server.url).host;
    try {
      // Chromium logs each refused connection attempt as an error. The page cannot prevent these log lines.
      const options = { url: server.url, tolerate: /^WebSocket connection to .* failed/ };
      const [alice, bob] = [await enter("alice", options), await enter("bob", options)];
      for (const tab of [alice, bob]) await joins(tab, "room");
      await server.stop(signal);
      for (const tab of [alice, bob]) await tab.locator("#notice").waitFor({ timeout: DEADLINE_MS });
      for (const tab of [alice, bob]) await tab.locator("#people.stale").waitFor({ timeout: DEADLINE_MS });
      server = await startServer(listen);
      for (const tab of [alice, bob]) await connected(tab);
      await alice.locator("#people:not(.stale)").waitFor({ timeout: DEADLINE_MS });
      await seesOnline(alice, "bob", await fdOf(bob));
      await write(alice, "group", "room", "still in the room?");
      await reads(bob, "still in the room?", { from: "alice", scope: "# room" });
    } finally {
      await server.stop();
    }
  });
}

/* Display */

test("raw frames are shown in both directions, and the heartbeat as text", async () => {
  const alice = await enter("alice");
  assert.ok(await alice.locator("#frames-panel").isHidden());
  await alice.locator("#frames-toggle").click();
  const frame = (direction, part) => alice.locator(`#frames li.${direction}`).filter({ hasText: part }).first();
  await frame("in", '"type":"welcome"').waitFor({ timeout: DEADLINE_MS });
  await frame("out", '"type":"join"').waitFor({ timeout: DEADLINE_MS });
  await frame("in", '"type":"ack"').waitFor({ timeout: DEADLINE_MS });
  await alice.locator("#frames-clear").click();
  assert.equal(await alice.locator("#frames li").count(), 0);
  assert.match(await alice.locator("#heartbeat").textContent(), /every [\d.]+ s/);
  await until("the round trip is shown", async () => /ms/.test(await alice.locator("#round-trip").textContent()));
});

test("on a phone, no panel and no long text causes horizontal scrolling", async () => {
  const phone = { options: { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true } };
  const narrow = async (tab, where) => {
    const width = await tab.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 360, `${where}: the page must be at most 360 px wide, not ${width} px`);
    for (const id of ["log", "panels", "frames"]) {
      const spare = await tab.locator(`#${id}`).evaluate((box) => box.scrollWidth - box.clientWidth);
      assert.ok(spare <= 0, `${where}: #${id} must not scroll sideways, but does by ${spare} px`);
    }
  };
  const blank = await openTab(server.url, phone);
  await narrow(blank, "login");
  const tab = await enter("W".repeat(128), phone);
  await write(tab, "to", "W".repeat(128), "W".repeat(500));
  await write(tab, "all", "", "https://example.org/" + "w".repeat(300));
  await receiptOf(tab, "https://example.org/" + "w".repeat(300));
  await narrow(tab, "chat");
  await tab.locator("#panels-toggle").click();
  await joins(tab, "g".repeat(128));
  await narrow(tab, "people");
  await tab.locator("#frames-toggle").click();
  await narrow(tab, "frames");
  await tab.locator("#my-fd").evaluate((fd) => { fd.textContent = "fd 9007199254740991"; });
  await narrow(tab, "the largest fd");
});

/* A scripted peer instead of the server, for rare behaviour */

const WELCOME = { type: "welcome", fd: 1, uid: "alice", heartbeat: { mode: "ping", every_ms: 25000 } };

async function enterScripted(script, welcome = WELCOME) {
  const peer = { opened: 0, socket: null, frames: [], online: ["alice"], mute: false };
  const tab = await openTab(`${server.url}#uid=alice`, { peer: (socket) => {
    peer.opened++;
    peer.socket = socket;
    socket.onMessage((text) => {
      const frame = JSON.parse(text);
      peer.frames.push(frame);
      if (peer.mute) return;
      if (frame.type === "online") socket.send(JSON.stringify({ type: "online", id: frame.id, online: peer.online }));
      else if (frame.id !== undefined) socket.send(JSON.stringify({ type: "ack", id: frame.id, matched: 3, queued: 2, dropped: 1 }));
    });
    socket.send(JSON.stringify(welcome));
    script?.(socket, peer);
  } });
  return { tab, peer };
}

test("close codes are shown as text, and only some cause a reconnect", async () => {
  for (const [code, reconnects] of [[1000, false], [1001, true], [1008, false], [1011, true], [1013, true], [3000, true], [4000, false], [4001, false], [4003, false],
    [4321, false], [4999, false]]) {
    const { tab, peer } = await enterScripted((socket, { opened }) => { if (opened === 1) socket.close({ code, reason: "why" }); });
    if (reconnects) {
      await until(`a reconnect after ${code}`, () => peer.opened === 2);
      await connected(tab);
      assert.ok(await tab.locator("#notice").isHidden());
    } else {
      await state(tab, "closed");   // in the state "closed" no timer runs
      assert.match(await tab.locator("#notice-text").textContent(), new RegExp(`\\(${code}: why\\)`));
      assert.equal(peer.opened, 1);
      await tab.locator("#retry").click();
      await connected(tab);
    }
  }
});

test("JSON is shown as text, never as markup; errors and drops are shown", async () => {
  const { tab, peer } = await enterScripted();
  await connected(tab);
  const markup = '<img src=x onerror="globalThis.owned = true"><b>bold</b>';
  const cases = [
    [{ from: markup, fd: 2, to: "alice", data: markup }, markup, { from: markup, scope: "to you" }],
    [{ data: { a: [1, null, "x"] } }, '{"a":[1,null,"x"]}', { from: "server", scope: "to you" }],
    [{ from: null, fd: 9, all: true, data: null }, "null", { from: "anonymous", scope: "everyone" }],
    [{ from: "bob", fd: 2, group: "__proto__", data: 0 }, "0", { from: "bob", scope: "# __proto__" }],
  ];
  for (const [frame, text, seen] of cases) {
    peer.socket.send(JSON.stringify({ type: "message", ...frame }));
    await reads(tab, text, seen);
  }
  assert.equal(await tab.locator("#log img, #log .text b, #roster img").count(), 0);
  assert.equal(await tab.evaluate(() => globalThis.owned), undefined);

  peer.socket.send(JSON.stringify({ type: "error", code: "rate_limited", message: "slow down" }));
  await tab.locator(".log-error", { hasText: "rate_limited: slow down" }).waitFor({ timeout: DEADLINE_MS });
  await write(tab, "all", "", "three get it");
  assert.equal(await receiptOf(tab, "three get it"), "queued for 2 of 3, dropped 1");
});

test("any text without an envelope is shown as a message", async () => {
  const { tab, peer } = await enterScripted();
  await connected(tab);
  for (const text of ["plain <b>text</b>", "42", '{"price":1}', '{"type":"news"}', "null", ""]) {
    peer.socket.send(text);
    const item = tab.locator("#log .message.in").last();
    await until(`the text ${text}`, async () => await item.count() && (await item.locator(".text").textContent()) === text);
    assert.equal(await item.getAttribute("data-scope"), "text");
  }
  assert.equal(await tab.locator(".log-error").count(), 0);
});

test("the title of the raw frames and its note do not overlap", async () => {
  for (const [width, height] of [[1280, 800], [390, 844]]) {
    const tab = await enter("alice", { options: { viewport: { width, height } } });
    await tab.locator("#frames-toggle").click();
    const boxes = [];
    for (const part of ["#frames-title", "#frames-panel > .row > .faint", "#frames-clear"]) boxes.push(await tab.locator(part).boundingBox());
    for (const [index, one] of boxes.entries()) {
      for (const other of boxes.slice(index + 1)) {
        const apart = one.x + one.width <= other.x || other.x + other.width <= one.x || one.y + one.height <= other.y || other.y + other.height <= one.y;
        assert.ok(apart, `at ${width} px, these boxes must not overlap: ${JSON.stringify([one, other])}`);
      }
    }
    const title = await tab.locator("#frames-title").evaluate((box) => box.scrollWidth - box.clientWidth);
    assert.ok(title <= 0, `at ${width} px, the title must fit, but is ${title} px too wide`);
    await tab.close();
  }
});

test("in the heartbeat mode client, the page sends heartbeats", async () => {
  const { tab, peer } = await enterScripted(null, { ...WELCOME, heartbeat: { mode: "client", every_ms: 100 } });
  await connected(tab);
  await until("the page sends three heartbeats", () => peer.frames.filter(({ type }) => type === "heartbeat").length >= 3);
});

test("the page queries a user that left after a delay, and shows the user as offline only if still missing", async () => {
  const { tab, peer } = await enterScripted();
  await connected(tab);
  const tell = (type, count) => peer.socket.send(JSON.stringify({ type, group: "lobby", uid: "bob", count }));
  tell("joined", 2);
  await roster(tab, "bob", '[data-state="online"]').waitFor({ timeout: DEADLINE_MS });
  await watchRoster(tab, "bob");

  peer.online = ["alice", "bob"];   // bob is connected again, but the page gets no notice
  tell("left", 1);
  await until("bob is online again", async () => (await sightings(tab)).length >= 3);
  assert.deepEqual((await sightings(tab)).map(({ state }) => state), ["online", "suspect", "online"]);

  peer.online = ["alice"];
  tell("left", 1);
  await roster(tab, "bob", '[data-state="offline"]').waitFor({ timeout: DEADLINE_MS });
  assert.equal(await tab.locator("#people-count").textContent(), "1");
});

test("a notice with several uids applies to each of them, and a notice without uids causes a query", async () => {
  const { tab, peer } = await enterScripted();
  await connected(tab);
  const tell = (notice) => peer.socket.send(JSON.stringify({ group: "lobby", ...notice }));
  tell({ type: "joined", uids: ["bob", "cat", "dan"], count: 4 });
  for (const uid of ["bob", "cat", "dan"]) {
    await roster(tab, uid, '[data-state="online"]').waitFor({ timeout: DEADLINE_MS });
  }
  peer.online = ["alice", "dan"];
  tell({ type: "left", uids: ["bob"], count: 3 });
  await roster(tab, "bob", '[data-state="offline"]').waitFor({ timeout: DEADLINE_MS });
  tell({ type: "left", count: 2 });
  await roster(tab, "cat", '[data-state="offline"]').waitFor({ timeout: DEADLINE_MS });
  assert.equal(await tab.locator("#people-count").textContent(), "2");
});

test("the page drops a connection on which no answer arrives, and marks the unanswered message", async () => {
  const { tab, peer } = await enterScripted();
  await connected(tab);
  await tab.clock.install();   // from here on, the test controls the timers
  peer.mute = true;
  await write(tab, "all", "", "into the void");
  await until("the page sends the push", () => peer.frames.some(({ data }) => data === "into the void"));
  peer.mute = false;
  await tab.clock.fastForward(60_000);
  assert.equal(await receiptOf(tab, "into the void"), "no answer: the connection ended");
  await tab.clock.resume();
  await until("the page reconnects", () => peer.opened === 2);
});
