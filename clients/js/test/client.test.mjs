// Tests the client with a double of the WebSocket class, and with a clock that the test controls.

import assert from "node:assert/strict";
import { afterEach, mock, test } from "node:test";
import { Client, RequestError, connect } from "../fdpush.js";
import { WELCOME, connectDouble, mockTime, settled } from "./double.mjs";

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
});

const codeOf = (promise) => promise.then(() => "resolved", (error) => (assert.ok(error instanceof RequestError), error.code));

/** Connects a client to a double of its WebSocket, and delivers the `welcome` frame to the client. */
async function open(options, welcome = WELCOME) {
  const double = connectDouble(options);
  await settled();
  double.socket.deliver(welcome);
  return double;
}

/* Requests */

test("a request resolves with its ack, and rejects with the code of its error", async () => {
  const { client, socket } = await open();
  const pushed = client.push({ to: "bob", key: "price" }, { a: [1, null] });
  const { id, ...frame } = socket.sent.at(-1);
  assert.deepEqual(frame, { type: "push", to: "bob", key: "price", data: { a: [1, null] } });
  const sent = client.send(7);
  assert.equal(socket.sent.at(-1).type, "send");
  socket.deliver({ type: "error", id: id + 1, code: "unavailable", message: "webhook queue full" });
  socket.deliver({ type: "ack", id, matched: 3, queued: 2, dropped: 1 });
  assert.deepEqual(await pushed, { type: "ack", id, matched: 3, queued: 2, dropped: 1 });
  await assert.rejects(sent, { name: "RequestError", code: "unavailable", message: "webhook queue full" });
  const online = client.online(["bob", 7]);
  assert.deepEqual(socket.sent.at(-1).uids, ["bob", 7]);
  socket.answer({ type: "online", online: ["7"] });
  assert.deepEqual(await online, ["7"]);
  socket.deliver({ type: "ack", id: 999 });   // an unknown id has no effect
  await assert.rejects(client.push({ all: true }, 1n), TypeError);
  client.close();
});

test("a request before the welcome waits for the welcome, and rejects if no welcome arrives", async () => {
  const { advance } = mockTime();
  const double = connectDouble();
  const first = double.client.push({ all: true }, 1);
  await settled();
  double.socket.deliver(WELCOME);
  assert.deepEqual(double.socket.types(), ["push"]);
  double.socket.answer({ type: "ack", matched: 1, queued: 1, dropped: 0 });
  assert.equal((await first).queued, 1);
  double.socket.end(1006);
  const late = codeOf(double.client.push({ all: true }, 2)), joined = double.client.join("room");
  await advance(20_000);
  assert.equal(await late, "not_connected");
  await advance(100_000);
  double.client.connect();
  await settled();
  double.socket.deliver(WELCOME);
  assert.deepEqual(double.socket.types(), ["join room"]);   // a join has no deadline without a connection
  double.socket.answer();
  await joined;
  double.client.close();
});

test("a lost connection rejects pushes, and repeats joins, leaves and queries", async () => {
  const { advance } = mockTime();
  const double = await open();
  const { client } = double;
  const lost = [codeOf(client.push({ all: true }, 1)), codeOf(client.send(1))];
  const repeated = [client.join("room"), client.leave("old"), client.online(["bob"])];
  double.socket.end(1006);
  assert.deepEqual(await Promise.all(lost), ["connection_lost", "connection_lost"]);
  await advance(1000);
  assert.equal(double.sockets.length, 2);
  double.socket.deliver(WELCOME);
  assert.deepEqual(double.socket.types(), ["join room", "leave old", "online"]);
  for (const frame of double.socket.sent) double.socket.answer(frame.type === "online" ? { type: "online", online: [] } : undefined, frame);
  assert.deepEqual(await Promise.all(repeated), [undefined, undefined, []]);
  client.close();
});

test("a connection without an answer ends, but not while bytes are transferred", async () => {
  const { advance, freeze } = mockTime();
  const double = await open({ heartbeat: 1e9, retryFirst: 30_000 });
  const { client, socket } = double;
  const pushed = codeOf(client.push({ all: true }, "x".repeat(1000)));
  socket.bufferedAmount = 900;
  await advance(20_000);
  socket.bufferedAmount = 500;
  await advance(20_000);
  assert.equal(client.state, "open");   // the client waits, because the send buffer became smaller
  socket.bufferedAmount = 0;
  await advance(10_000);
  socket.deliver({ type: "message", data: 1 });
  await advance(10_000);
  assert.equal(client.state, "open");   // a message arrived
  const answered = client.online([]);
  socket.answer({ type: "online", online: [] });   // the answer to a later request arrives, so the push gets no answer
  await answered;
  freeze(60_000);
  await advance(19_990);
  assert.equal(client.state, "open");   // the client waits, because the timer fired late
  await advance(2000);
  assert.equal(client.state, "waiting");
  assert.deepEqual(double.of("close"), [{ code: 1006, reason: "no answer received", delay: 15_000 }]);
  assert.deepEqual(socket.closed, { code: 1000, reason: "" });
  assert.equal(await pushed, "connection_lost");
  socket.deliver(WELCOME);   // a message on the old connection has no effect
  assert.equal(client.state, "waiting");
  client.close();
});

test("an error `rate_limited` without an id rejects the oldest request", async () => {
  const { client, socket, of } = await open();
  const [first, second] = [codeOf(client.push({ all: true }, 1)), codeOf(client.push({ all: true }, 2))];
  socket.deliver({ type: "error", code: "rate_limited", message: "slow down" });
  assert.equal(await first, "rate_limited");
  assert.deepEqual(of("error"), [{ code: "rate_limited", message: "slow down" }]);
  socket.answer();
  assert.equal(await second, "resolved");
  socket.deliver({ type: "error", code: "rate_limited", message: "no request waits" });
  assert.equal(of("error").length, 2);
  client.close();
});

test("more than 1,000 requests without an answer are refused", async () => {
  const { client, socket } = await open();
  const results = Array.from({ length: 1000 }, (_, n) => codeOf(client.push({ all: true }, n)));
  assert.equal(await codeOf(client.push({ all: true }, 0)), "overloaded");
  assert.equal(socket.sent.length, 1000);
  for (const frame of socket.sent) socket.answer(undefined, frame);
  assert.ok((await Promise.all(results)).every((code) => code === "resolved"));
  client.close();
});

test("the client expects answers in the order in which it sent the requests, also after a reconnect", async () => {
  const { advance } = mockTime();
  const double = await open();
  const { client } = double;
  const joined = client.join("room");
  double.socket.answer();
  await joined;
  double.socket.end(1006);
  const pushed = client.push({ group: "room" }, 1);
  await advance(500);
  double.socket.deliver(WELCOME);
  assert.deepEqual(double.socket.types(), ["join room", "push room"]);   // the join has the later id
  double.socket.deliver({ type: "error", code: "rate_limited", message: "slow down" });
  double.socket.answer();
  await pushed;
  client.close();
});

/* Groups */

test("after a reconnect, the client joins its groups first, except left and refused groups", async () => {
  const { advance } = mockTime();
  const double = await open();
  const { client } = double;
  for (const group of ["a", "b", 7]) {
    const joined = client.join(group);
    double.socket.answer();
    await joined;
  }
  const left = client.leave("b");
  double.socket.answer();
  await left;
  const refused = codeOf(client.join("secret"));
  double.socket.answer({ type: "error", code: "not_allowed", message: "no" });
  assert.equal(await refused, "not_allowed");
  double.socket.end(1001);
  const pushed = client.push({ group: "a" }, 1);
  await advance(500);
  double.socket.deliver({ ...WELCOME, fd: 9 });
  assert.deepEqual(double.socket.types(), ["join a", "join 7", "push a"]);
  assert.equal(client.fd, 9);
  assert.deepEqual(double.of("open").map(({ isReconnect }) => isReconnect), [false, true]);
  double.socket.answer();
  await pushed;

  double.socket.answer({ type: "error", code: "not_allowed", message: "no longer" }, double.socket.sent[0]);
  await settled();
  assert.deepEqual(double.of("error"), [{ code: "not_allowed", message: "no longer", group: "a" }]);
  double.socket.end(1001);
  await advance(1000);
  double.socket.deliver(WELCOME);
  assert.deepEqual(double.socket.types(), ["join 7"]);
  client.close();
});

/* Reconnects */

test("only some close codes cause a reconnect", async () => {
  const final = [1000, 1008, 4000, 4001, 4003, 4999];
  for (const code of [...final, 1001, 1005, 1006, 1009, 1011, 1012, 1013, 3000]) {
    const reconnects = !final.includes(code);
    const { advance } = mockTime();
    const double = await open();
    double.socket.end(code, "why");
    assert.deepEqual(double.of("close"), [{ code, reason: "why", delay: reconnects ? 500 : null }]);
    assert.equal(double.client.state, reconnects ? "waiting" : "closed");
    await advance(60_000);
    assert.equal(double.sockets.length > 1, reconnects, `code ${code}`);
    double.client.close();
    mock.timers.reset();
    mock.restoreAll();
  }
});

test("the delay is a random part of a maximum that doubles, and a stable connection resets it", async () => {
  const { advance } = mockTime();
  const double = await open();
  for (let round = 0; round < 7; round++) {
    double.socket.end(1006);
    await advance(double.of("close").at(-1).delay);
  }
  assert.deepEqual(double.of("close").map(({ delay }) => delay), [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
  double.socket.deliver(WELCOME);
  await advance(10_000);
  double.socket.end(1006);
  assert.equal(double.of("close").at(-1).delay, 500);
  double.client.close();
});

test("an attempt without a welcome ends after the timeout", async () => {
  const { advance } = mockTime();
  const double = connectDouble({ timeout: 5000 });
  await advance(5000);
  assert.deepEqual(double.of("close"), [{ code: 1006, reason: "no welcome received", delay: 500 }]);
  double.client.close();
});

test("close ends all requests and attempts to connect, and connect starts again", async () => {
  const { advance } = mockTime();
  const double = await open();
  const { client } = double;
  const pushed = codeOf(client.push({ all: true }, 1));
  assert.throws(() => client.close(1001), RangeError);
  assert.equal(client.state, "open");
  client.close(4000, "signed out");
  assert.equal(await pushed, "closed");
  assert.equal(await codeOf(client.push({ all: true }, 1)), "closed");
  assert.deepEqual(double.socket.closed, { code: 4000, reason: "signed out" });
  client.close();
  assert.equal(double.of("close").length, 1);
  await advance(60_000);
  assert.equal(double.sockets.length, 1);
  assert.equal(client.connect(), client.connect());
  await settled();
  assert.equal(double.sockets.length, 2);
  double.socket.end(1006);
  client.connect();   // connects without the reconnect delay
  await settled();
  assert.equal(double.sockets.length, 3);
  await advance(5000);
  assert.equal(double.sockets.length, 3);
  client.close();
});

/* URL and token */

test("the uid is part of the URL, and http becomes ws", async () => {
  const urls = [];
  const cases = [["http://a/x?y=1", { uid: "ä&b" }], ["https://a", { uid: 0 }], ["wss://a", {}], ["ws://a", { uid: "" }]];
  for (const [url, options] of cases) {
    const double = connectDouble(options, url);
    await settled();
    urls.push(double.socket.url);
    assert.deepEqual(double.socket.protocols, []);
    double.client.close();
  }
  assert.deepEqual(urls, ["ws://a/x?y=1&uid=%C3%A4%26b", "wss://a/?uid=0", "wss://a/", "ws://a/"]);
  assert.throws(() => connect("no URL", { WebSocket: class {} }), TypeError);
  assert.throws(() => new Client("ws://a", { WebSocket: undefined }), /no WebSocket/);
});

test("a token function is called before each attempt, and its failure is a failed attempt", async () => {
  const { advance } = mockTime();
  const tokens = ["one", new Error("no network"), "two"];
  const token = async () => {
    const next = tokens.shift();
    if (next instanceof Error) throw next;
    return next;
  };
  const double = connectDouble({ token });
  await settled();
  assert.deepEqual(double.socket.protocols, ["bearer.one"]);
  double.socket.end(1006);
  await advance(500);
  assert.equal(double.of("close").at(-1).reason, "Error: no network");
  await advance(1000);
  assert.deepEqual(double.sockets.map(({ protocols }) => protocols), [["bearer.one"], ["bearer.two"]]);
  double.client.close();

  let give;
  const slow = connectDouble({ token: () => new Promise((resolve) => { give = resolve; }) });
  slow.client.close();
  give("late");
  await settled();
  assert.equal(slow.sockets.length, 0);
});

/* Heartbeat */

test("the client checks a quiet connection, and ends the connection if no answer arrives", async () => {
  const { advance } = mockTime();
  const double = await open();
  await advance(25_000);
  assert.deepEqual(double.socket.types(), ["heartbeat"]);
  double.socket.answer();
  await advance(24_000);
  double.socket.deliver({ type: "message", data: 1 });
  await advance(1000);
  assert.equal(double.socket.sent.length, 1);   // a message arrived in this period
  await advance(25_000);
  assert.equal(double.socket.sent.length, 2);
  await advance(10_000);
  assert.deepEqual(double.of("close"), [{ code: 1006, reason: "no answer received", delay: 500 }]);
  double.client.close();
});

test("in the heartbeat mode client, heartbeats do not depend on received messages", async () => {
  const { advance } = mockTime();
  const double = await open({}, { ...WELCOME, heartbeat: { mode: "client", every_ms: 3000 } });
  for (let beat = 1; beat <= 3; beat++) {
    double.socket.deliver({ type: "message", data: 1 });
    await advance(3000);
    assert.equal(double.socket.sent.length, beat);
    double.socket.answer();
  }
  double.client.close();
});

/* Page events */

test("when a page becomes visible or a network returns, the client connects immediately or checks its connection", async () => {
  const page = new EventTarget(), document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const network = { onLine: true };
  const [addEventListener, removeEventListener] = [page.addEventListener.bind(page), page.removeEventListener.bind(page)];
  const globals = { addEventListener, removeEventListener, document, navigator: network };
  const before = Object.entries(globals).map(([name]) => [name, Object.getOwnPropertyDescriptor(globalThis, name)]);
  for (const [name, value] of Object.entries(globals)) Object.defineProperty(globalThis, name, { value, configurable: true });
  try {
    mockTime();
    const double = await open();
    const { client } = double;
    const cases = [[page, "offline"], [page, "online"], [page, "pageshow"], [document, "visibilitychange"], [document, "resume"]];
    for (const [target, type] of cases) {
      target.dispatchEvent(new Event(type));
      assert.equal(double.socket.sent.at(-1).type, "heartbeat", type);
      target.dispatchEvent(new Event(type));
      assert.equal(double.socket.sent.length, 1, "one check at a time");
      double.socket.answer();
      await settled();
      double.socket.end(1006);
      assert.equal(client.state, "waiting");
      network.onLine = false;
      target.dispatchEvent(new Event(type));
      assert.equal(client.state, "waiting");   // without a network, the client does not try to connect
      network.onLine = true;
      document.visibilityState = "hidden";
      target.dispatchEvent(new Event(type));
      assert.equal(client.state, "waiting");
      document.visibilityState = "visible";
      target.dispatchEvent(new Event(type));
      await settled();
      double.socket.deliver(WELCOME);
      assert.equal(client.state, "open");
    }
    const count = double.sockets.length;
    client.close();
    page.dispatchEvent(new Event("online"));
    await settled();
    assert.equal(double.sockets.length, count);
  } finally {
    for (const [name, descriptor] of before) {
      if (descriptor) Object.defineProperty(globalThis, name, descriptor);
      else delete globalThis[name];
    }
  }
});

/* Events */

test("each received message causes one event", async () => {
  const { client, socket, of } = await open();
  const frames = [
    { type: "message", from: "bob", fd: 2, data: null },
    { type: "joined", group: "a", uid: "b", count: 2 },
    { type: "left", group: "a", count: 1 },
  ];
  for (const frame of frames) socket.deliver(frame);
  assert.deepEqual([...of("message"), ...of("joined"), ...of("left")], frames);
  const texts = ["plain", "42", "null", "", "[]", '{"type":"news"}', '{"type":"welcome","fd":5}'];
  for (const text of texts) socket.deliver(text);
  assert.deepEqual(of("text"), texts);
  assert.equal(client.fd, 1);
  socket.deliver(new ArrayBuffer(3));
  assert.equal(of("binary")[0].byteLength, 3);
  assert.deepEqual(of("state"), ["open"]);   // the test adds its listeners after the first state
  client.close();
});

test("a listener may close and connect the client", async () => {
  for (const type of ["state", "close", "open"]) {
    for (const state of ["connecting", "open", "waiting"]) {
      mockTime();
      const double = connectDouble();
      const { client } = double;
      client.on(type, () => { if (client.state === state) client.close(); });
      await settled();
      double.socket.deliver(WELCOME);
      if (client.state === "open") double.socket.end(1006);
      if (client.state === "waiting") client.connect();
      const isHeard = type === "state" || (type === "close") === (state === "waiting") && state !== "connecting";
      assert.equal(client.state, isHeard ? "closed" : "connecting", `${type} ${state}`);
      const isEnd = ({ delay }) => delay === null;
      assert.equal(double.of("close").filter(isEnd).length, isHeard ? 1 : 0);
      client.close();
      await settled();
      assert.equal(double.sockets.filter(({ closed }) => !closed).length, 0, "every WebSocket is closed");
      mock.timers.reset();
      mock.restoreAll();
    }
  }
  const double = await open();
  const stop = double.client.on("close", () => { stop(); double.client.connect(); });
  double.socket.end(4000);
  assert.deepEqual(double.of("state"), ["open", "connecting"]);
  double.client.close();
});

test("an error of a listener affects no other listener", async () => {
  mockTime();
  const double = await open();
  const heard = [];
  const stop = double.client.on("message", () => { heard.push(1); throw new Error("of the listener"); });
  double.client.on("message", () => heard.push(2));
  double.socket.deliver({ type: "message", data: 1 });
  assert.deepEqual(heard, [1, 2]);
  assert.throws(() => mock.timers.tick(1), /of the listener/);
  stop();
  double.socket.deliver({ type: "message", data: 1 });
  assert.deepEqual(heard, [1, 2, 2]);
  double.client.on("frame", () => double.client.close());
  assert.equal(await codeOf(double.client.push({ all: true }, 1)), "closed");
});
