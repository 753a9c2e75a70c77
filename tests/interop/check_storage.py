"""moto keeps a registry's log: an object store that we did not write, seen through boto3."""

import base64
import contextlib
import hashlib
import logging
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

import boto3
from facts import Checks, Facts, Refused
from moto.server import ThreadedMotoServer
from stranger import free_port, until_serving

BUCKET, PREFIX = "federation", "the/log/"
PATIENCE = 300  # seconds that a command may take before it counts as hanging
FAILED = 1  # the exit code of a command that could not do what it was told
ROOTS = 6  # entries: the root and its changes, each of which the registry's own keepers sign
VERDICTS = [
    r"Refused: error: s3://\S+: .*<Code>NoSuchBucket</Code>",
    r"Refused: error: s3://\S+ holds a log already; ",
    r"Refused: error: s3://\S+ is damaged: ",
]


class Stored:
    """A registry whose log is in moto's bucket."""

    def __init__(self, programs, endpoint):
        self.program = programs / "jingwei-registry"
        credentials = {"AWS_ACCESS_KEY_ID": "a-registry", "AWS_SECRET_ACCESS_KEY": "no secret here"}
        self.environment = {**os.environ, **credentials, "JINGWEI_REGISTRY_S3_ENDPOINT": endpoint,
                            "JINGWEI_REGISTRY_STORAGE": f"s3://{BUCKET}/{PREFIX.rstrip('/')}"}
        self.objects = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1",
                                    aws_access_key_id="a-reader", aws_secret_access_key="another")
        self.address, self.serving = f"127.0.0.1:{free_port()}", None
        self.here = ["--dir", "stored"]

    def run(self, *arguments):
        """Runs a command to its end. One that fails by its own word is a refusal."""
        ran = subprocess.run([self.program, *arguments], env=self.environment, text=True,
                             stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
        if ran.returncode == FAILED:
            raise Refused(ran.stderr.strip())
        if ran.returncode:
            sys.exit(f"{' '.join(arguments)} ended with {ran.returncode}:\n{ran.stderr}")

    def serve(self, log):
        arguments = [self.program, "serve", *self.here, "--listen", self.address]
        return subprocess.Popen(arguments, env=self.environment, stdout=log, stderr=log)

    def start(self):
        with open("stored.log", "a") as log:
            self.serving = self.serve(log)
        until_serving(f"http://{self.address}/checkpoint", self.serving, pathlib.Path("stored.log"))

    def kill(self):
        if self.serving:
            self.serving.kill()
            self.serving.wait(60)
            self.serving = None

    def grow(self, entries):
        for number in range(entries):
            self.run("root", "propose", *self.here, "--registry", self.address,
                     "--recovery-delay", str(86_400 + number), "--yes")

    def served(self, name):
        return urllib.request.urlopen(f"http://{self.address}/{name}", timeout=PATIENCE).read()

    def stored(self, name):
        return self.objects.get_object(Bucket=BUCKET, Key=PREFIX + name)["Body"].read()

    def names(self):
        listed = self.objects.list_objects_v2(Bucket=BUCKET, Prefix=PREFIX)
        return {found["Key"].removeprefix(PREFIX) for found in listed.get("Contents", [])}

    def store(self, name, content):
        self.objects.put_object(Bucket=BUCKET, Key=PREFIX + name, Body=content)


def root_of(hashes):
    """RFC 6962 §2.1, from its text."""
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    both = root_of(hashes[:half]) + root_of(hashes[half:])
    return hashlib.sha256(b"\x01" + both).digest()


def is_whole(registry, size):
    """The objects alone make a log of this size, and are what the registry serves."""
    note = registry.stored("checkpoint")
    lines = note.decode().split("\n")
    bundle, hashes = registry.stored(f"tile/entries/000.p/{size}"), []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        hashes.append(hashlib.sha256(b"\x00" + bundle[2 : 2 + length]).digest())
        bundle = bundle[2 + length :]
    tile = registry.stored(f"tile/0/000.p/{size}")
    served = all(registry.served(name) == registry.stored(name) for name in registry.names()
                 if name.startswith("tile/") or name == "checkpoint")
    return (served and int(lines[1]) == size == len(hashes) and b"".join(hashes) == tile
            and base64.b64decode(lines[2]) == root_of(hashes))


def starts(registry):
    """Starts it where it must refuse to: until it has ended, or serves after all."""
    said = pathlib.Path("refused.log")
    with open(said, "w") as log:
        process = registry.serve(log)
    deadline = time.monotonic() + PATIENCE
    try:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                return bool(registry.served("checkpoint"))
            time.sleep(0.05)
        if process.poll() == FAILED:
            raise Refused(said.read_text().strip())
        sys.exit(f"it has neither started nor refused to:\n{said.read_text()}")
    finally:
        process.kill()
        process.wait(60)


def main():
    facts, checks = Facts(sys.argv[1]), Checks("moto", *VERDICTS)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    registry = Stored(facts.programs, "http://{}:{}".format(*server.get_host_and_port()))
    try:
        begin = ["init", *registry.here, "--name", "stored"]
        checks.refuses("a bucket that is not there", lambda: registry.run(*begin))
        registry.objects.create_bucket(Bucket=BUCKET)
        registry.run(*begin)
        registry.start()
        registry.grow(ROOTS - 1)
        checks.accepts("the log", lambda: is_whole(registry, ROOTS))
        registry.kill()
        registry.start()
        registry.grow(1)
        checks.accepts("the log after a kill", lambda: is_whole(registry, ROOTS + 1))
        second = ["init", "--dir", "other", "--name", "other"]
        checks.refuses("a second log in the same place", lambda: registry.run(*second))
        registry.kill()
        for name in [f"tile/entries/000.p/{ROOTS + 1}", f"tile/envelopes/000.p/{ROOTS + 1}",
                     f"tile/0/000.p/{ROOTS + 1}", f"commit/{ROOTS + 1:012}"]:
            sound = registry.stored(name)
            registry.store(name, sound[:40] + bytes([sound[40] ^ 1]) + sound[41:])
            checks.refuses(f"a flipped bit in {name}", lambda: starts(registry))
            registry.store(name, sound)
        registry.start()
        checks.accepts("the log as it was", lambda: is_whole(registry, ROOTS + 1))
    finally:
        registry.kill()
        server.stop()
    checks.finish()


main()
