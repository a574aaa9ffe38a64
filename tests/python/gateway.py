"""Runs `fdpush serve` as a child process, with requests for its API and websocket-client for clients. Every wait has a deadline."""

import json
import os
import subprocess
import threading

import requests
import websocket

# Timeout of every wait, in seconds.
TIMEOUT = 60
KEY = "the-key-in-use"
NEXT_KEY = "the-next-key"


class Gateway:
    """A running server with two API keys, or with none."""

    def __init__(self, *flags, has_keys=True):
        line = [os.environ["FDPUSH_BIN"], "serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--page", "never"]
        keys = {**os.environ, **({"FDPUSH_API_KEY": f"{KEY},{NEXT_KEY}"} if has_keys else {})}
        self.child = subprocess.Popen(
            [*line, "--log", "info", *flags], env=keys, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        # This timer ends a server that prints no address.
        deadline = threading.Timer(TIMEOUT, self.child.kill)
        deadline.start()
        try:
            self.address = self.child.stdout.readline().split()[-1]
            line = next(line for line in self.child.stderr if "the API is on" in line)
        finally:
            deadline.cancel()
        self.api = line.split()[-1]
        # The log is complete when the server has stopped.
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.child.stderr), daemon=True)
        self.reader.start()
        self.session = requests.Session()
        if has_keys:
            self.session.headers["Authorization"] = f"Bearer {KEY}"

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.session.close()
        self.child.terminate()
        code = self.child.wait(TIMEOUT)
        self.reader.join(TIMEOUT)
        self.child.stdout.close()
        self.child.stderr.close()
        return code

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
