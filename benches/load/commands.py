#!/usr/bin/env python3
"""Measures what the largest commands of the API cost `fdpush serve`, and how long they hold the loop.

    cargo build --release --bin fdpush && benches/load/commands.py [--clients 10000] [--binary target/release/fdpush]

Each client has a uid and reads all it is sent. For every command it prints how long the answer took, and the longest round
trip that a bystander had meanwhile, who sends one heartbeat after the other: so long did the loop do nothing else. Each
answer is checked before its time is printed. Only Python's own library is needed.
"""

import argparse, http.client, json, os, re, resource, selectors, socket, subprocess, sys, threading, time

UPGRADE = ("GET /?uid={} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def connect(address, uid):
    client = socket.create_connection(address)
    client.sendall(UPGRADE.format(uid).encode())
    head = client.recv(4096)
    assert head.startswith(b"HTTP/1.1 101"), head
    return client


def drain(selector):
    """Reads what comes for any client, for as long as the process runs."""
    while True:
        for key, _ in selector.select():
            try:
                if not key.fileobj.recv(1 << 16):
                    selector.unregister(key.fileobj)
            except OSError:
                selector.unregister(key.fileobj)


class Bystander(threading.Thread):
    """Sends a heartbeat, waits for its answer, and again."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.client, self.longest = connect(address, "bystander"), 0.0
        text = b'{"type":"heartbeat","id":1}'
        self.frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text

    def run(self):
        while True:
            began = time.perf_counter()
            self.client.sendall(self.frame)
            while b'"ack"' not in self.client.recv(1 << 16):
                pass
            self.longest = max(self.longest, time.perf_counter() - began)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--clients", type=int, default=10_000)
    options.add_argument("--binary", default="target/release/fdpush")
    options = options.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = subprocess.Popen([options.binary, "serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0",
                               "--connection-groups-max", "10000"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = ("127.0.0.1", int(re.search(r":(\d+)/", server.stdout.readline()).group(1)))
        while "the API is on" not in (line := server.stderr.readline()):
            pass
        api = http.client.HTTPConnection("127.0.0.1", int(line.rsplit(":", 1)[1]), timeout=120)
        threading.Thread(target=lambda: [None for _ in server.stderr], daemon=True).start()
        measure(address, api, options.clients)
    finally:
        server.terminate()
        server.wait()


def measure(address, api, count):
    selector = selectors.DefaultSelector()
    for number in range(count):
        client = connect(address, f"u{number}")
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    threading.Thread(target=drain, args=(selector,), daemon=True).start()
    bystander = Bystander(address)
    bystander.start()
    uids = [f"u{number}" for number in range(min(count, 10_000))]
    groups = [f"g{number}" for number in range(max(1, 20_000 // len(uids)))]
    many = [f"h{number}" for number in range(9_000)]
    found = len(uids)

    def call(name, path, body=None, **expected):
        bystander.longest, began = 0.0, time.perf_counter()
        headers = {"Content-Type": "application/json"}
        api.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body), headers)
        response = api.getresponse()
        answer, took = json.loads(response.read()), time.perf_counter() - began
        assert response.status == 200 and expected.items() <= answer.items(), (name, response.status, str(answer)[:300])
        time.sleep(0.5)   # what it sent is read, and seen by the bystander
        print(f"{name:44} {took * 1000:9.1f} ms {bystander.longest * 1000:9.1f} ms", flush=True)

    print(f"{count} clients{'':29} {'answer':>12} {'bystander':>12}")
    call("nothing", "/api/stats")
    call("push of 100 bytes to uids", "/api/push", {"uids": uids, "data": "x" * 100}, queued=found)
    call("push of 100 KB to uids", "/api/push", {"uids": uids, "data": "x" * 100_000}, queued=found)
    call("push to all but half of them", "/api/push", {"all": True, "data": 1, "except": {"uids": uids[: found // 2]}},
         matched=count + 1 - found // 2)
    call("online of uids", "/api/online", {"uids": uids})
    call("join of uids into one group", "/api/join", {"uids": uids, "group": "room"}, changed=found)
    call(f"join of uids into {len(groups)} groups", "/api/join", {"uids": uids, "groups": groups}, changed=found)
    call("join of two uids into 9,000 groups", "/api/join", {"uids": uids[:2], "groups": many}, changed=2)
    call("push to 9,000 groups", "/api/push", {"groups": many, "data": 1}, matched=2)
    call("page of members", "/api/groups/room?limit=1000", count=found)
    call("page of connections", "/api/connections?limit=1000")
    call("page of users", "/api/users?limit=1000")
    call("page of groups", "/api/groups?limit=1000")
    call("leave of half of the uids", "/api/leave", {"uids": uids[: found // 2], "group": "room"}, changed=found // 2)
    call("ungroup of 9,000 groups", "/api/ungroup", {"groups": many}, changed=18_000)
    call("ungroup of one group", "/api/ungroup", {"group": "room"}, changed=found - found // 2)
    call("close of half of a group", "/api/close", {"uids": uids[: found // 2]}, matched=found // 2)


if __name__ == "__main__":
    sys.exit(main())
