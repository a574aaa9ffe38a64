// A double of the WebSocket class, and a clock that the test controls.

import { mock } from "node:test";
import { connect } from "../fdpush.js";

export const WELCOME = { type: "welcome", fd: 1, uid: "ann", heartbeat: { mode: "ping", every_ms: 25_000 } };

/** Replaces the timers and the clock of the client. Returns a function that advances both. */
export function mockTime() {
  let time = 1000;
  mock.timers.enable({ apis: ["setTimeout"] });
  mock.method(performance, "now", () => time);
  mock.method(Math, "random", () => 0.5);
  // Advances the clock in steps of 10 ms, so that a timer that another timer starts also fires at the right time.
  const advance = async (ms) => {
    for (const end = time + ms; time < end;) {
      time += 10;
      mock.timers.tick(10);
      await settled();
    }
  };
  // Advances the clock first and fires the timers later, as a browser does after a freeze of the page.
  const freeze = (ms) => { time += ms; };
  return { advance, freeze };
}

/** Resolves after the promise callbacks that are queued now. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));

/** Connects a client to doubles. `sockets` has each WebSocket of the client, in order. */
export function connectDouble(options = {}, url = "ws://double/") {
  const sockets = [], events = [];
  class Double {
    sent = [];
    bufferedAmount = 0;
    closed = null;
    constructor(url, protocols) {
      Object.assign(this, { url, protocols });
      sockets.push(this);
    }
    send(text) { this.sent.push(JSON.parse(text)); }
    close(code = 1000, reason = "") {
      if (code !== 1000 && (code < 3000 || code > 4999)) throw new RangeError(`invalid code ${code}`);
      this.closed ??= { code, reason };
    }
    deliver(frame) {
      const isRaw = typeof frame === "string" || frame instanceof ArrayBuffer;
      this.onmessage({ data: isRaw ? frame : JSON.stringify(frame) });
    }
    end(code, reason = "") { this.onclose({ code, reason }); }
    answer(frame = { type: "ack" }, { id } = this.sent.at(-1)) { this.deliver({ ...frame, id }); }
    types() { return this.sent.map(({ type, group = "" }) => `${type} ${group}`.trim()); }
  }
  const client = connect(url, { WebSocket: Double, ...options });
  for (const type of ["state", "open", "close", "message", "joined", "left", "error", "text", "binary"]) {
    client.on(type, (event) => events.push([type, event]));
  }
  const of = (type) => events.filter(([name]) => name === type).map(([, event]) => event);
  return { client, sockets, of, get socket() { return sockets.at(-1); } };
}
