"""aics-witness is one of the two witnesses that a registry's root document names: the registry
publishes what both have signed, waits while the stranger is away, and goes on when it is back."""

import json
import pathlib
import subprocess
import sys
import time
import urllib.request

from aics_tlog import parse_checkpoint, parse_note, parse_vkey, verify_checkpoint
from facts import Checks, Facts
from stranger import Stranger, free_port, until_serving

NAME = "witness.example/in-a-quorum"
PATIENCE = 300  # seconds that a command may take before it counts as hanging


class Watched:
    """A registry whose log needs two cosignatures: of our witness and of the stranger's."""

    def __init__(self, programs, stranger):
        self.programs, self.running = programs, []
        ours = self.place()
        self.run("jingwei-registry", "witness", "init", "--dir", "w1", "--name", "w1.example")
        key = pathlib.Path("w1/vkey").read_text().strip()
        self.witnesses = [parse_vkey(key), parse_vkey(stranger.key)]
        told = self.run("jingwei-registry", "init", "--dir", "watched", "--name", "watched", "--quorum", "2",
                        "--witness", key, f"http://{ours}", "--witness", stranger.key, stranger.url)
        self.root = next(line.split()[1] for line in told.splitlines() if line.startswith("root "))
        self.address = self.place()
        self.here = ["--dir", "watched", "--registry", self.address]
        policy = self.run("jingwei-registry", "policy", *self.here)
        pathlib.Path("policy").write_text(policy)
        vkey = next(line.split()[1] for line in policy.splitlines() if line.startswith("log "))
        self.log = parse_vkey(vkey)
        stranger.watch(self.log.name, vkey)
        stranger.start()
        self.start("witness", "--dir", "w1", "--listen", ours, "--policy", "policy")
        registry = self.start("serve", "--dir", "watched", "--listen", self.address)
        until_serving(f"http://{self.address}/checkpoint", registry, pathlib.Path("watched.log"))

    @staticmethod
    def place():
        return f"127.0.0.1:{free_port()}"

    def run(self, program, *arguments, code=0):
        ran = subprocess.run([self.programs / program, *arguments], text=True, timeout=PATIENCE,
                             stdin=subprocess.DEVNULL, capture_output=True)
        if ran.returncode != code:
            sys.exit(f"{program} {' '.join(arguments)} ended with {ran.returncode}:\n{ran.stderr}")
        return ran.stdout if code == 0 else ran.stderr

    def start(self, *arguments):
        with open("watched.log", "a") as log:
            process = subprocess.Popen([self.programs / "jingwei-registry", *arguments],
                                       stdout=log, stderr=log)
        self.running.append(process)
        return process

    def stop(self):
        for process in reversed(self.running):
            process.terminate()
            process.wait(60)

    def propose(self, agency):
        """An agency of its own, which has joined and asks to be enrolled."""
        self.run("jingwei", "init", "--dir", agency, "--agency", agency, "--name", agency,
                 "--level", "1", "--territory", f"codes@2025:{agency.upper()}")
        self.run("jingwei", "join", "--dir", agency, f"http://{self.address}", "--root", self.root)
        return f"{agency}/{agency}.enrolment"

    def enrol(self, proposal, code=0):
        return self.run("jingwei-registry", "enrol", *self.here, proposal, "--yes",
                        code=code)

    def checkpoint(self, after=0, wait=0):
        """The newest, as soon as it has more than `after` entries or that many seconds are over."""
        url = f"http://{self.address}/checkpoint?after={after}&wait={wait}"
        return urllib.request.urlopen(url, timeout=PATIENCE).read().decode()

    def size(self):
        return parse_checkpoint(parse_note(self.checkpoint()).text).size

    def until(self, size):
        deadline = time.monotonic() + PATIENCE
        while self.size() < size and time.monotonic() < deadline:
            self.checkpoint(size - 1, 10)
        return self.size() == size

    def verified(self, quorum, witnesses=None, note=None):
        """By the stock verifier: signed by the log and by so many of the witnesses, just now."""
        note = parse_note(note or self.checkpoint())
        return verify_checkpoint(note, self.log, witnesses or self.witnesses, quorum,
                                 max_age_seconds=3600).ok


def main():
    facts = Facts(sys.argv[1])
    checks = Checks("aics-witness in a quorum")
    stranger = Stranger("quorum-witness", NAME)
    watched = None
    try:
        watched = Watched(facts.programs, stranger)
        checks.accepts("the first checkpoint, signed by both", lambda: watched.verified(2))
        for agency in ["aa", "bb"]:
            watched.enrol(watched.propose(agency))
            checks.accepts(f"the enrolment of {agency}", lambda: watched.verified(2))
        checks.accepts("three entries", lambda: watched.size() == 3)
        strangers = [parse_vkey(stranger.key), parse_vkey(facts.witness_vkeys[0])]
        checks.refuses("a witness that has not signed", lambda: watched.verified(2, strangers))

        note = watched.checkpoint()
        line = next(line for line in note.splitlines() if line.startswith(f"— {NAME} "))
        checks.refuses("a checkpoint without its line",
                       lambda: watched.verified(2, note=note.replace(line + "\n", "")))
        other = line[:-9] + ("A" if line[-9] != "A" else "B") + line[-8:]
        checks.refuses("an altered cosignature",
                       lambda: watched.verified(1, note=note.replace(line, other)))

        proposal = watched.propose("cc")
        stranger.stop()
        refusal = watched.enrol(proposal, code=1)
        checks.accepts("that it is named while it is away", lambda: NAME in refusal)
        checks.accepts("that nothing is published without it", lambda: watched.size() == 3)
        stranger.start()
        # What was committed meanwhile is published as soon as both have signed it.
        checks.accepts("that it is caught up with", lambda: watched.until(4) and watched.verified(2))
        watched.enrol(watched.propose("dd"))
        checks.accepts("that the log goes on", lambda: watched.size() == 5 and watched.verified(2))
        seen = json.loads(stranger.run("status", "--json"))
        checks.accepts("that it has seen all", lambda: [log["size"] for log in seen["logs"]] == [5])
    finally:
        if watched:
            watched.stop()
        stranger.stop()
    checks.finish()


main()
