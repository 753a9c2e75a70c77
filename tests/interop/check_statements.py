"""securesystemslib verifies every envelope in the log, in-toto-attestation reads every statement."""

import copy
import hashlib
import json
import sys

import google.protobuf.json_format as pb_json
import in_toto_attestation.v1.statement_pb2 as statement_pb2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from facts import ED25519_SPKI, Checks, Facts, payload, raw_key
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey


def key(text):
    """A key under the name that envelopes give it: the SHA-256 of its SubjectPublicKeyInfo."""
    raw = raw_key(text)
    name = hashlib.sha256(ED25519_SPKI + raw).hexdigest()
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw), keyid=name)


def keys(facts, envelopes):
    """The root keys, the log's own, which signs snapshots, and every key that an enrolment brings in."""
    known = [key(text) for text in [*facts.document["keys"], facts.document["registry"]["log"]]]
    for envelope in envelopes:
        statement = json.loads(payload(envelope))
        if statement["predicateType"] == "urn:jingwei:agency:v1":
            known.append(key(statement["predicate"]["key"]))
    return known


def signed(envelope, known):
    Envelope.from_dict(copy.deepcopy(envelope)).verify(known, 1)


def read(statement):
    """As in-toto's own library has it: the message, its rules, and nothing lost on the way."""
    message = pb_json.ParseDict(statement, statement_pb2.Statement())
    Statement.copy_from_pb(message).validate()
    return pb_json.MessageToDict(message) == statement


def digest_of_predicate(statement):
    """The digest that the subject carries where it names no files (RFC 8785)."""
    predicate = {k: v for k, v in statement["predicate"].items() if k != "consents"}
    text = json.dumps(predicate, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def main():
    facts = Facts(sys.argv[1])
    bodies = Checks("securesystemslib", r"VerificationError: Accepted signatures do not match threshold")
    forms = Checks("in-toto-attestation", r"ValueError: (Wrong statement type|.* required)")
    envelopes = [*facts.envelopes()]
    messages = [body for name, body in facts.evidence.items()
                if name.startswith("exchanges/") and name.endswith(".json")]
    envelopes += [*messages, facts.evidence["evidence.json"]]
    known = keys(facts, envelopes)
    for n, body in enumerate(envelopes):
        envelope, statement = json.loads(body), json.loads(payload(body))
        what = f"{n}, a {statement['predicateType']}"
        bodies.accepts(what, lambda: signed(envelope, known))
        forms.accepts(what, lambda: read(statement))
        for consent in statement["predicate"].get("consents", []):
            # A consent may be by a key that only this statement brings in.
            bodies.accepts(f"a consent in {what}", lambda: signed(consent, known))
        if "files" not in statement["predicate"] and statement["subject"][0]["name"].count("/") < 9:
            digest = digest_of_predicate(statement)
            forms.accepts(f"the subject of {what}", lambda: statement["subject"][0]["digest"] == {"sha256": digest})
    for body in envelopes[::16]:
        tampered(bodies, forms, body, known)
    bodies.finish()
    forms.finish()


def tampered(bodies, forms, body, known):
    envelope, statement = json.loads(body), json.loads(payload(body))
    other = json.loads(body)
    other["payload"] = other["payload"][:40] + ("A" if other["payload"][40] != "A" else "B") + other["payload"][41:]
    bodies.refuses("another payload", lambda: signed(other, known))
    other = json.loads(body)
    other["payloadType"] = "application/json"
    bodies.refuses("another payload type", lambda: signed(other, known))
    other = json.loads(body)
    other["signatures"][0]["sig"] = "A" * 86 + "=="
    bodies.refuses("another signature", lambda: signed(other, known))
    own = envelope["signatures"][0]["keyid"]
    bodies.refuses("a stranger's", lambda: signed(envelope, [k for k in known if k.keyid != own]))
    for member, value in [("_type", "https://in-toto.io/Statement/v0.1"), ("subject", []),
                          ("subject", [{"name": "x"}]), ("predicateType", ""), ("predicate", {})]:
        forms.refuses(f"another {member}", lambda: read({**statement, member: value}))


main()
