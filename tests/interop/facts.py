"""What the checks know of the federation: the root that is pinned, and what follows from it.

Nothing of Jingwei is used here: JSON, base64, SHA-256 and a tar archive are enough.
"""

import base64
import hashlib
import json
import pathlib
import re
import sys
import tarfile

ED25519_SPKI = bytes.fromhex("302a300506032b6570032100")


class Facts:
    def __init__(self, path):
        facts = json.loads(pathlib.Path(path).read_text())
        self.url, self.root = facts["url"], facts["root"]
        self.log, self.log_key = pathlib.Path(facts["log"]), pathlib.Path(facts["log_key"])
        self.programs = pathlib.Path(facts["programs"])
        self.early = pathlib.Path(facts["early"]).read_text()
        with tarfile.open(facts["evidence"]) as archive:
            self.evidence = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
        root = payload(self.evidence["statements/0.json"])
        if hashlib.sha256(root).hexdigest() != self.root:
            sys.exit("the first statement is not the root with the fingerprint")
        self.document = json.loads(root)["predicate"]
        self.origin = self.document["registry"]["origin"]
        self.log_vkey = vkey(self.origin, 1, self.document["registry"]["log"])
        # Who dates the checkpoints: the witnesses, or where there are none the registry itself.
        self.witness_vkeys = [vkey(w["name"], 4, w["key"]) for w in self.document.get("witnesses", [])]
        self.quorum = self.document["quorum"]
        if self.quorum == 0:
            self.witness_vkeys, self.quorum = [vkey(self.origin, 4, self.document["registry"]["cosigner"])], 1

    def envelopes(self):
        """Every envelope in the log, as the registry stores them in bundles."""
        folder = self.log / "tile/envelopes"
        size = int((self.log / "checkpoint").read_text().split("\n")[1])
        full, rest = divmod(size, 256)
        names = [f"{n:03}" for n in range(full)] + ([f"{full:03}.p/{rest}"] if rest else [])
        for name in names:
            bundle = (folder / name).read_bytes()
            while bundle:
                length = int.from_bytes(bundle[:4], "big")
                yield bundle[4 : 4 + length]
                bundle = bundle[4 + length :]


def payload(envelope):
    return base64.b64decode(json.loads(envelope)["payload"])


def raw_key(text):
    """The 32 bytes of a key as statements write it, ed25519: and its SubjectPublicKeyInfo."""
    spki = base64.b64decode(text.removeprefix("ed25519:"))
    assert spki.startswith(ED25519_SPKI), text
    return spki[len(ED25519_SPKI) :]


def vkey(name, algorithm, text):
    """The key as a C2SP verifier key, computed by hand."""
    key = bytes([algorithm]) + raw_key(text)
    digest = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8]
    return f"{name}+{digest}+{base64.b64encode(key).decode()}"


class Refused(Exception):
    """A program's own verdict: it has ended with its code for that, and says why."""


class Checks:
    """Counts what was accepted as it must be and refused as it must be, and fails loudly.

    A check refuses by returning False, or by one of `verdicts`: regular expressions that the class
    and the message of what it raises begin with. Whatever else goes wrong is no verdict.
    """

    def __init__(self, name, *verdicts):
        self.name, self.accepted, self.refused, self.wrong = name, 0, 0, []
        self.verdicts = verdicts

    def accepts(self, what, check):
        try:
            if check() is False:
                raise ValueError("it says no")
            self.accepted += 1
        except (Exception, SystemExit) as error:
            self.wrong.append(f"{what} was refused: {type(error).__name__}: {error}")

    def refuses(self, what, check):
        try:
            if check() is not False:
                self.wrong.append(f"{what} was accepted")
                return
        except (Exception, SystemExit) as error:
            text = f"{type(error).__name__}: {error}"
            if not any(re.match(verdict, text) for verdict in self.verdicts):
                self.wrong.append(f"{what} was not judged: {text}")
                return
        self.refused += 1

    def finish(self):
        print(f"  {self.name}: accepted {self.accepted}, refused {self.refused} tampered with")
        for wrong in self.wrong:
            print(f"  {self.name}: WRONG: {wrong}")
        if self.wrong or not self.accepted or not self.refused:
            sys.exit(1)
