/** A name of a user, a group or a key: 1 to 128 bytes of UTF-8. An integer is the same name as its decimal text. */
export type Name = string | number;

/** The receivers of a push. With `key`, a push may replace an older push with the same key in the queue of a slow reader. */
export type Target = { key?: Name } & (
  | { to: Name | Name[] }
  | { fd: number }
  | { group: Name }
  | { all: true }
);

/** `connecting`: the client connects. `waiting`: the client connects again after a delay. `closed`: the client does not connect. */
export type State = "closed" | "connecting" | "open" | "waiting";

/** The codes of the server's error frames. */
export type ServerErrorCode = "bad_frame" | "bad_request" | "not_allowed" | "rate_limited" | "too_large" | "unavailable";

/**
 * The codes of errors that the client itself creates. `not_connected`: the request was not sent. `connection_lost`: the request
 * was sent, but the connection ended before the answer. `closed`: the client is closed. `overloaded`: 1,000 requests have no
 * answer yet.
 */
export type ClientErrorCode = "not_connected" | "connection_lost" | "closed" | "overloaded";

export class RequestError extends Error {
  constructor(code: ServerErrorCode | ClientErrorCode, message: string);
  readonly code: ServerErrorCode | ClientErrorCode;
}

/**
 * The answer to a push. `matched` is the number of connections in the target. `queued` is the number of these connections that
 * get the message, and `dropped` is the number of these connections that do not get it.
 */
export interface PushAck {
  type: "ack";
  id: number;
  matched: number;
  queued: number;
  dropped: number;
}

export interface Ack {
  type: "ack";
  id: number;
}

/** A message has no `from` and no `fd` if a back end sent it. `from` is `null` if an anonymous client sent it. */
export interface Message {
  type: "message";
  from?: string | null;
  fd?: number;
  /** The group to which the message was sent. If a back end sent the message to several groups, `groups` has these groups. */
  group?: string;
  groups?: string[];
  all?: true;
  data: any;
}

/** Users joined or left a group. The event has one `uid`, 2 to 100 `uids`, or neither. `count` is the new number of users. */
export interface Presence {
  type: "joined" | "left";
  group: string;
  uid?: string;
  uids?: string[];
  count: number;
}

export interface Opened {
  fd: number;
  uid: string | null;
  heartbeat: { mode: "off" | "client" | "ping" | "push"; every_ms: number };
  /** Whether this client was open before. The client has not received the messages between the two connections. */
  isReconnect: boolean;
}

export interface Closed {
  code: number;
  reason: string;
  /** The time until the client connects again in milliseconds, or `null` if the client does not connect again. */
  delay: number | null;
}

export interface Events {
  state: State;
  open: Opened;
  close: Closed;
  message: Message;
  joined: Presence;
  left: Presence;
  /** An error without the id of a request, such as `rate_limited`, or the error of a `group` that the client cannot join again. */
  error: { code: ServerErrorCode | ClientErrorCode; message: string; group?: string };
  /** A text message of a back end that is not a frame (`text` in the API). */
  text: string;
  /** A binary message of a back end (`binary` in the API). */
  binary: ArrayBuffer;
  /** The text of each sent (`out`) and received (`in`) frame, for logs. */
  frame: { direction: "in" | "out"; text: string };
}

/** The part of a WebSocket class that the client uses. The classes of browsers, of Node and of the package `ws` have this part. */
export type WebSocketClass = new (url: string, protocols?: string[]) => {
  binaryType: any;
  onmessage: any;
  onclose: any;
  onerror: any;
  readonly bufferedAmount: number;
  send(text: string): void;
  close(code?: number, reason?: string): void;
};

export interface Options {
  /** The name of the user, for `--auth trust`. */
  uid?: Name;
  /** The token, for `--auth jwt` and `webhook`. If `token` is a function, the client calls it before each attempt to connect. */
  token?: string | (() => string | Promise<string>);
  /** The WebSocket class. Default: the global class `WebSocket`. Node has this global class from version 22 on. */
  WebSocket?: WebSocketClass;
  /** The maximum time until the `welcome` frame or an answer, in ms. After this time, the connection ends. Default: 20,000. */
  timeout?: number;
  /** The time without a received message until the client sends a heartbeat, in milliseconds. Default: 25,000. */
  heartbeat?: number;
  /** The maximum of the delay before the first attempt to reconnect, in ms. It doubles with each attempt. Default: 1,000. */
  retryFirst?: number;
  /** The maximum of the delay before any attempt to reconnect, in milliseconds. Default: 30,000. */
  retryMax?: number;
}

export class Client {
  constructor(url: string | URL, options?: Options);
  readonly state: State;
  /** The fd of the connection, or `null` without a connection. */
  readonly fd: number | null;
  /** The uid of the connection. `null` for an anonymous connection, and without a connection. */
  readonly uid: string | null;
  /** Connects immediately, unless the client is open or connecting. */
  connect(): this;
  /** Closes the connection. The client does not reconnect. */
  close(code?: number, reason?: string): void;
  /** Calls `listener` for each event of this type. Returns a function that removes the listener. */
  on<Type extends keyof Events>(type: Type, listener: (event: Events[Type]) => void): () => void;
  /** Sends data to other clients. */
  push(target: Target, data: unknown): Promise<PushAck>;
  /** Sends data to the back end's webhook. */
  send(data: unknown): Promise<Ack>;
  /** Joins a group, and joins it again after each reconnect. Without a connection, the promise waits for the next connection. */
  join(group: Name): Promise<void>;
  /** Leaves a group. */
  leave(group: Name): Promise<void>;
  /** Resolves with the online uids of a list. */
  online(uids: Name[]): Promise<string[]>;
}

/** Creates a client and connects it. */
export function connect(url: string | URL, options?: Options): Client;
