"""aics-witness as a program of its own: its configuration, key, database and port."""

import contextlib
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

PROGRAM = [sys.executable, "-P", "-m", "aics_witness"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Stranger:
    """A witness that we did not write; `key` verifies its cosignatures."""

    def __init__(self, folder, name):
        self.folder = pathlib.Path(folder).resolve()
        self.folder.mkdir()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        told = self.run("init", "--name", name, "--listen", f"127.0.0.1:{port}")
        self.key = next(word for word in told.split() if word.startswith(name + "+"))
        self.serving = None

    def run(self, command, *arguments):
        return subprocess.run([*PROGRAM, command, "--config", "witness.json", *arguments],
                              cwd=self.folder, check=True, text=True, capture_output=True).stdout

    def watch(self, origin, vkey):
        self.run("add-log", "--origin", origin, "--vkey", vkey)

    def start(self):
        with open(self.folder / "log", "a") as log:
            self.serving = subprocess.Popen([*PROGRAM, "serve", "--config", "witness.json"],
                                            cwd=self.folder, stdout=log, stderr=log)
        until_serving(f"{self.url}/healthz", self.serving, self.folder / "log")

    def stop(self):
        if self.serving:
            self.serving.terminate()
            self.serving.wait(30)
            self.serving = None


def until_serving(url, process, log):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(url, timeout=5).read()
        time.sleep(0.05)
    sys.exit(f"{url} does not serve:\n{log.read_text()}")
