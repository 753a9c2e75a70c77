"""aics-witness runs as a witness of its own, co-signs our checkpoints and refuses forks."""

import base64
import contextlib
import hashlib
import json
import sys
import urllib.error
import urllib.request

from aics_tlog import (
    HttpTileReader, VerifiedTileReader, consistency_proof_from_tiles, parse_checkpoint, parse_note,
    parse_vkey, verify_checkpoint,
)
from aics_witness.feeder import WitnessClient, merge_cosignatures
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from facts import Checks, Facts
from stranger import Stranger

NAME = "witness.example/independent"


@contextlib.contextmanager
def witness(facts):
    stranger = Stranger("witness", NAME)
    stranger.watch(facts.origin, facts.log_vkey)
    stranger.start()
    try:
        yield stranger
    finally:
        stranger.stop()


def forged(facts, size):
    """A checkpoint of a history that never was, signed with the log's real key."""
    secret = load_pem_private_key(facts.log_key.read_bytes(), None)
    root = base64.b64encode(hashlib.sha256(b"another history").digest()).decode()
    text = f"{facts.origin}\n{size}\n{root}\n"
    name, digest, _ = facts.log_vkey.split("+", 2)
    line = base64.b64encode(bytes.fromhex(digest) + secret.sign(text.encode())).decode()
    return f"{text}\n— {name} {line}\n".encode()


def answer(url, old, signed):
    """What it answers to a request as the log's client would never send it (C2SP tlog-witness)."""
    proof = base64.b64encode(b"\0" * 32) + b"\n" if old else b""
    body = f"old {old}\n".encode() + proof + b"\n" + signed
    try:
        with urllib.request.urlopen(f"{url}/add-checkpoint", data=body, timeout=60) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def main():
    facts = Facts(sys.argv[1])
    checks = Checks("aics-witness")
    reader = HttpTileReader([facts.url])
    note = reader.read_checkpoint()
    head = parse_checkpoint(parse_note(note).text)
    tiles = VerifiedTileReader(reader, head.size, head.root)
    log = parse_vkey(facts.log_vkey)

    def proof(old, new):
        return consistency_proof_from_tiles(tiles, old, new)

    with witness(facts) as stranger:
        url, key = stranger.url, stranger.key
        client = WitnessClient(url, key, max_attempts=1)

        def cosigned(signed):
            merged = merge_cosignatures(signed, client.submit(signed, proof))
            merged = merged.decode() if isinstance(merged, bytes) else merged
            return verify_checkpoint(parse_note(merged), log, [parse_vkey(key)], 1).ok

        checks.accepts("an early checkpoint", lambda: cosigned(facts.early.encode()))
        checks.accepts("the checkpoint of now", lambda: cosigned(note))
        checks.accepts("the same again", lambda: cosigned(note))
        grown = f"\n{head.size + 1}\n".encode()
        altered = note.replace(f"\n{head.size}\n".encode(), grown, 1)
        early = facts.early.encode()
        for what, old, signed, status in [
            ("a split view, signed by the log", head.size, forged(facts, head.size), 422),
            ("a rewritten history, signed by the log", head.size, forged(facts, head.size + 1), 422),
            ("an altered checkpoint", head.size, altered, 403),
            ("a log that has shrunk", parse_checkpoint(parse_note(early).text).size, early, 409),
        ]:
            checks.accepts(f"{status} for {what}", lambda: answer(url, old, signed) == status)
            checks.refuses(what, lambda: answer(url, old, signed) == 200)
        kept = json.loads(stranger.run("evidence"))
        checks.accepts("that the forks are kept as evidence", lambda: bool(kept))
    checks.finish()


main()
