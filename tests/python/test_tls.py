"""A back end over TLS. That one with a good certificate is asked cannot be tried here: nobody vouches for this machine."""

import pathlib
import queue
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

import websocket

from gateway import PATIENCE, Gateway


class Impostor:
    """It listens where the back end should, with a certificate that it made itself."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as directory:
            certificate = pathlib.Path(directory, "certificate.pem")
            key = pathlib.Path(directory, "key.pem")
            make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
            like = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
            line = [*make.split(), *like, "-out", certificate, "-keyout", key]
            subprocess.run(line, check=True, capture_output=True, timeout=PATIENCE)
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate, key)
        self.names = []
        self.context.sni_callback = lambda _session, name, _context: self.names.append(name)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        # What came of each connection: what was asked, or why nothing was.
        self.heard = queue.Queue()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            stream.settimeout(PATIENCE)
            try:
                with self.context.wrap_socket(stream, server_side=True) as session:
                    self.heard.put(session.recv(1 << 16))
            except OSError as error:
                self.heard.put(error)

    def stop(self):
        # Alone, `close` does not wake who accepts.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class Tls(unittest.TestCase):
    def test_a_back_end_that_nobody_vouches_for_is_told_nothing(self):
        impostor = Impostor()
        self.addCleanup(impostor.stop)
        url = f"https://localhost:{impostor.port}/hook"
        gateway = Gateway("--auth", "webhook", "--auth-url", url)
        try:
            with self.assertRaises(websocket.WebSocketBadStatusException) as refused:
                gateway.connect("/?session=secret")
            self.assertEqual(refused.exception.status_code, 503)
            # It was spoken to in TLS, up to its certificate.
            self.assertIsInstance(impostor.heard.get(timeout=PATIENCE), ssl.SSLError)
            self.assertEqual(impostor.names, ["localhost"])
            self.assertIn('fdpush_auth_requests_total{outcome="failed"} 1\n', gateway.call("GET", "/metrics").text)
        finally:
            self.assertEqual(gateway.stop(), 0)
        self.assertIn("invalid peer certificate: UnknownIssuer", "".join(gateway.log))


if __name__ == "__main__":
    unittest.main()
