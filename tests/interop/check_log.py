"""tlog-scales and aics-tlog read the running registry over HTTP and verify all of its log."""

import contextlib
import io
import json
import pathlib
import shutil
import sys

from aics_tlog import HttpTileReader, audit_tiles, cli, parse_checkpoint, parse_note
from facts import Checks, Facts, Refused, vkey
from tlog_scales import backend, tiles, tlog
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey


def scales(checks, facts):
    """tlog-scales: checkpoint, root from the tiles, every entry's proof, consistency."""
    reader = TilesReader(backend.make_backend(facts.url))
    head = reader.get_checkpoint()
    for key in (facts.log_vkey, *facts.witness_vkeys):
        checks.accepts(f"the signature by {key}", lambda: head.verify(Vkey.from_string(key)))
    checks.accepts("the root of the tiles", lambda: reader.calculate_root_hash() == head.root_hash)
    for index in range(head.size):
        checks.accepts(f"entry {index}", lambda: included(reader, index, head))
    early = tlog.Checkpoint.from_text(facts.early)
    growth = reader.get_consistency_proof(early.size, head.size)
    checks.accepts("the growth", lambda: growth.check(early.root_hash, head.root_hash))
    for index, text in proofs(facts):
        checks.accepts(f"our proof of {index}", lambda: ours(reader, facts, index, text))

    other = early.root_hash[::-1]
    checks.refuses("another past", lambda: growth.check(other, head.root_hash))
    checks.refuses("another present", lambda: growth.check(early.root_hash, other))
    proof = reader.get_inclusion_proof(7, head.size)
    checks.refuses("another entry", lambda: proof.check(tiles.leaf_hash(b"no"), head.root_hash))
    copies(checks, facts, lambda folder: scales_all(facts, folder))


def included(reader, index, head):
    leaf = tiles.leaf_hash(reader.get_entry(index))
    reader.get_inclusion_proof(index, head.size).check(leaf, head.root_hash)


def ours(reader, facts, index, text):
    """A proof out of evidence is the one that the stock reader makes, and verifies."""
    head, note = text.split("\n\n", 1)
    checkpoint = tlog.Checkpoint.from_text(note)
    checkpoint.verify(Vkey.from_string(facts.log_vkey))
    made = reader.get_inclusion_proof(index, checkpoint.size)
    lines = [tlog.b64enc(node) for node in made.node_hashes]
    made.check(tiles.leaf_hash(reader.get_entry(index)), checkpoint.root_hash)
    return head.split("\n") == ["c2sp.org/tlog-proof@v1", f"index {index}", *lines]


def proofs(facts):
    for name, text in facts.evidence.items():
        if name.endswith(".tlog-proof"):
            yield int(name.split("/")[1].split(".")[0]), text.decode()


def scales_all(facts, folder):
    reader = TilesReader(backend.LocalBackend(folder))
    head = reader.get_checkpoint()
    head.verify(Vkey.from_string(facts.log_vkey))
    if reader.calculate_root_hash() != head.root_hash:
        return False
    for index in range(head.size):
        included(reader, index, head)
    return True


def aics(checks, facts):
    """aics-tlog: its own commands, with the freshness of the cosignature, and an audit."""
    source = ["--tiles", facts.url, "--log-key", facts.log_vkey, "--origin", facts.origin]
    witnesses = [word for key in facts.witness_vkeys for word in ("--witness-key", key)]
    fresh = [*witnesses, "--quorum", str(facts.quorum), "--max-age", "3600"]
    checks.accepts("the checkpoint", lambda: command("verify-checkpoint", *source, *fresh))
    size = parse_checkpoint(parse_note(HttpTileReader([facts.url]).read_checkpoint()).text).size
    for index in {0, 1, 6, 255, 256, size - 1}:
        checks.accepts(f"entry {index}", lambda: command("verify-inclusion", "--index", str(index), *source))
    early = pathlib.Path("early.note")
    early.write_text(facts.early)
    grown = ["verify-consistency", "--old-checkpoint", str(early)]
    checks.accepts("the growth", lambda: command(*grown, *source))
    checks.accepts("every tile and bundle", lambda: audited(facts.url, facts))

    stranger = vkey(facts.origin, 1, facts.document["keys"][0])
    checks.refuses("another log's key", lambda: command(
        "verify-checkpoint", "--tiles", facts.url, "--log-key", stranger))
    if len(facts.witness_vkeys) > 1:
        checks.refuses("fewer cosignatures than the quorum", lambda: command(
            "verify-checkpoint", *source, *witnesses[:-2], "--witness-key", vkey(
                "w.example", 4, facts.document["keys"][0]), "--quorum", str(facts.quorum)))
    checks.refuses("a cosignature by another", lambda: command(
        "verify-checkpoint", *source, "--quorum", "1", "--witness-key",
        vkey(facts.origin, 4, facts.document["keys"][0])))
    then = ["verify-checkpoint", "--note", str(early), "--log-key", facts.log_vkey, *fresh]
    checks.accepts("the checkpoint of then", lambda: command(*then))
    checks.refuses("a stale checkpoint", lambda: command(*then[:-1], "1"))
    size = facts.early.split("\n")[1]
    early.write_text(facts.early.replace(f"\n{size}\n", "\n9\n", 1))
    checks.refuses("an altered past", lambda: command(*grown, *source))
    copies(checks, facts, lambda folder: audited(str(folder), facts))


def command(*arguments):
    """One of its commands, which prints one line of JSON and ends with 0 if all is well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = cli.main(list(arguments))
    told = json.loads(out.getvalue())
    if code == 1 and told["ok"] is False:
        raise Refused(told["error"])
    if code != 0 or told["ok"] is not True:
        sys.exit(f"{' '.join(arguments)} ended with {code}: {told}")


def audited(place, facts):
    """Its checkpoint command with the tiles, then the walk over every tile and entry."""
    command("verify-checkpoint", "--tiles", place, "--log-key", facts.log_vkey)
    reader = HttpTileReader([cli.tile_source_url(place)])
    head = parse_checkpoint(parse_note(reader.read_checkpoint()).text)
    audit_tiles(reader, head.size, head.root)
    return True


def flipped(path, at=None):
    """One bit changed. Entries are all of one length, so that one begins in the middle: some way on
    it is no length that is changed, but an entry."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 40 if at is None else at] ^= 1
    path.write_bytes(data)


def newest(folder, kind):
    return max((folder / "tile" / kind).glob("001.p/*"), key=lambda path: int(path.name))


def resized(folder):
    lines = (folder / "checkpoint").read_text().split("\n")
    lines[1] = str(int(lines[1]) - 1)
    (folder / "checkpoint").write_text("\n".join(lines))


DAMAGES = {
    "a bit of the full tile": lambda folder: flipped(folder / "tile/0/000"),
    "a bit of the partial tile": lambda folder: flipped(newest(folder, "0")),
    "a bit of the full bundle of entries": lambda folder: flipped(folder / "tile/entries/000"),
    "a bit of the partial bundle": lambda folder: flipped(newest(folder, "entries")),
    "a bit of the checkpoint": lambda folder: flipped(folder / "checkpoint", 10),
    "a smaller size": resized,
    "a missing tile": lambda folder: (folder / "tile/0/000").unlink(),
}


def copies(checks, facts, verify):
    """Copies of the log, as any web server would serve it: as it is, and with one thing wrong."""
    folder = pathlib.Path("copy").resolve()
    for name, damage in [("a copy", None), *DAMAGES.items()]:
        shutil.copytree(facts.log / "tile", folder / "tile")
        shutil.copy(facts.log / "checkpoint", folder)
        if damage is None:
            checks.accepts(name, lambda: verify(folder))
        else:
            damage(folder)
            checks.refuses(name, lambda: verify(folder))
        shutil.rmtree(folder)


VERDICTS = {
    "tlog-scales": [
        r"(Inclusion|Consistency)ProofInvalid: ",
        r"InvalidSignature: ",
        r"RuntimeError: could not get tile at L=0, N=0$",
    ],
    "aics-tlog": [
        r"Refused: no tile source served a checkpoint that verifies with the out-of-band key",
        r"Refused: quorum not met: 0 valid fresh cosignatures < \d; stale ",
        r"Refused: old checkpoint: log signature from \S+ failed verification",
        r"(Refused: )?TileVerificationError: ",
        r"TileMissingError: tile/0/000 is not available",
    ],
}


def main():
    facts = Facts(sys.argv[1])
    failed = False
    for name, check in [("tlog-scales", scales), ("aics-tlog", aics)]:
        checks = Checks(name, *VERDICTS[name])
        check(checks, facts)
        try:
            checks.finish()
        except SystemExit:
            failed = True
    sys.exit(failed)


main()
