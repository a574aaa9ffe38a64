// Tests TLS with Node's ws and with Chromium, which trust an authority of the test. run.sh starts the server, and sets
// FILES and PORT.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { chromium } from "playwright-core";
import WebSocket from "ws";

const { FILES, PORT, CHROMIUM } = process.env;
const URL = `wss://localhost:${PORT}/`;
const DEADLINE_MS = 60_000;
const LENGTHS = [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536, 1_000_000];
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const authority = (name) => readFileSync(`${FILES}/${name}.pem`);
const connect = (options) => new WebSocket(URL, { handshakeTimeout: DEADLINE_MS, ...options });

test("ws: messages of any length return", { timeout: DEADLINE_MS }, async () => {
  for (const version of ["TLSv1.2", "TLSv1.3"]) {
    const client = connect({ ca: authority("ca"), minVersion: version, maxVersion: version });
    await once(client, "open");
    for (const length of LENGTHS) {
      client.send("t".repeat(length));
      const [text, isBinary] = await once(client, "message");
      assert.ok(!isBinary && text.toString() === "t".repeat(length), `${length} bytes`);
      const sent = Buffer.alloc(length, "b");
      client.send(sent);
      const [received] = await once(client, "message");
      assert.ok(sent.equals(received), `${length} bytes`);
    }
    client.ping("alive?");
    assert.equal((await once(client, "pong"))[0].toString(), "alive?");
    client.close(1000, "done");
    assert.equal((await once(client, "close"))[0], 1000);
  }
});

test("ws: another authority is not trusted", { timeout: DEADLINE_MS }, async () => {
  for (const options of [{ ca: authority("other-ca") }, {}]) {
    const [error] = await once(connect(options), "error");
    assert.match(error.code, /UNABLE_TO|SELF_SIGNED|CERT/);
  }
});

test("ws: old versions are refused", { timeout: DEADLINE_MS }, async () => {
  const options = { ca: authority("ca"), minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" };
  const [error] = await once(connect(options), "error");
  assert.match(error.message, /alert protocol version|handshake failure/);
});

// Starts a browser whose certificate database contains this authority.
async function browse(name, use) {
  const home = `${FILES}/home-${name}`;
  const database = `${home}/.pki/nssdb`;
  mkdirSync(database, { recursive: true });
  const certutil = (...words) => execFileSync("certutil", ["-d", `sql:${database}`, ...words]);
  certutil("-N", "--empty-password");
  certutil("-A", "-t", "C,,", "-n", name, "-i", `${FILES}/${name}.pem`);
  const options = { executablePath: CHROMIUM, args: FLAGS, headless: true, env: { ...process.env, HOME: home } };
  const browser = await chromium.launch(options);
  try {
    await use(await browser.newPage());
  } finally {
    await browser.close();
  }
}

// Sends messages from the page, and returns their echoes. Returns `null` if the WebSocket did not open.
function echoes(page, lengths) {
  return page.evaluate(async ([url, lengths]) => {
    const socket = new WebSocket(url);
    const next = (type) => new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
    if (!await Promise.race([next("open").then(() => true), next("error").then(() => false)])) return null;
    const returned = [];
    for (const length of lengths) {
      const answer = next("message");
      socket.send("t".repeat(length));
      returned.push((await answer).data.length);
    }
    const closed = next("close");
    socket.close(1000, "done");
    return [...returned, (await closed).code];
  }, [URL, lengths]);
}

test("Chromium: a page of the server has a WebSocket", { timeout: DEADLINE_MS }, async () => {
  await browse("ca", async (page) => {
    const answer = await page.goto(`https://localhost:${PORT}/`);
    assert.equal(answer.status(), 200);
    assert.match(await answer.text(), /^TLS 1\.3 /);
    assert.equal((await answer.securityDetails()).issuer, "ca");
    assert.deepEqual(await echoes(page, LENGTHS), [...LENGTHS, 1000]);
  });
});

test("Chromium: another authority is not trusted", { timeout: DEADLINE_MS }, async () => {
  await browse("other-ca", async (page) => {
    assert.equal(await echoes(page, [1]), null);
    await assert.rejects(page.goto(`https://localhost:${PORT}/`), /ERR_CERT_AUTHORITY_INVALID/);
  });
});
