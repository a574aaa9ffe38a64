// Tests the package: its size, its types, its files, and the example of the README.

import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { transform } from "esbuild";
import { startServer, until } from "./servers.mjs";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const GZIP_BYTES_MAX = 4096;
const read = (name) => readFile(join(HERE, name), "utf8");

test("the minified module is below 4 KB in gzip", async () => {
  const { code } = await transform(await read("fdpush.js"), { minify: true, format: "esm", target: "es2022" });
  const bytes = gzipSync(code, { level: 9 }).length;
  console.log(`${bytes} bytes in gzip, ${code.length} minified`);
  assert.ok(bytes > 500 && bytes < GZIP_BYTES_MAX, `${bytes} bytes`);
});

test("the package has no dependencies and no scripts", async () => {
  const { dependencies, scripts, name } = JSON.parse(await read("package.json"));
  assert.deepEqual([dependencies, scripts, name], [undefined, undefined, "fdpush"]);
  assert.doesNotMatch(await read("fdpush.js"), /^\s*import |require\(|import\(/m);
});

test("the types accept every valid use and refuse invalid uses", () => {
  const tsc = join(HERE, "node_modules/typescript/bin/tsc");
  const options = ["--strict", "--noEmit", "--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom", "--types", "ws"];
  execFileSync(process.execPath, [tsc, ...options, "test/types.ts"], { cwd: HERE, stdio: "inherit" });
});

test("the example of the README runs, after the package is installed", async () => {
  const server = await startServer();
  const directory = await mkdtemp(join(tmpdir(), "fdpush-js-"));
  try {
    const install = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--install-links", "--omit=dev", "--offline", HERE];
    execFileSync("npm", install, { cwd: directory, stdio: "inherit" });
    await symlink(join(HERE, "node_modules/ws"), join(directory, "node_modules/ws"));
    const example = (await read("README.md")).match(/```js\n([^]*?)```/)[1];
    assert.ok(example.includes("ws://127.0.0.1:9501/"), "the example must contain the address that the test replaces");
    await writeFile(join(directory, "example.mjs"), example.replace("127.0.0.1:9501", server.listen));
    const child = spawn(process.execPath, ["example.mjs"], { cwd: directory, stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "exit");
    let printed = "";
    child.stdout.setEncoding("utf8").on("data", (text) => { printed += text; });
    await until("the example is connected", () => printed.includes("connected as 10086"));
    await server.call("/api/push", { group: "room", data: "from the back end" });
    await until("the example receives the message", () => printed.includes("from the back end"));
    await server.call("/api/close", { uid: "10086", code: 4000, reason: "signed out" });
    assert.deepEqual(await ended, [0, null]);   // after a final close code, no timer keeps the process running
    assert.match(printed, /offline/);
  } finally {
    await rm(directory, { recursive: true });
    await server.stop();
  }
});
