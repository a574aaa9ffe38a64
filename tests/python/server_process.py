"""Runs `fdpush serve` as a child process. Every wait has a deadline. Needs only Python's standard library."""

import os
import subprocess
import threading

# Timeout of every wait, in seconds.
TIMEOUT = 60


class ServerProcess:
    """A running server. Its first line of output is `welcome`, and the log line about its API is `api_line`."""

    def __init__(self, *flags, keys):
        """`keys` are the API keys, separated by commas. Without keys, the server has none."""
        environment = {**os.environ, **({"FDPUSH_API_KEY": keys} if keys else {})}
        self.child = subprocess.Popen(
            [os.environ["FDPUSH_BIN"], "serve", *flags],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        # This timer ends a server that does not print its address in time.
        deadline = threading.Timer(TIMEOUT, self.child.kill)
        deadline.start()
        try:
            self.welcome = self.child.stdout.readline()
            self.api_line = next(line for line in self.child.stderr if "the API is on" in line)
        finally:
            deadline.cancel()
        # This thread reads the log. Without it, the pipe of the log would become full, and the server would drop log lines.
        # The log is complete when the server has stopped.
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(self.child.stderr), daemon=True)
        self.reader.start()

    def stop(self):
        """Sends SIGTERM and returns the exit code."""
        self.child.terminate()
        code = self.child.wait(TIMEOUT)
        self.reader.join(TIMEOUT)
        self.child.stdout.close()
        self.child.stderr.close()
        return code
