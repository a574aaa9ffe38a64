"""Tests TLS with Python's websockets and websocket-client, which use OpenSSL. run.sh starts the server and sets FILES and PORT."""

import asyncio
import os
import pathlib
import ssl
import unittest

import websocket
import websockets.asyncio.client

TIMEOUT = 60
FILES = pathlib.Path(os.environ["FILES"])
PORT = os.environ["PORT"]
URL = f"wss://localhost:{PORT}/"
# Lengths at which the frame header or the number of TLS records changes.
LENGTHS = [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_535, 65_536, 1_000_000]


def context(authority="ca"):
    return ssl.create_default_context(cafile=FILES / f"{authority}.pem")


class Websockets(unittest.IsolatedAsyncioTestCase):
    @staticmethod
    def connect(authority="ca", **options):
        return websockets.asyncio.client.connect(
            URL, ssl=context(authority), max_size=None, open_timeout=TIMEOUT, close_timeout=TIMEOUT, **options
        )

    async def receive(self, client):
        return await asyncio.wait_for(client.recv(), TIMEOUT)

    async def test_messages_of_any_length_return(self):
        async with self.connect() as client:
            for length in LENGTHS:
                await client.send("t" * length)
                self.assertEqual(await self.receive(client), "t" * length)
                await client.send(b"\x00b" * length)
                self.assertEqual(await self.receive(client), b"\x00b" * length)
            await asyncio.wait_for(await client.ping(), TIMEOUT)
        self.assertEqual((client.close_code, client.close_reason), (1000, ""))

    async def test_a_fragmented_message_returns_as_one(self):
        async with self.connect() as client:
            await client.send(["a" * 20_000, "", "b" * 20_000])
            self.assertEqual(await self.receive(client), "a" * 20_000 + "b" * 20_000)

    async def test_many_messages_return_in_order(self):
        async with self.connect() as client:
            for number in range(1000):
                await client.send(str(number))
            self.assertEqual([await self.receive(client) for _ in range(1000)], [str(n) for n in range(1000)])

    async def test_another_authority_or_name_is_not_trusted(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            await self.connect("other-ca")
        with self.assertRaises(ssl.SSLCertVerificationError):
            await self.connect(server_hostname="other.test")


class WebsocketClient(unittest.TestCase):
    @staticmethod
    def connect(authority="ca"):
        return websocket.create_connection(
            URL, timeout=TIMEOUT, sslopt={"ca_certs": str(FILES / f"{authority}.pem")}, skip_utf8_validation=True
        )

    def test_messages_of_any_length_return(self):
        client = self.connect()
        for length in LENGTHS:
            client.send("t" * length)
            self.assertEqual(client.recv(), "t" * length)
            client.send_binary(b"\x00b" * length)
            self.assertEqual(client.recv(), b"\x00b" * length)
        client.ping("alive?")
        self.assertEqual(client.recv_data(control_frame=True), (websocket.ABNF.OPCODE_PONG, b"alive?"))
        client.send_close(1000, b"done")
        opcode, payload = client.recv_data(control_frame=True)
        self.assertEqual((opcode, payload[:2]), (websocket.ABNF.OPCODE_CLOSE, (1000).to_bytes(2, "big")))
        client.shutdown()

    def test_another_authority_is_not_trusted(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.connect("other-ca")


if __name__ == "__main__":
    unittest.main()
