"""Tests the certificate verification of back ends over TLS."""

import pathlib
import queue
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

import websocket

from gateway import TIMEOUT, Gateway


def openssl(*words):
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=TIMEOUT)


class Files:
    """A certificate authority, and a certificate for `localhost` that it signed."""

    def __init__(self, directory):
        self.authority, authority_key = pathlib.Path(directory, "ca.pem"), pathlib.Path(directory, "ca-key.pem")
        self.certificate, self.key = pathlib.Path(directory, "certificate.pem"), pathlib.Path(directory, "key.pem")
        new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        openssl(*new, "-subj", "/CN=An authority", "-out", self.authority, "-keyout", authority_key)
        like = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
        by = ["-CA", self.authority, "-CAkey", authority_key]
        openssl(*new, *like, *by, "-subj", "/CN=localhost", "-out", self.certificate, "-keyout", self.key)


def read_request(stream):
    """Reads the whole request. If the back end answered before the end of the request, a reset could destroy the answer."""
    asked = b""
    while True:
        head, end, body = asked.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if end and len(body) >= int(length[1] if length else 0):
            return asked
        part = stream.recv(1 << 16)
        if not part:
            raise EOFError(asked)
        asked += part


class BackEnd:
    """Listens with a certificate for `localhost`, and accepts every client as uid `ada`."""

    ANSWER = b'{"uid":"ada"}'

    def __init__(self, files):
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(files.certificate, files.key)
        self.names = []
        self.context.sni_callback = lambda _session, name, _context: self.names.append(name)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        # The request that each connection received, or the error of its handshake.
        self.requests = queue.Queue()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            stream.settimeout(TIMEOUT)
            try:
                with self.context.wrap_socket(stream, server_side=True) as session:
                    self.requests.put(read_request(session))
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.ANSWER)}\r\nConnection: close\r\n\r\n"
                    session.sendall(head.encode() + self.ANSWER)
            except OSError as error:
                self.requests.put(error)

    def stop(self):
        # A call of `close` alone would not wake the thread that accepts connections.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Tls(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.files = Files(directory.name)
        self.back_end = BackEnd(self.files)
        self.addCleanup(self.back_end.stop)
        self.ask = ["--auth", "webhook", "--auth-url", f"https://localhost:{self.back_end.port}/hook"]

    def test_a_back_end_with_an_unknown_authority_gets_no_request(self):
        self.assert_gets_no_request(Gateway(*self.ask))

    def test_another_authority_does_not_verify_the_back_end(self):
        with tempfile.TemporaryDirectory() as directory:
            self.assert_gets_no_request(Gateway(*self.ask, "--webhook-ca-file", str(Files(directory).authority)))

    def test_a_back_end_with_a_configured_authority_gets_the_request(self):
        self.assert_gets_request(self.files.authority)


    def assert_gets_request(self, authority):
        gateway = Gateway(*self.ask, "--webhook-ca-file", str(authority))
        try:
            client = gateway.connect("/?session=secret")
            self.assertEqual(client.welcome["uid"], "ada")
            asked = self.back_end.requests.get(timeout=TIMEOUT)
            self.assertTrue(asked.startswith(b"POST /hook HTTP/1.1\r\n"), asked)
            client.close()
        finally:
            self.assertEqual(gateway.stop(), 0)

    def assert_gets_no_request(self, gateway):
        try:
            with self.assertRaises(websocket.WebSocketBadStatusException) as refused:
                gateway.connect("/?session=secret")
            self.assertEqual(refused.exception.status_code, 503)
            # The handshake failed after the server had received the certificate.
            self.assertIsInstance(self.back_end.requests.get(timeout=TIMEOUT), ssl.SSLError)
            self.assertEqual(self.back_end.names, ["localhost"])
            self.assertIn('fdpush_auth_requests_total{outcome="failed"} 1\n', gateway.call("GET", "/metrics").text)
        finally:
            self.assertEqual(gateway.stop(), 0)
        self.assertIn("invalid peer certificate: ", "".join(gateway.log))


if __name__ == "__main__":
    unittest.main()
