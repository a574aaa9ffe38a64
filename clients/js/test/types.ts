// Uses of the types. Each line after @ts-expect-error must be an error.

import WebSocket from "ws";
import { Client, RequestError, connect, type Events, type Message, type PushAck } from "fdpush";

const client: Client = connect("wss://push.example.com/", { token: async () => "token", WebSocket, timeout: 5000 });
new Client(new URL("https://push.example.com/"), { uid: 10086, WebSocket: globalThis.WebSocket }).connect();

async function use(): Promise<void> {
  const ack: PushAck = await client.push({ to: ["10010", 7], key: "price" }, { any: "data" });
  const counts: number = ack.matched + ack.queued + ack.dropped;
  await client.push({ fd: counts }, null);
  await client.push({ group: "room" }, [1]);
  await client.push({ all: true }, "text");
  const { id } = await client.send({ order: 7 });
  const uids: string[] = await client.online([id]);
  await client.join(uids[0] ?? "room");
  await client.leave(7);
  const stop: () => void = client.on("message", (message: Message) => console.log(message.from, message.data));
  client.on("close", ({ code, delay }) => console.log(code + 1, delay === null));
  client.on("joined", ({ uid, uids, count }) => console.log(uid, uids?.length, count));
  client.on("state", (state) => console.log(state === "waiting"));
  const types: (keyof Events)[] = ["open", "left", "error", "text", "binary", "frame"];
  console.log(types, client.fd, client.uid, client.state);
  stop();
  client.close(4000, "signed out");
  try {
    await client.push({ all: true }, 1);
  } catch (error) {
    if (error instanceof RequestError && error.code === "rate_limited") console.log(error.message);
  }
}

// @ts-expect-error: a push must have exactly one kind of target
client.push({}, 1);
// @ts-expect-error: all must be true
client.push({ all: false }, 1);
// @ts-expect-error: the event does not exist
client.on("unknown", () => {});
// @ts-expect-error: a message does not have this member
client.on("message", ({ sender }) => sender);
// @ts-expect-error: a program cannot set the state
client.state = "open";
// @ts-expect-error: the option does not exist
connect("ws://localhost/", { user: "10086" });

use();
