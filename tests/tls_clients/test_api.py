"""Tests the API of `fdpush serve` over TLS with curl, Python's http.client, and OpenSSL's s_client.

run.sh makes the certificates, and sets FILES, PORT and FDPUSH_BIN.
"""

import http.client
import json
import re
import ssl
import unittest

import websocket

from server_process import ServerProcess
from test_openssl import FILES, TIMEOUT, curl, s_client

KEY = "the-key-of-the-back-end"
AUTHORIZATION = f"Authorization: Bearer {KEY}"
GET_STATS = f"GET /api/stats HTTP/1.1\r\nHost: localhost\r\n{AUTHORIZATION}\r\nConnection: close\r\n\r\n"

# Suites of TLS 1.2 without forward secrecy, or without authenticated encryption.
WEAK_SUITES = ["AES128-GCM-SHA256", "AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"]


class Gateway(ServerProcess):
    """A running server. Its clients and back ends use TLS."""

    def __init__(self, *flags):
        addresses = ["--listen", "tls:127.0.0.1:0", "--api", "tls:127.0.0.1:0"]
        pair = ["--tls-cert", FILES / "localhost.pem", "--tls-key", FILES / "localhost-key.pem"]
        super().__init__(*addresses, *pair, *flags, keys=KEY)
        self.port = self.port_in(self.welcome)
        self.api_port = self.port_in(self.api_line)

    @staticmethod
    def port_in(line):
        return int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])

    def url(self, path, scheme="https"):
        return f"{scheme}://localhost:{self.api_port}{path}"

    def curl(self, path, *options, authority="ca"):
        return curl("--cacert", FILES / f"{authority}.pem", "--header", AUTHORIZATION, *options, self.url(path))

    def s_client(self, *options, request=GET_STATS):
        return s_client(*options, request=request, port=self.api_port)


def call(connection, method, path, body=None, key=KEY):
    """Sends a request. Returns the status and the JSON body."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    connection.request(method, path, body and json.dumps(body), headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


class ApiTest(unittest.TestCase):
    """Starts one server with `FLAGS` for all tests of a class."""

    FLAGS = []

    @classmethod
    def setUpClass(cls):
        cls.gateway = Gateway(*cls.FLAGS)

    @classmethod
    def tearDownClass(cls):
        code = cls.gateway.stop()
        assert code == 0, f"exit code {code}: {cls.gateway.log}"

    def connect(self, authority="ca", certificate=None, version=None):
        """Returns a keep-alive connection to the API. The first request on the connection also makes the TLS handshake."""
        context = ssl.create_default_context(cafile=FILES / f"{authority}.pem")
        if certificate:
            context.load_cert_chain(FILES / f"{certificate}.pem", FILES / f"{certificate}-key.pem")
        if version:
            context.minimum_version = context.maximum_version = version
        connection = http.client.HTTPSConnection("localhost", self.gateway.api_port, timeout=TIMEOUT, context=context)
        self.addCleanup(connection.close)
        return connection


class Client:
    """A WebSocket client that has received its welcome frame."""

    def __init__(self, gateway, uid):
        options = {"ca_certs": str(FILES / "ca.pem")}
        url = f"wss://localhost:{gateway.port}/?uid={uid}"
        self.socket = websocket.create_connection(url, timeout=TIMEOUT, sslopt=options, suppress_origin=True)
        assert self.next()["type"] == "welcome"

    def next(self):
        return json.loads(self.socket.recv())


class Api(ApiTest):
    def test_curl_pushes_to_a_client(self):
        client = Client(self.gateway, "curl")
        for version in [["--tlsv1.3"], ["--tls-max", "1.2"]]:
            body = json.dumps({"uid": "curl", "data": {"over": version}})
            done = self.gateway.curl("/api/push", "--header", "Content-Type: application/json", "--data", body, *version)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(json.loads(done.stdout)["queued"], 1)
            self.assertEqual(client.next()["data"], {"over": version})
        # The response contains the cipher suite of the WebSocket connection, which shows that the WebSocket client
        # also uses TLS.
        done = self.gateway.curl("/api/users/curl", "--include")
        self.assertTrue(done.stdout.startswith("HTTP/1.1 200 "), done.stdout)
        self.assertIn('"cipher":"TLS_', done.stdout)
        client.socket.close()

    def test_curl_reuses_its_connection(self):
        options = ["--write-out", "%{stderr}%{num_connects}"]
        done = self.gateway.curl("/api/stats", *options, self.gateway.url("/healthz"))
        self.assertEqual((done.returncode, done.stderr), (0, "10"))

    def test_curl_refuses_another_authority(self):
        done = self.gateway.curl("/api/stats", authority="other-ca")
        self.assertEqual((done.returncode, done.stdout), (60, ""))

    def test_curl_with_plain_http_or_without_the_key_gets_json(self):
        done = curl("--write-out", "%{http_code}", self.gateway.url("/api/stats", "http"))
        self.assertTrue(done.stdout.endswith("400"), done.stdout)
        self.assertIn("this port speaks TLS: use https://", json.loads(done.stdout[:-3])["error"]["message"])
        done = curl("--cacert", FILES / "ca.pem", "--write-out", "%{http_code}", self.gateway.url("/api/stats"))
        self.assertTrue(done.stdout.endswith("401"), done.stdout)
        self.assertEqual(json.loads(done.stdout[:-3])["error"]["code"], "unauthorized")

    def test_python_pushes_on_one_connection(self):
        client = Client(self.gateway, "python")
        for version in [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2]:
            connection = self.connect(version=version)
            # The longer bodies take several TLS records.
            for length in [1, 16_000, 17_000, 200_000]:
                status, answer = call(connection, "POST", "/api/push", {"uid": "python", "data": "x" * length})
                self.assertEqual((status, answer["queued"]), (200, 1))
                self.assertEqual(client.next()["data"], "x" * length)
            self.assertEqual(connection.sock.version(), {"TLSv1_3": "TLSv1.3", "TLSv1_2": "TLSv1.2"}[version.name])
            self.assertEqual(call(connection, "GET", "/api/stats", key="another-key")[0], 401)
        client.socket.close()

    def test_python_refuses_another_authority(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            call(self.connect(authority="other-ca"), "GET", "/api/stats")

    def test_s_client_is_refused_with_old_versions_and_weak_suites(self):
        self.assertIn("HTTP/1.1 200 OK", self.gateway.s_client("-verify_return_error"))
        for option in ["-tls1", "-tls1_1"]:
            output = self.gateway.s_client(option, "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
            self.assertNotIn("HTTP/1.1", output)
            self.assertRegex(output, "alert (protocol version|handshake failure)")
        for suite in WEAK_SUITES:
            output = self.gateway.s_client("-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0")
            self.assertNotIn("HTTP/1.1", output)
            self.assertIn("alert handshake failure", output, suite)


class ClientCertificates(ApiTest):
    FLAGS = ["--api-client-ca", FILES / "back-ends-ca.pem"]
    VERSIONS = [(["--tlsv1.3"], ssl.TLSVersion.TLSv1_3), (["--tls-max", "1.2"], ssl.TLSVersion.TLSv1_2)]

    @staticmethod
    def with_certificate(name):
        return ["--cert", FILES / f"{name}.pem", "--key", FILES / f"{name}-key.pem"]

    def test_curl_with_a_certificate_of_the_authority_pushes(self):
        client = Client(self.gateway, "ann")
        for version, _ in self.VERSIONS:
            options = ["--header", "Content-Type: application/json", "--data", '{"uid":"ann","data":7}', *version]
            done = self.gateway.curl("/api/push", *options, *self.with_certificate("back-end"))
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertEqual(json.loads(done.stdout)["queued"], 1)
            self.assertEqual(client.next()["data"], 7)
        # The API key is required even from a client with a certificate.
        line = ["--cacert", FILES / "ca.pem", *self.with_certificate("back-end"), "--write-out", "%{http_code}"]
        self.assertTrue(curl(*line, self.gateway.url("/api/stats")).stdout.endswith("401"))
        client.socket.close()

    def test_curl_without_a_certificate_of_the_authority_fails(self):
        for version, _ in self.VERSIONS:
            for options in [[], self.with_certificate("foreign-back-end")]:
                done = self.gateway.curl("/api/stats", *version, *options)
                # curl reports a failed handshake, a failed read after the handshake (TLS 1.3), or a wrong client certificate.
                self.assertIn(done.returncode, [35, 56, 98], done.stderr)
                self.assertEqual(done.stdout, "")
                self.assertIn("alert", done.stderr)

    def test_python_needs_a_certificate_of_the_authority(self):
        for _, version in self.VERSIONS:
            connection = self.connect(certificate="back-end", version=version)
            for _ in range(2):
                self.assertEqual(call(connection, "GET", "/api/stats")[0], 200)
            for certificate in [None, "foreign-back-end"]:
                with self.assertRaisesRegex(ssl.SSLError, "alert"):
                    call(self.connect(certificate=certificate, version=version), "GET", "/api/stats")

    def test_s_client_sees_the_authority_and_needs_its_certificate(self):
        for version in ["-tls1_3", "-tls1_2"]:
            output = self.gateway.s_client(version)
            self.assertRegex(output, "Acceptable client certificate CA names\nCN = back-ends-ca\n")
            self.assertNotIn("HTTP/1.1", output)
            self.assertRegex(output, "alert (certificate required|handshake failure)")
            pair = ["-cert", FILES / "back-end.pem", "-key", FILES / "back-end-key.pem"]
            self.assertIn("HTTP/1.1 200 OK", self.gateway.s_client(version, *pair))


if __name__ == "__main__":
    unittest.main()
