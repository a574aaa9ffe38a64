/**
 * The client of `fdpush serve`: one ES module without dependencies, for browsers and for Node 20 or newer.
 *
 * A `Client` keeps one WebSocket. The states of a client are `connecting`, `open`, `waiting` (for the next attempt to connect) and
 * `closed`. Each frame of the client has an id. The server answers each frame once, in the order of the frames. The file
 * fdpush.d.ts has the types. README.md describes the events and options.
 */

const DEFAULTS = {
  retryFirst: 1000,     // maximum of the delay before the first attempt to reconnect, in ms; the maximum doubles with each attempt
  retryMax: 30_000,     // largest maximum in ms; the reconnect delay is a uniform random part of the maximum ("full jitter")
  timeout: 20_000,      // maximum time until the `welcome` frame, and until an answer, in ms
  heartbeat: 25_000,    // if no message arrives for this time, in ms, the client checks the connection
};
const STABLE_MS = 10_000;         // a connection that lasts this long resets the maximum of the delay
const TIMER_MS_MAX = 2 ** 31 - 1; // JavaScript fires a timer with a longer delay immediately
const LATE_MS = 1000;             // a timer that fires this late shows that the page was frozen
const REQUESTS_MAX = 1000;        // maximum number of requests without an answer

/** The types of the requests that may be sent twice without harm. The client sends such requests again after a reconnect. */
const REPEATABLE = ["join", "leave", "online"];

/** Returns whether the client must not reconnect after this close code. */
const isFinal = (code) => code === 1000 || code === 1008 || code >= 4000;

const now = () => performance.now();

/** The error of a request. Its `code` is from the server's error frame, or the client itself created the error: see README.md. */
export class RequestError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "RequestError";
    this.code = code;
  }
}

/** Creates a client and connects it. */
export const connect = (url, options) => new Client(url, options).connect();

export class Client {
  state = "closed";
  fd = null;
  uid = null;

  #url;
  #options;
  #socket = null;
  #attempt = 0;             // number of the current attempt to connect; a token that arrives for an earlier attempt is ignored
  #failures = 0;            // number of attempts to connect since the last stable connection
  #wasOpen = false;
  #receivedAt = 0;
  #isProbing = false;
  #timers = {};             // timers by purpose: connect (deadline or delay of an attempt), heartbeat, stable
  #lastId = 0;
  // The requests by id. Sent requests are in the order of sending. Without a connection, requests wait here for the next welcome.
  #requests = new Map();
  #sentCount = 0;           // number of the last sent request
  #answeredCount = 0;       // number of the last answered request
  #groups = new Set();      // the groups that the client joins after each welcome
  #listeners = new Map();

  constructor(url, options = {}) {
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    const uid = `${options.uid ?? ""}`;
    if (uid) this.#url.searchParams.set("uid", uid);
    this.#options = { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...options };
    if (!this.#options.WebSocket) throw new TypeError("no WebSocket: set the option WebSocket");
  }

  /* Use */

  /** Connects immediately, unless the client is open or connecting. Returns the client. */
  connect() {
    if (this.state === "closed") {
      this.#failures = 0;
      this.#watchPage("addEventListener");
    }
    if (this.state === "closed" || this.state === "waiting") this.#open();
    return this;
  }

  /** Closes the connection. The client does not reconnect. */
  close(code = 1000, reason = "") {
    if (this.state === "closed") return;
    this.#socket?.close(code, reason);   // throws if the code or the reason is invalid
    this.#end(code, reason, true);
  }

  /** Calls `listener` for each event of this type. Returns a function that removes the listener. */
  on(type, listener) {
    const listeners = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  /** Sends data to other clients: `target` is `{ to }`, `{ fd }`, `{ group }` or `{ all: true }`. Resolves with the ack. */
  push(target, data) {
    return this.#request({ type: "push", ...target, data });
  }

  /** Sends data to the back end's webhook. Resolves with the ack. */
  send(data) {
    return this.#request({ type: "send", data });
  }

  /** Joins a group, and joins it again after each reconnect. Resolves when the server has answered. */
  async join(group) {
    this.#groups.add(`${group}`);
    await this.#request({ type: "join", group: `${group}` });
  }

  async leave(group) {
    this.#groups.delete(`${group}`);
    await this.#request({ type: "leave", group: `${group}` });
  }

  /** Resolves with the online uids of a list. */
  async online(uids) {
    return (await this.#request({ type: "online", uids })).online;
  }

  /* Connection */

  async #open() {
    const attempt = ++this.#attempt;
    const { token, timeout, WebSocket } = this.#options;
    this.#setTimer("connect", timeout, () => this.#end(1006, "no welcome received"));
    this.#setState("connecting");
    try {
      const bearer = typeof token === "function" ? await token() : token;
      if (attempt !== this.#attempt) return;
      const socket = new WebSocket(this.#url.href, bearer ? [`bearer.${bearer}`] : []);
      this.#socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onmessage = ({ data }) => { if (socket === this.#socket) this.#receive(data); };
      socket.onclose = ({ code, reason }) => { if (socket === this.#socket) this.#end(code, reason); };
      // After `onerror`, the WebSocket calls `onclose`. Node 20 does not call `onclose` if the attempt to connect failed.
      socket.onerror = () => { if (socket === this.#socket && this.state === "connecting") this.#end(1006, ""); };
    } catch (error) {
      if (attempt === this.#attempt) this.#end(1006, `${error}`);
    }
  }

  /** Ends a connection or an attempt to connect. Starts the next attempt after a delay, unless `isLast` is true. */
  #end(code, reason, isLast = isFinal(code)) {
    const attempt = ++this.#attempt;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    const socket = this.#socket;
    this.#socket = this.fd = this.uid = null;
    socket?.close();
    let delay = null;
    if (isLast) {
      this.#watchPage("removeEventListener");
    } else {
      delay = Math.random() * Math.min(this.#options.retryMax, this.#options.retryFirst * 2 ** this.#failures++);
      this.#setTimer("connect", delay, () => this.#open());
    }
    for (const [id, { frame, isSent }] of this.#requests) {
      if (isLast) this.#reject(id, "closed", "the client is closed");
      else if (isSent) this.#handleLoss(id, frame);
    }
    this.state = isLast ? "closed" : "waiting";
    this.#emit("close", { code, reason, delay });
    if (attempt === this.#attempt) this.#emit("state", this.state);   // a listener may have started the next attempt
  }

  #handleLoss(id, { type }) {
    if (REPEATABLE.includes(type)) this.#requests.get(id).isSent = false;
    else this.#reject(id, "connection_lost", "the connection ended before the answer");
  }

  #handleWelcome({ fd, uid, heartbeat }) {
    this.fd = fd;
    this.uid = uid;
    this.#setTimer("connect", 0);
    this.#setTimer("stable", STABLE_MS, () => { this.#failures = 0; });
    this.#startHeartbeat(heartbeat);
    this.#setState("open");
    if (this.state !== "open") return;   // a listener has closed the client
    this.#rejoin();
    for (const [id, request] of this.#requests) this.#transmit(id, request);
    const isReconnect = this.#wasOpen;
    this.#wasOpen = true;
    this.#emit("open", { fd, uid, heartbeat, isReconnect });
  }

  #rejoin() {
    const waiting = [...this.#requests.values()].filter(({ frame }) => frame.type === "join");
    for (const group of this.#groups) {
      if (waiting.some(({ frame }) => frame.group === group)) continue;
      this.#enqueue({ type: "join", group }).catch(({ code, message }) => {
        // If the server refused the join, `#groups` no longer has the group.
        // After another error, the client joins the group again after the next welcome.
        if (!this.#groups.has(group)) this.#emit("error", { code, message, group });
      });
    }
  }

  /* Heartbeat and page */

  /** Sends heartbeat frames to check whether the server answers, because scripts in a browser do not see pings. */
  #startHeartbeat({ mode, every_ms } = {}) {
    const isRequired = mode === "client";
    const every = Math.min(this.#options.heartbeat, isRequired && every_ms || TIMER_MS_MAX);
    const beat = () => {
      this.#setTimer("heartbeat", every, beat);
      if (isRequired || now() - this.#receivedAt >= every) this.#probe();
    };
    this.#setTimer("heartbeat", every, beat);
  }

  /** Sends a heartbeat. If the server does not answer in time, the client ends the connection. */
  #probe() {
    if (this.#isProbing) return;
    this.#isProbing = true;
    const done = () => { this.#isProbing = false; };
    this.#request({ type: "heartbeat" }, this.#options.timeout / 2).then(done, done);
  }

  /** Connects immediately, or checks the open connection, when a page becomes visible or a network returns. */
  #wake = () => {
    if (globalThis.document?.visibilityState === "hidden") return;
    if (this.state === "open") this.#probe();
    else if (this.state === "waiting" && globalThis.navigator?.onLine !== false) this.connect();
  };

  #watchPage(change) {
    for (const type of ["online", "offline", "pageshow"]) globalThis[change]?.(type, this.#wake);
    for (const type of ["visibilitychange", "resume"]) globalThis.document?.[change](type, this.#wake);
  }

  /* Requests */

  #request(frame, timeout = this.#options.timeout) {
    const isFull = this.#requests.size >= REQUESTS_MAX;
    if (isFull) return Promise.reject(new RequestError("overloaded", `request limit reached (${REQUESTS_MAX})`));
    return this.#enqueue(frame, timeout);
  }

  #enqueue(frame, timeout = this.#options.timeout) {
    return new Promise((resolve, reject) => {
      if (this.state === "closed") throw new RequestError("closed", "the client is closed");
      const id = ++this.#lastId;
      const request = { frame, text: JSON.stringify({ ...frame, id }), isSent: false, count: 0, timeout, unsent: 0, resolve, reject };
      this.#requests.set(id, request);
      this.#startDeadline(id, request, timeout);
      this.#transmit(id, request);
    });
  }

  #transmit(id, request) {
    if (request.isSent || this.state !== "open") return;   // a listener may have closed the client
    request.isSent = true;
    request.count = ++this.#sentCount;
    this.#requests.delete(id);
    this.#requests.set(id, request);
    this.#socket.send(request.text);
    this.#emit("frame", { direction: "out", text: request.text });
  }

  #startDeadline(id, request, delay) {
    const due = now() + delay;
    request.deadline = setTimeout(() => {
      // After a freeze of the page, this timer fires before the messages that arrived during the freeze are delivered.
      if (now() - due > LATE_MS) this.#startDeadline(id, request, LATE_MS);
      else if (this.#mayWait(request)) this.#startDeadline(id, request, request.timeout);
      else if (!request.isSent) this.#reject(id, "not_connected", "there is no connection");
      else this.#end(1006, "no answer received");
    }, Math.min(delay, TIMER_MS_MAX));
  }

  /** Returns whether a request may wait longer: a join that waits for a connection, or a sent request on a slow network. */
  #mayWait(request) {
    if (!request.isSent) return request.frame.type === "join";
    const unsent = this.#socket.bufferedAmount;
    const isSending = unsent > 0 && unsent !== request.unsent;
    request.unsent = unsent;
    // Answers arrive in the order of the requests. If the answer to a later request has arrived, this request gets no answer.
    return isSending || (request.count > this.#answeredCount && now() - this.#receivedAt < request.timeout);
  }

  #reject(id, code, message) {
    this.#take(id)?.reject(new RequestError(code, message));
  }

  #take(id) {
    const request = this.#requests.get(id);
    clearTimeout(request?.deadline);
    this.#requests.delete(id);
    if (request) this.#answeredCount = Math.max(this.#answeredCount, request.count);
    return request;
  }

  /* Received messages */

  #receive(data) {
    this.#receivedAt = now();
    if (typeof data !== "string") return this.#emit("binary", data);
    this.#emit("frame", { direction: "in", text: data });
    const frame = parse(data), type = frame?.type;
    if (type === "welcome" && this.state === "connecting") this.#handleWelcome(frame);
    else if (type === "ack" || type === "online") this.#take(frame.id)?.resolve(frame);
    else if (type === "error") this.#handleError(frame);
    else if (type === "message" || type === "joined" || type === "left") this.#emit(type, frame);
    else this.#emit("text", data);   // a back end may push any text
  }

  #handleError({ id, code, message }) {
    const frame = this.#requests.get(id)?.frame;
    if (!frame) this.#emit("error", { code, message });
    // The server does not parse a frame above the rate limit, so this error has no id. It answers the oldest sent request.
    if (code === "rate_limited") id ??= [...this.#requests].find(([, { isSent }]) => isSent)?.[0];
    else if (frame?.type === "join") this.#groups.delete(frame.group);
    this.#reject(id, code, message);
  }

  /* Events and timers */

  #setState(state) {
    this.state = state;
    this.#emit("state", state);
  }

  #emit(type, event) {
    for (const listener of [...this.#listeners.get(type) ?? []]) {
      try { listener(event); } catch (error) { setTimeout(() => { throw error; }, 0); }
    }
  }

  /** Replaces a timer. Without `act`, only clears the old timer. */
  #setTimer(purpose, delay, act) {
    clearTimeout(this.#timers[purpose]);
    this.#timers[purpose] = act && setTimeout(act, Math.min(delay, TIMER_MS_MAX));
  }
}

function parse(text) {
  try { return JSON.parse(text); } catch { return undefined; }
}
