"""Runs `fdpush serve` as a child process, with requests for its API and websocket-client for clients. Every wait has a deadline."""

import json

import requests
import websocket

from server_process import TIMEOUT, ServerProcess

KEY = "the-key-in-use"
NEXT_KEY = "the-next-key"


class Gateway(ServerProcess):
    """A running server with two API keys, or with none."""

    def __init__(self, *flags, has_keys=True):
        addresses = ["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]
        keys = f"{KEY},{NEXT_KEY}" if has_keys else ""
        super().__init__(*addresses, "--page", "never", "--log", "info", *flags, keys=keys)
        self.address = self.welcome.split()[-1]
        self.api = self.api_line.split()[-1]
        self.session = requests.Session()
        if has_keys:
            self.session.headers["Authorization"] = f"Bearer {KEY}"

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.session.close()
        return super().stop()

    def call(self, method, path, **options):
        """Sends one request on the keep-alive connection."""
        return self.session.request(method, f"http://{self.api}{path}", timeout=TIMEOUT, **options)

    def done(self, path, body):
        """Sends a command that must succeed, and returns its answer."""
        answer = self.call("POST", path, json=body)
        assert answer.status_code == 200, f"{path} {body}: {answer.status_code} {answer.text}"
        return answer.json()

    def get(self, path):
        answer = self.call("GET", path)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    def connect(self, target="/"):
        return Client(f"ws://{self.address}{target}")


class Client:
    """A client after its welcome frame."""

    def __init__(self, url):
        self.socket = websocket.create_connection(url, timeout=TIMEOUT, suppress_origin=True)
        self.welcome = self.frame("welcome")
        self.fd = self.welcome["fd"]

    def next(self):
        """Returns the next message: text as `str`, binary as `bytes`."""
        opcode, payload = self.socket.recv_data()
        return payload.decode() if opcode == websocket.ABNF.OPCODE_TEXT else payload

    def frame(self, kind):
        """Returns the next frame of this type, and skips all others."""
        while True:
            frame = json.loads(self.next())
            if frame["type"] == kind:
                return frame

    def message(self):
        return self.frame("message")

    def ask(self, frame):
        """Sends a frame and returns its answer."""
        self.socket.send(json.dumps({**frame, "id": "mine"}))
        while True:
            answer = json.loads(self.next())
            if answer.get("id") == "mine":
                return answer

    def closed(self):
        """Waits for the close frame and returns its code and reason."""
        while True:
            opcode, payload = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                self.socket.shutdown()
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def close(self):
        self.socket.close(timeout=TIMEOUT)
