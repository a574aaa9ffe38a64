"""Checks the TLS settings of the server with OpenSSL's s_client, and curl. run.sh starts the server and sets FILES and PORT."""

import os
import pathlib
import socket
import subprocess
import threading
import unittest

TIMEOUT = 60
FILES = pathlib.Path(os.environ["FILES"])
PORT = os.environ["PORT"]
REQUEST = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

# The accepted cipher suites of TLS 1.2, for ECDSA and RSA certificates.
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256": "localhost",
    "ECDHE-ECDSA-AES256-GCM-SHA384": "localhost",
    "ECDHE-ECDSA-CHACHA20-POLY1305": "localhost",
    "ECDHE-RSA-AES128-GCM-SHA256": "rsa.test",
    "ECDHE-RSA-AES256-GCM-SHA384": "rsa.test",
    "ECDHE-RSA-CHACHA20-POLY1305": "rsa.test",
}


def s_client(*options, request=REQUEST, name="localhost", port=PORT):
    """Connects and sends a request. Returns all output."""
    names = ["-servername", name, "-verify_hostname", name] if name else ["-noservername"]
    line = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", FILES / "ca.pem", *names, *options]
    done = subprocess.run([*line, "-ign_eof"], input=request, capture_output=True, text=True, timeout=TIMEOUT)
    return done.stdout + done.stderr


def curl(*options):
    line = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT), *options]
    return subprocess.run(line, capture_output=True, text=True, timeout=TIMEOUT)


class Openssl(unittest.TestCase):
    def assert_refused(self, output, *alerts):
        self.assertNotIn("HTTP/1.1 200 OK", output)
        if alerts:
            self.assertTrue(any(alert in output for alert in alerts), output)

    def test_the_certificate_is_verified(self):
        for name in ["localhost", "rsa.test"]:
            output = s_client("-verify_return_error", name=name)
            self.assertIn("Verification: OK", output)
            self.assertIn("HTTP/1.1 200 OK", output)
            self.assertIn(f"subject=CN = {name}", output)
        self.assertIn("subject=CN = localhost", s_client(name=None), "the first pair is the default")
        self.assert_refused(s_client("-verify_return_error", name="other.test"), "hostname mismatch", "Hostname mismatch")

    def test_both_versions_are_spoken(self):
        for option, version in [("-tls1_3", "TLS 1.3 "), ("-tls1_2", "TLS 1.2 ")]:
            output = s_client(option)
            self.assertIn(version, output)
            self.assertIn("Compression: NONE", output)

    def test_old_versions_are_refused(self):
        for option in ["-tls1", "-tls1_1"]:
            output = s_client(option, "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0")
            self.assertIn("CONNECTED", output)
            self.assert_refused(output, "alert protocol version", "alert handshake failure")

    def test_an_ssl_3_hello_gets_an_alert(self):
        # OpenSSL no longer supports SSL 3, so the test sends this hello itself. The hello offers one suite: RSA with RC4 and MD5.
        hello = b"\x03\x00" + bytes(32) + b"\x00" + b"\x00\x02\x00\x04" + b"\x01\x00"
        message = b"\x01" + len(hello).to_bytes(3, "big") + hello
        with socket.create_connection(("127.0.0.1", int(PORT)), TIMEOUT) as stream:
            stream.sendall(b"\x16\x03\x00" + len(message).to_bytes(2, "big") + message)
            alert = stream.recv(100)
        self.assertEqual((alert[:1], alert[3:6]), (b"\x15", b"\x00\x02\x02"), alert)

    def test_only_suites_with_forward_secrecy_and_authenticated_encryption_are_accepted(self):
        listed = subprocess.run(
            ["openssl", "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
            capture_output=True, text=True, check=True, timeout=TIMEOUT,
        )
        suites = [suite for suite in listed.stdout.strip().split(":") if not suite.startswith("TLS_")]
        self.assertGreater(len(suites), 60)
        self.assertLessEqual(SUITES.keys(), set(suites))
        for suite in suites:
            name = SUITES.get(suite, "rsa.test" if "RSA" in suite else "localhost")
            output = s_client("-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0", name=name)
            if suite in SUITES:
                self.assertIn("TLS 1.2 TLS_ECDHE_", output, suite)
            else:
                self.assert_refused(output)
                # The client does not support the signature, or the server does not support the cipher suite.
                self.assertIn("Cipher is (NONE)", output, suite)

    def test_suites_of_tls_1_3(self):
        for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]:
            self.assertIn(f"TLS 1.3 {suite}\n", s_client("-tls1_3", "-ciphersuites", suite))
        for suite in ["TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"]:
            self.assert_refused(s_client("-tls1_3", "-ciphersuites", suite), "alert handshake failure")

    def test_groups(self):
        for group in ["X25519", "P-256", "P-384"]:
            # In TLS 1.2, the list of groups must also contain the group of the certificate's key.
            for version, name in [("-tls1_3", "localhost"), ("-tls1_2", "rsa.test")]:
                output = s_client(version, "-groups", group, name=name)
                self.assertIn("HTTP/1.1 200 OK", output, f"{version} {group}")
                self.assertIn("Server Temp Key: ", output)
        for group in ["ffdhe2048", "X448", "P-521"]:
            self.assert_refused(s_client("-tls1_3", "-groups", group), "alert handshake failure")
        for group in ["secp224r1", "sect283r1", "brainpoolP256r1"]:
            self.assert_refused(s_client("-tls1_2", "-groups", group), "alert handshake failure")

    def test_a_hello_is_retried_with_a_common_group(self):
        self.assertIn("HTTP/1.1 200 OK", s_client("-tls1_3", "-groups", "P-521:X25519"))

    def test_signatures_with_sha_1_are_refused(self):
        for name, algorithm in [("localhost", "ECDSA+SHA1"), ("rsa.test", "RSA+SHA1")]:
            output = s_client("-tls1_2", "-cipher", "ALL:@SECLEVEL=0", "-sigalgs", algorithm, name=name)
            self.assert_refused(output, "alert handshake failure")

    def test_alpn_is_http_1_1(self):
        self.assertIn("ALPN protocol: http/1.1", s_client("-alpn", "h2,http/1.1"))
        self.assert_refused(s_client("-alpn", "h2"), "alert no application protocol")
        self.assertIn("No ALPN negotiated", s_client())

    def test_sessions_are_resumed_with_one_ticket_each(self):
        for version in ["-tls1_3", "-tls1_2"]:
            session = FILES / f"session{version}"
            first = s_client(version, "-sess_out", session)
            self.assertIn("New, ", first)
            self.assertEqual(first.count("Post-Handshake New Session Ticket arrived"), 1 if version == "-tls1_3" else 0)
            self.assertIn("Reused, ", s_client(version, "-sess_in", session))

    def test_there_is_no_early_data(self):
        session = FILES / "session-early"
        self.assertIn("Max Early Data: 0", s_client("-tls1_3", "-sess_out", session))

    def test_renegotiation_is_refused(self):
        for options in [["-tls1_2"], ["-tls1_2", "-legacy_renegotiation"]]:
            line = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", *options]
            done = subprocess.run(line, input="R\n", capture_output=True, text=True, timeout=TIMEOUT)
            output = done.stdout + done.stderr
            self.assertIn("RENEGOTIATING", output)
            self.assertIn("no renegotiation", output)
            self.assertIn("Secure Renegotiation IS supported", output)

    def test_a_client_may_update_its_keys(self):
        line = ["openssl", "s_client", "-connect", f"127.0.0.1:{PORT}", "-tls1_3"]
        with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            deadline = threading.Timer(TIMEOUT, child.kill)
            deadline.start()
            output = b""

            def send(line, awaited, count):
                nonlocal output
                child.stdin.write(line)
                child.stdin.flush()
                while output.count(awaited) < count:
                    part = os.read(child.stdout.fileno(), 1 << 16)
                    self.assertTrue(part, output)
                    output += part

            # s_client treats a line that begins with `k` or `K` as a command: `k` updates its own keys, and `K` updates the
            # keys of both sides.
            send(b"", b"Verify return code", 1)
            for round in range(4):
                send(b"k\n", b"KEYUPDATE", 2 * round + 1)
                send(b"K\n", b"KEYUPDATE", 2 * round + 2)
            send(REQUEST.encode(), b"HTTP/1.1 200 OK", 1)
            child.kill()
            deadline.cancel()

    def test_the_server_counts_full_and_resumed_handshakes(self):
        session = FILES / "session-counted"
        counts = [s_client("-sess_out", session), s_client("-sess_in", session)]
        counts = [next(line for line in output.splitlines() if line.startswith("full ")).split() for output in counts]
        (full, resumed), (full_after, resumed_after) = [(int(count[1]), int(count[3])) for count in counts]
        self.assertEqual((full_after, resumed_after), (full, resumed + 1))


class Curl(unittest.TestCase):
    url = f"https://localhost:{PORT}/"

    def test_a_request_with_the_authority(self):
        done = curl("--cacert", FILES / "ca.pem", self.url, self.url)
        self.assertEqual((done.returncode, done.stdout.count("TLS 1.3 ")), (0, 2), done.stderr)
        # curl offers HTTP/2 and HTTP/1.1 by ALPN, and the server selects HTTP/1.1.
        done = curl("--http2", "--cacert", FILES / "ca.pem", "--write-out", "%{http_version}", self.url)
        self.assertTrue(done.stdout.endswith("\n1.1"), done.stdout)

    def test_another_authority_is_not_trusted(self):
        self.assertEqual(curl("--cacert", FILES / "other-ca.pem", self.url).returncode, 60)
        self.assertEqual(curl("--cacert", FILES / "ca.pem", "--tls-max", "1.1", self.url).returncode, 35)

    def test_plain_http_gets_400(self):
        done = curl("--include", f"http://localhost:{PORT}/")
        self.assertTrue(done.stdout.startswith("HTTP/1.1 400 "), done.stdout)
        self.assertIn("this port speaks TLS", done.stdout)


if __name__ == "__main__":
    unittest.main()
