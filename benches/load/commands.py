#!/usr/bin/env python3
"""Measures the largest API commands of `fdpush serve`, and how long they occupy the loop.

    cargo build --release --bin fdpush && benches/load/commands.py [--clients 10000] [--binary target/release/fdpush]

Each client has a uid and reads all messages. For each command the script prints three durations:
- answer: from the request to its answer.
- probe: the longest round trip, during the command, of 100 clients that send heartbeats in a loop. This duration includes the
  time in which the readers on the same machine occupy the cores that the server or the probes need.
- turn: the longest turn of the loop, from the histogram `fdpush_turn_duration_seconds`, rounded up to a power of two
  in microseconds.

The readers and the probes run in other processes than the script. The script checks each answer before it prints the time. It
needs only Python's standard library.
"""

import argparse, http.client, json, multiprocessing, os, re, resource, selectors, socket, subprocess, sys, threading, time

UPGRADE = ("GET /?uid={} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")


def connect(address, uid):
    client = socket.create_connection(address)
    client.sendall(UPGRADE.format(uid).encode())
    head = client.recv(4096)
    assert head.startswith(b"HTTP/1.1 101"), head
    return client


def read_all(address, count, is_ready):
    """Connects clients, and reads and discards all their data until the process ends."""
    selector, buffer = selectors.DefaultSelector(), bytearray(1 << 18)
    for number in range(count):
        client = connect(address, f"u{number}")
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    is_ready.set()
    while True:
        for key, _ in selector.select():
            try:
                if not key.fileobj.recv_into(buffer):
                    selector.unregister(key.fileobj)
            except OSError:
                selector.unregister(key.fileobj)


def probe(address, count, longest):
    """Connects clients, each of which sends the next heartbeat after the answer to the last one. Stores the longest round trip."""
    selector = selectors.DefaultSelector()
    text = b'{"type":"heartbeat","id":1}'
    frame = bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text
    began = {}
    for number in range(count):
        client = connect(address, f"probe{number}")
        selector.register(client, selectors.EVENT_READ)
        client.sendall(frame)
        began[client] = time.perf_counter()
    while True:
        for key, _ in selector.select():
            if b'"ack"' in key.fileobj.recv(1 << 16):
                now = time.perf_counter()
                longest.value = max(longest.value, now - began[key.fileobj])
                key.fileobj.sendall(frame)
                began[key.fileobj] = now


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--clients", type=int, default=10_000)
    options.add_argument("--probes", type=int, default=100)
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
        measure(address, api, options.clients, options.probes)
    finally:
        server.terminate()
        server.wait()


def longest_turn(before, after):
    """The upper bound of the longest turn between two readings of the histogram."""
    grown = [bound for bound in after if after[bound] - before[bound] < after[float("inf")] - before[float("inf")]]
    return min((bound for bound in after if bound > max(grown, default=0)))


def measure(address, api, count, probes):
    is_ready, longest = multiprocessing.Event(), multiprocessing.Value("d", 0.0)
    processes = [multiprocessing.Process(target=read_all, args=(address, count, is_ready), daemon=True),
                 multiprocessing.Process(target=probe, args=(address, probes, longest), daemon=True)]
    for process in processes:
        process.start()
    assert is_ready.wait(120), "all clients must connect within 120 s"
    # Together with the groups, these names are at most 10,000, the limit of a command.
    uids = [f"u{number}" for number in range(min(count, 9_990))]
    groups = [f"g{number}" for number in range(2)]
    many = [f"h{number}" for number in range(4_990)]
    found = len(uids)

    def turns():
        api.request("GET", "/metrics")
        lines = api.getresponse().read().decode()
        found = re.findall(r'fdpush_turn_duration_seconds_bucket\{le="([^"]+)"\} (\d+)', lines)
        return {float(bound): int(turns) for bound, turns in found}

    def call(name, path, body=None, **expected):
        headers = {"Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        before = turns()
        longest.value, began = 0.0, time.perf_counter()
        api.request("GET" if body is None else "POST", path, content, headers)
        response = api.getresponse()
        answer, took = json.loads(response.read()), time.perf_counter() - began
        assert response.status == 200 and expected.items() <= answer.items(), (name, response.status, str(answer)[:300])
        time.sleep(0.5)   # In this time, the clients read the messages. `longest` includes the probes' round trips in this time.
        turn = longest_turn(before, turns())
        print(f"{name:40} {took * 1000:9.1f} ms {longest.value * 1000:9.1f} ms {turn * 1000:9.1f} ms", flush=True)

    print(f"{count} clients{'':25} {'answer':>12} {'probe':>12} {'turn':>12}")
    call("nothing", "/api/stats")
    call("push of 100 bytes to uids", "/api/push", {"uids": uids, "data": "x" * 100}, queued=found)
    call("push of 100 KB to uids", "/api/push", {"uids": uids, "data": "x" * 100_000}, queued=found)
    call("push of 900 KB to uids", "/api/push", {"uids": uids[:3_000], "data": "x" * 900_000}, queued=min(found, 3_000))
    call("push to all but half of them", "/api/push", {"all": True, "data": 1, "except": {"uids": uids[: found // 2]}},
         matched=count + probes - found // 2)
    call("online of uids", "/api/online", {"uids": uids})
    call("join of uids into one group", "/api/join", {"uids": uids, "group": "room"}, changed=found)
    call("join of half of the uids into 2 groups", "/api/join", {"uids": uids[: found // 2], "groups": groups}, changed=found // 2)
    call("join of two uids into 4,990 groups", "/api/join", {"uids": uids[:2], "groups": many}, changed=2)
    call("push to 4,990 groups", "/api/push", {"groups": many, "data": 1}, matched=2)
    call("page of members", "/api/groups/room?limit=1000", count=found)
    call("page of connections", "/api/connections?limit=1000")
    call("page of users", "/api/users?limit=1000")
    call("page of groups", "/api/groups?limit=1000")
    call("leave of half of the uids", "/api/leave", {"uids": uids[: found // 2], "group": "room"}, changed=found // 2)
    call("ungroup of 4,990 groups", "/api/ungroup", {"groups": many}, changed=9_980)
    call("ungroup of one group", "/api/ungroup", {"group": "room"}, changed=found - found // 2)
    call("close of half of the uids", "/api/close", {"uids": uids[: found // 2], "reason": "r" * 123}, matched=found // 2)
    call("close of all", "/api/close", {"all": True, "reason": "r" * 123}, matched=count + probes - found // 2)


if __name__ == "__main__":
    sys.exit(main())
