"""Tests permessage-deflate with `websockets`, whose DEFLATE is zlib."""

import json
import random

from websockets.exceptions import ConnectionClosed
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect

from gateway import TIMEOUT
from test_back_end import ApiTest, pushed

# This text compresses to about a third of its length.
LONG = json.dumps([{"id": n, "name": f"item {n * 7919 % 1009}"} for n in range(200)])


class Deflate(ApiTest):
    flags = ["--compression", "on"]

    def open(self, uid, **parameters):
        """Opens a WebSocket that offers these parameters, and returns it with its agreed extension."""
        offer = ClientPerMessageDeflateFactory(**parameters)
        options = {"open_timeout": TIMEOUT, "close_timeout": TIMEOUT, "max_size": None, "ping_interval": None}
        url = f"ws://{self.gateway.address}/?uid={uid}"
        client = self.enterContext(connect(url, compression=None, extensions=[offer], **options))
        self.assertEqual(json.loads(client.recv(TIMEOUT))["type"], "welcome")
        agreed, = client.protocol.extensions
        self.assertTrue(agreed.local_no_context_takeover and agreed.remote_no_context_takeover)
        return client

    def metric(self, name):
        lines = self.gateway.call("GET", "/metrics").text.splitlines()
        value, = (line.rsplit(" ", 1)[1] for line in lines if line.startswith(f"{name} "))
        return float(value)

    def ask(self, client, frames, id):
        """Sends a frame and returns its answer."""
        client.send(frames)
        while True:
            answer = json.loads(client.recv(TIMEOUT))
            if answer.get("id") == id:
                return answer

    def message(self, client):
        while True:
            frame = json.loads(client.recv(TIMEOUT))
            if frame["type"] == "message":
                return frame

    def test_every_offer_of_the_library(self):
        offers = [
            {},
            {"client_max_window_bits": True},
            {"client_max_window_bits": 10},
            {"server_max_window_bits": 15},
            {"server_max_window_bits": 9},
            {"server_no_context_takeover": True, "client_no_context_takeover": True},
            {"server_no_context_takeover": True, "server_max_window_bits": 12, "client_max_window_bits": 12},
        ]
        for number, parameters in enumerate(offers):
            with self.subTest(parameters):
                client = self.open(f"user{number}", **parameters)
                for text in ["short", LONG, "", "x" * 300_000, LONG]:
                    self.assertEqual(self.push(uid=f"user{number}", data=text), pushed(1))
                    self.assertEqual(self.message(client)["data"], text)
        self.assertEqual(self.metric("fdpush_deflate_opens_total"), len(offers))
        # A message that is longer than the window of its client, or longer than 256 KiB, is not compressed.
        self.assertEqual(self.metric('fdpush_deflate_messages_total{direction="out"}'), 2 * 5)
        before, after = (self.metric(f'fdpush_deflate_bytes_total{{stage="{stage}"}}') for stage in ("before", "after"))
        self.assertLess(after, before / 2)

    def test_messages_and_fragments_of_a_client(self):
        ann, bob = self.open("ann"), self.connect("bob")
        for number, data in enumerate([LONG, "", "short", "grüße 世界 " * 5000, random.Random(1).randbytes(30_000).hex()]):
            text = json.dumps({"type": "push", "to": "bob", "data": data, "id": str(number)})
            parts = [text[at : at + 1 + len(text) // 7] for at in range(0, len(text), 1 + len(text) // 7)]
            for frames in (text, iter(parts), iter(["", *parts, ""])):
                self.assertEqual(self.ask(ann, frames, str(number))["queued"], 1)
                self.assertEqual(bob.message()["data"], data)
        self.assertEqual(self.metric('fdpush_deflate_messages_total{direction="in"}'), 15)
        self.assertEqual(self.metric("fdpush_inflate_failures_total"), 0)

    def test_a_message_to_many_is_compressed_once_for_all_windows(self):
        clients = [self.open(f"user{n}", client_max_window_bits=True) for n in range(5)] + [self.connect("plain")]
        before = self.metric('fdpush_deflate_bytes_total{stage="before"}')
        self.assertEqual(self.push(all=True, data=LONG), pushed(6))
        for client in clients[:-1]:
            self.assertEqual(self.message(client)["data"], LONG)
        self.assertEqual(clients[-1].message()["data"], LONG)
        grown = self.metric('fdpush_deflate_bytes_total{stage="before"}') - before
        self.assertLess(grown, 2 * len(LONG))

    def test_a_bomb_is_refused(self):
        client = self.open("ann")
        client.send("0" * (5 << 20))
        with self.assertRaises(ConnectionClosed) as closed:
            while True:
                client.recv(TIMEOUT)
        self.assertEqual(closed.exception.rcvd.code, 1009)
        self.assertEqual(self.metric("fdpush_inflate_failures_total"), 1)

    def test_invalid_utf_8_is_refused(self):
        client = self.open("ann")
        client.send(b"not \xff UTF-8 " * 50, text=True)
        with self.assertRaises(ConnectionClosed) as closed:
            while True:
                client.recv(TIMEOUT)
        self.assertEqual(closed.exception.rcvd.code, 1007)
