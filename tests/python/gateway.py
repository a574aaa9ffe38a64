"""`fdpush serve` as a child, its API by requests, and clients by websocket-client, with a deadline on everything."""

import json
import os
import subprocess
import threading

import requests
import websocket

# How long anything may take that has to happen, in seconds.
PATIENCE = 60
KEY = "the-key-in-use"
NEXT_KEY = "the-key-that-comes"


class Gateway:
    """A running server with two API keys, or with none."""

    def __init__(self, *flags, has_keys=True):
        line = [os.environ["FDPUSH_BIN"], "serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--page", "never"]
        keys = {**os.environ, **({"FDPUSH_API_KEY": f"{KEY},{NEXT_KEY}"} if has_keys else {})}
        self.child = subprocess.Popen(
            [*line, "--log", "info", *flags], env=keys, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        # A server that says nothing would be waited for without end.
        doom = threading.Timer(PATIENCE, self.child.kill)
        doom.start()
        try:
            self.address = self.child.stdout.readline().split()[-1]
            said = next(line for line in self.child.stderr if "the API is on" in line)
        finally:
            doom.cancel()
        self.api = said.split()[-1]
        # Whole once the server has stopped.
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.child.stderr), daemon=True)
        self.reader.start()
        self.session = requests.Session()
        if has_keys:
            self.session.headers["Authorization"] = f"Bearer {KEY}"

    def stop(self):
        """Tells it to go, and returns its exit code."""
        self.session.close()
        self.child.terminate()
        code = self.child.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.child.stdout.close()
        self.child.stderr.close()
        return code

    def call(self, method, path, **how):
        """One request, on the connection that is kept alive."""
        return self.session.request(method, f"http://{self.api}{path}", timeout=PATIENCE, **how)

    def done(self, path, body):
        """What the API says to a command that it carries out."""
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
    """A client that has had its welcome."""

    def __init__(self, url):
        self.socket = websocket.create_connection(url, timeout=PATIENCE, suppress_origin=True)
        self.welcome = self.frame("welcome")
        self.fd = self.welcome["fd"]

    def next(self):
        """The next message, as it came: text as `str`, binary as `bytes`."""
        opcode, payload = self.socket.recv_data()
        return payload.decode() if opcode == websocket.ABNF.OPCODE_TEXT else payload

    def frame(self, kind):
        """The next frame of this type, whatever comes before."""
        while True:
            frame = json.loads(self.next())
            if frame["type"] == kind:
                return frame

    def message(self):
        return self.frame("message")

    def ask(self, frame):
        """The answer to a frame of ours."""
        self.socket.send(json.dumps({**frame, "id": "mine"}))
        while True:
            answer = json.loads(self.next())
            if answer.get("id") == "mine":
                return answer

    def closed(self):
        """The close frame's code and reason."""
        while True:
            opcode, payload = self.socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                self.socket.shutdown()
                return int.from_bytes(payload[:2], "big"), payload[2:].decode()

    def close(self):
        self.socket.close(timeout=PATIENCE)
