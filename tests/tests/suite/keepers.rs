//! What the keepers of root keys do with `jingwei-registry agency` and `root`, and that no command
//! changes anything for good without somebody's word: with real processes.

use std::path::{Path, PathBuf};

use jingwei_proto::key::Signer as _;
use jingwei_proto::statement::RECOVERY_DELAY;
use jingwei_registry::keyfile;
use jingwei_tests::node::PLACES;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::snapshots::set_log_time;
use jingwei_tests::{Federation, Node, Ran, Registry};

use crate::membership::{ASK, BEGIN, Family, path, verify};
use crate::pair::Pair;

const SQL: &str = "SELECT count(*) FROM aa.places";

/// The keepers at the registry's machine.
pub struct Keepers<'a>(pub &'a Registry);

impl Keepers<'_> {
    /// `jingwei-registry` with `arguments`, told where the registry is.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let address = self.0.address.to_string();
        let here = ["--dir", path(&self.0.dir), "--registry", &address];
        self.0.run(&[arguments, &here].concat())
    }

    /// The same, with these root keys and nobody asked.
    pub fn signed(&self, arguments: &[&str], keys: &[u8]) -> Ran {
        let keys: Vec<PathBuf> = keys.iter().map(|n| self.key(*n)).collect();
        let named = keys.iter().flat_map(|key| ["--root-key", path(key)]);
        let all: Vec<&str> = arguments.iter().copied().chain(named).collect();
        self.run(&[&all, &["--yes"][..]].concat())
    }

    /// The file of root key `n`.
    pub fn key(&self, n: u8) -> PathBuf {
        self.0.dir.join(format!("root-keys/{n}.pem"))
    }

    /// One key is one too few, and nothing comes of it; two are enough.
    #[track_caller]
    fn decide(&self, arguments: &[&str]) -> Ran {
        let before = self.size();
        self.signed(arguments, &[2]).expect_code(4);
        assert_eq!(self.size(), before);
        self.signed(arguments, &[1, 3]).ok().prints(&["entered"])
    }

    /// The same by a file that goes from one keeper to the next.
    #[track_caller]
    fn decide_apart(&self, arguments: &[&str]) {
        let file = self.0.dir.join("proposal");
        let before = self.size();
        let out = [arguments, &["--out", path(&file)][..]].concat();
        self.run(&out).ok().prints(&["signatures  0"]);
        let submit = ["root", "submit", path(&file)];
        self.signed(&submit, &[2]).expect_code(4);
        let key = self.key(1);
        let sign = root_sign(&file, &key);
        self.0.run(&sign).ok().prints(&["signatures  1"]);
        assert_eq!(self.size(), before);
        self.signed(&submit, &[2]).ok().prints(&["entered"]);
    }

    fn size(&self) -> u64 {
        LogFiles::read(&self.0.dir.join("log")).size()
    }
}

fn publish(node: &Node, agency: &str, name: &str) -> Ran {
    let (file, schema) = node.places(name, PLACES);
    node.publish(&file, agency, name, &schema, "public")
}

/// The question is not answered, and why.
#[track_caller]
fn unanswered(node: &Node, sql: &str, why: &str) {
    let asked = node.sql(sql, &["--format", "csv"]);
    assert!(asked.code != 0 && asked.stderr.contains(why), "{asked}");
}

/// How a keeper signs a proposal.
pub fn root_sign<'a>(file: &'a Path, key: &'a Path) -> [&'a str; 6] {
    ["root", "sign", path(file), "--root-key", path(key), "--yes"]
}

#[test]
fn keepers_suspend_resume_and_update_a_national_agency() {
    let Pair { a, b, federation } = Pair::with_places();
    let keepers = Keepers(&federation.registry);
    let suspend = ["agency", "suspend", "aa", "--reason", "an audit"];
    keepers
        .decide(&suspend)
        .prints(&["2 of 3 root keys", "reason      an audit", "verifiable"]);
    federation.settle(&[&a, &b]);
    // What is so already is not done again, and needs nobody's word.
    let size = keepers.size();
    let again = ["agency", "suspend", "aa", "--reason", "another one"];
    keepers.run(&again).ok().prints(&[
        "aa is suspended since log entry",
        "‘an audit’: nothing to do",
    ]);
    assert_eq!(keepers.size(), size);
    // Whoever is refused reads why.
    unanswered(&b, SQL, "‘an audit’; it takes no part");
    publish(&a, "aa", "meanwhile")
        .expect_code(4)
        .complains(&["aa is suspended", "an audit"]);
    a.run(&["doctor"]).expect_code(1).prints(&[
        "aa is suspended since log entry",
        "‘an audit’; it takes no part",
    ]);
    keepers.decide_apart(&["agency", "resume", "aa"]);
    federation.settle(&[&a, &b]);
    assert_eq!(b.rows(SQL), ["3"]);
    publish(&a, "aa", "again").ok();
    let update = ["agency", "update", "aa"];
    keepers.signed(&update, &[1, 2]).expect_code(2);
    let named = [&update[..], &["--name", "The Land", "--standards", "true"]].concat();
    keepers.decide(&named).prints(&["The Land"]);
    federation.settle(&[&a, &b]);
    b.run(&["describe", "aa/places"]).ok().prints(&["The Land"]);
    let again = keepers.signed(&named, &[1, 2]).ok();
    again.prints(&["aa is described so already: nothing to do"]);
}

#[test]
fn keepers_recover_the_key_of_a_national_agency() {
    let Pair {
        mut a,
        b,
        federation,
    } = Pair::with_places();
    let keepers = Keepers(&federation.registry);
    set_log_time(&federation.registry, BEGIN);
    a.stop();
    std::fs::remove_file(a.dir.join("agencies/aa/signing.pem")).unwrap();
    let made = a.run(&["recover", "--agency", "aa"]).ok();
    made.prints(&["keepers of the root keys, who run: jingwei-registry agency recover "]);
    let proposal = a.dir.join("aa.recovery");
    keepers
        .decide(&["agency", "recover", path(&proposal)])
        .prints(&["7 days"]);
    let delay = i64::try_from(RECOVERY_DELAY).unwrap();
    for seconds in [BEGIN + 10, BEGIN + 10 + delay] {
        set_log_time(&federation.registry, seconds);
    }
    a.start();
    federation.settle(&[&a, &b]);
    a.until("recovered", |status| status.alarms.is_empty());
    publish(&a, "aa", "recovered").ok();
    assert_eq!(b.rows(SQL), ["3"]);
}

#[test]
fn keepers_end_a_national_agency_and_name_its_successor() {
    let Pair { a, b, federation } = Pair::with_places();
    let keepers = Keepers(&federation.registry);
    let nobody = ["agency", "successor", "aa", "ab"];
    keepers
        .signed(&nobody, &[1, 2])
        .expect_code(2)
        .complains(&["no agency ab", "the nearest agencies: aa, bb"]);
    keepers
        .decide(&["agency", "successor", "aa", "bb"])
        .prints(&["bb is the superior of the agencies below it"]);
    federation.settle(&[&a, &b]);
    unanswered(&b, SQL, "revoked");
    assert_ne!(publish(&a, "aa", "afterwards").code, 0);
    keepers.decide(&["agency", "revoke", "bb"]);
    federation.settle(&[&a, &b]);
    assert_ne!(publish(&b, "bb", "afterwards").code, 0);
    // Above a national agency are the keepers.
    b.run(&["doctor"])
        .expect_code(1)
        .prints(&["that is for good: the keepers of the root keys can say who has its tasks"]);
    let refused = |change: &[&str], says: &[&str]| {
        let change = [&["agency"][..], change].concat();
        let ran = keepers.run(&change).expect_code(4).complains(says);
        assert!(!ran.stderr.contains("--yes"), "{ran}");
    };
    let ended = ["aa was ended for good", "and bb is its successor"];
    for change in [&["resume", "aa"][..], &["successor", "aa", "bb"]] {
        refused(change, &ended);
    }
    refused(
        &["suspend", "bb"],
        &["bb was ended for good", "‘successor’"],
    );
    let heir = ["successor", "bb", "aa"];
    refused(&heir, &["aa is revoked", "cannot be a successor"]);
}

#[test]
fn a_revoked_agency_is_ended_and_what_it_signed_stays_valid() {
    let family = Family::new();
    let saved = family.top.work.join("before.tar");
    family.top.sql(ASK, &["--save", path(&saved)]).ok();
    family
        .top
        .run(&["revoke", "aa.x", "--reason", "merged", "--yes"])
        .ok()
        .prints(&["for ever", "entered"]);
    family.settle();
    assert_ne!(family.publish("afterwards").code, 0);
    unanswered(&family.top, ASK, "‘merged’; it takes no part");
    verify(&family, &saved).ok();
    let resume = family.top.run(&["resume", "aa.x"]).expect_code(4);
    resume.complains(&["aa.x was ended for good", "‘merged’"]);
}

#[test]
fn a_root_key_is_removed_and_the_threshold_changed() {
    let Pair { a, b, federation } = Pair::with_places();
    let keepers = Keepers(&federation.registry);
    let file = keepers.key(3);
    let key = keyfile::load(&file).unwrap().public().clone();
    let (removed, written) = (key.id().to_string(), key.to_string());
    let gone = format!("removed     root key {removed}");
    for named in [path(&file), &written] {
        let propose = ["root", "propose", "--remove", named, "--threshold", "1"];
        unasked(&keepers.run(&propose), &gone);
    }
    let unknown = ["root", "propose", "--remove", "no"];
    keepers.signed(&unknown, &[1, 2]).expect_code(2);
    let propose = [
        "root",
        "propose",
        "--remove",
        &removed[..12],
        "--threshold",
        "1",
    ];
    keepers.signed(&propose, &[3]).expect_code(4);
    let ran = keepers.signed(&propose, &[1, 3]).ok();
    let words = "signed by   2 of the 3 root keys in force, and 1 of the 2 proposed";
    let changed = "changed     threshold: 2 of 3 → 1 of 2";
    ran.prints(&["version 2", words, &gone, changed, "entered"]);
    let shown = keepers.run(&["root", "show"]).ok();
    shown
        .clone()
        .prints(&["version     2", "threshold   1 of 2 root keys"]);
    assert!(!shown.stdout.contains(&removed), "{shown}");
    // From now on one of the two is enough, and the third is none.
    let suspend = ["agency", "suspend", "aa"];
    keepers.signed(&suspend, &[3]).expect_code(4);
    keepers.signed(&suspend, &[2]).ok();
    federation.settle(&[&a, &b]);
    unanswered(&b, SQL, "suspended");
}

/// Where nobody can be asked, nothing is done without `--yes`, and what would be done is said.
#[test]
fn no_command_changes_anything_without_somebody_s_word() {
    let mut family = Family::new();
    let below = family.federation.joined_below("below", "aa.y");
    let beside = family.federation.joined("beside", &["bb"]);
    let (below, beside) = (below.proposal("aa.y"), beside.proposal("bb"));
    family.child.stop();
    family.child.run(&["recover", "--agency", "aa.x"]).ok();
    family.child.start();
    family.settle();
    let keepers = Keepers(&family.federation.registry);
    let before = keepers.size();
    let lost = family.child.dir.join("aa.x.recovery");
    for (node, command, says) in [
        (&family.child, &["rotate"][..], "new key"),
        (&family.top, &["enrol", path(&below)], "superior"),
        (&family.top, &["recover", path(&lost)], "7 days"),
        (&family.top, &["suspend", "aa.x"], "verifiable"),
        (&family.top, &["revoke", "aa.x"], "for ever"),
        (&family.top, &["successor", "aa.x", "aa"], "successor"),
        (&family.top, &["update", "aa.x", "--name", "New"], "New"),
    ] {
        unasked(&node.run(command), says);
    }
    let file = family.child.work.join("next.root");
    let threshold = ["root", "propose", "--threshold", "1"];
    let out = [&threshold[..], &["--out", path(&file)]].concat();
    keepers.run(&out).ok();
    let (key, second) = (keepers.key(1), keepers.key(2));
    let sign = ["root", "sign", path(&file), "--root-key", path(&second)];
    keepers.0.run(&[&sign[..], &["--yes"]].concat()).ok();
    let submit = ["root", "submit", path(&file), "--root-key", path(&key)];
    for (command, says) in [
        (&["enrol", path(&beside)][..], "never given again"),
        (&["agency", "suspend", "aa"], "verifiable"),
        (&["agency", "revoke", "aa"], "for ever"),
        (&["agency", "successor", "aa", "aa.x"], "successor"),
        (&["agency", "update", "aa", "--name", "New"], "New"),
        (&threshold, "threshold   1 of 3"),
        (&submit, "threshold   1 of 3"),
    ] {
        unasked(&keepers.run(command), says);
    }
    let sign = ["root", "sign", path(&file), "--root-key", path(&key)];
    unasked(&keepers.0.run(&sign), "threshold   1 of 3");
    assert_eq!(keepers.size(), before);
    family.top.run(&["recover", path(&lost), "--yes"]).ok();
    family.settle();
    unasked(&family.child.run(&["contest"]), "cancels");
    family.top.run(&["suspend", "aa.x", "--yes"]).ok();
    unasked(&family.top.run(&["resume", "aa.x"]), "takes part again");
    keepers.signed(&["agency", "suspend", "aa"], &[1, 2]).ok();
    unasked(
        &keepers.run(&["agency", "resume", "aa"]),
        "takes part again",
    );
    family.child.stop();
    let heir = family.child.work.join("heir");
    let take_over = |more: &[&str]| {
        let here = ["take-over", "--dir", path(&heir)];
        keepers.0.run(&[&here, more].concat())
    };
    let from = ["--from", path(&family.child.dir)];
    let keys = ["--root-key", path(&key), "--root-key", path(&second)];
    unasked(
        &take_over(&[from, [keys[0], keys[1]], [keys[2], keys[3]]].concat()),
        "continues",
    );
    not_begun(keepers.0, &heir);
}

/// What the rules will refuse is refused before anybody is asked: here nobody could answer.
#[test]
fn what_can_be_checked_is_checked_before_anybody_is_asked() {
    let family = Family::new();
    let (registry, dir) = (&family.federation.registry, &family.child.work);
    let keepers = Keepers(registry);
    let before = keepers.size();
    let new = family.federation.joined("new", &["bb"]).proposal("bb");
    let other = Federation::start();
    let (foreign, strange) = (
        other.registry.dir.join("root-keys/1.pem"),
        other.joined("strange", &["bb"]).proposal("bb"),
    );
    let (one, missing) = (keepers.key(1), dir.join("missing"));
    let file = dir.join("next.root");
    let propose = ["root", "propose", "--threshold", "1"];
    keepers
        .run(&[&propose[..], &["--out", path(&file)]].concat())
        .ok()
        .prints(&["changed     threshold: 2 of 3 → 1 of 3"]);
    let submit = ["root", "submit", path(&file), "--root-key"];
    let suspend = ["agency", "suspend", "aa", "--root-key"];
    for (command, code, says) in [
        (vec!["enrol", path(&missing)], 2, &["missing"][..]),
        (vec!["enrol", path(&strange)], 1, &["federation", "join"]),
        (
            [&["enrol", path(&new), "--root-key"][..], &[path(&one)]].concat(),
            4,
            &["2 of the 3 root keys", "and 1 has", "--root-key", "--out"],
        ),
        ([&suspend[..], &[path(&missing)]].concat(), 2, &["missing"]),
        (
            [&suspend[..], &[path(&foreign)]].concat(),
            4,
            &["no root key"],
        ),
        (
            vec!["agency", "successor", "aa", "nobody"],
            2,
            &["no agency nobody"],
        ),
        (
            [&submit[..], &[path(&one)]].concat(),
            4,
            &[
                "2 of the 3 root keys in force must sign, and 1 has",
                "root sign",
            ],
        ),
        (
            [&submit[..], &[path(&foreign)]].concat(),
            4,
            &["no root key, in force or proposed"],
        ),
    ] {
        let ran = keepers.run(&command).expect_code(code).complains(says);
        assert!(!ran.stderr.contains("--yes"), "{ran}");
    }
    let sign = ["root", "sign", path(&file), "--root-key", path(&foreign)];
    let ran = registry.run(&sign).expect_code(4);
    let ran = ran.complains(&["no root key, in force or proposed"]);
    // Before it has been shown what it would sign.
    assert!(ran.stdout.is_empty(), "{ran}");
    // What is of another federation is not even shown.
    let theirs = dir.join("theirs.root");
    let out = [&propose[..], &["--out", path(&theirs)]].concat();
    Keepers(&other.registry).run(&out).ok();
    let submit = [
        "root",
        "submit",
        path(&theirs),
        "--root-key",
        path(&foreign),
    ];
    let of = format!("is of the federation {},", other.registry.federation);
    let keeps = format!(" keeps {}", registry.federation);
    let ran = keepers
        .run(&submit)
        .expect_code(2)
        .complains(&[&of, &keeps]);
    assert!(ran.stdout.is_empty(), "{ran}");
    for (command, code, says) in [
        (&["successor", "aa.x", "nobody"][..], 2, "nobody"),
        (&["enrol", path(&strange)], 1, "federation"),
    ] {
        let ran = family.top.run(command).expect_code(code);
        assert!(
            !ran.clone().complains(&[says]).stderr.contains("--yes"),
            "{ran}"
        );
    }
    for (ran, agency) in [
        (keepers.run(&["agency", "resume", "aa"]), "aa"),
        (family.top.run(&["resume", "aa.x"]), "aa.x"),
    ] {
        let since = format!("{agency} is active since log entry ");
        ran.ok().prints(&[&since, ": nothing to do"]);
    }
    assert_eq!(keepers.size(), before);
}

#[test]
fn without_the_registry_nothing_is_entered_and_that_is_said() {
    let mut family = Family::new();
    family.federation.registry.stop();
    let suspend = ["suspend", "aa.x", "--yes"];
    let below = family.top.run(&suspend).expect_code(1);
    below.complains(&["nothing was entered", "jingwei-registry status"]);
    let keepers = Keepers(&family.federation.registry);
    let national = keepers.signed(&["agency", "suspend", "aa"], &[1, 2]);
    national.expect_code(1).complains(&[
        "cannot be read",
        "jingwei-registry serve",
        "nothing was entered",
    ]);
    family.federation.registry.start();
    family.top.run(&suspend).ok().prints(&["entered"]);
}

#[test]
fn an_agency_is_enrolled_once_and_told_where_it_stands() {
    let federation = Federation::start();
    let mut node = federation.joined("node", &["aa"]);
    let proposal = node.proposal("aa");
    let other = federation.joined("other", &["aa"]).proposal("aa");
    let keepers = Keepers(&federation.registry);
    let enrol = ["enrol", path(&proposal)];
    let ran = keepers.signed(&enrol, &[1, 2]).ok();
    ran.prints(&[
        "agency      aa",
        "action      enrol, signed by 2 of 3",
        "log entry 1",
    ]);
    // Once more, nobody is asked, and nothing is entered.
    let again = keepers.run(&enrol).ok();
    again.prints(&["aa is enrolled already (entry 1)"]);
    assert_eq!(keepers.size(), 2);
    let refused = keepers.run(&["enrol", path(&other)]).expect_code(1);
    refused.complains(&[
        "enrolled already (entry 1)",
        "another proposal",
        "given once: the keepers of the root keys can update it",
    ]);
    // By a file that goes from one keeper to the next.
    let second = federation.joined("second", &["bb"]).proposal("bb");
    keepers.run(&["enrol", path(&second)]).expect_code(2);
    let file = federation.dir.path().join("bb.proposal");
    let out = ["enrol", path(&second), "--out", path(&file)];
    // The agency's own signature is none of the root keys'.
    keepers.run(&out).ok().prints(&[
        "signatures  0 of 2 that the 3 root keys in force must give: 2 missing",
        &format!("Next: jingwei-registry root sign {} ", path(&file)),
    ]);
    let key = keepers.key(1);
    let sign = root_sign(&file, &key);
    let signed = federation.registry.run(&sign).ok().prints(&[
        "action      enrol, signed by 2 of 3 root keys",
        "never given again",
        "the agency's own key",
        "signatures  1 of 2 that the 3 root keys in force must give: 1 missing",
        &format!("Next: jingwei-registry root submit {} ", path(&file)),
    ]);
    assert!(!signed.stdout.contains('{'), "{signed}");
    // Proposed once more, the signatures in it are not lost; nor is any other file.
    for taken in [&file, &second] {
        let before = std::fs::read(taken).unwrap();
        let out = ["enrol", path(&second), "--out", path(taken)];
        let exists = format!("{} exists already: name another", path(taken));
        keepers.run(&out).expect_code(2).complains(&[&exists]);
        assert_eq!(std::fs::read(taken).unwrap(), before);
    }
    let submit = ["root", "submit", path(&file)];
    keepers.signed(&submit, &[2]).ok().prints(&["log entry 2"]);
    keepers
        .signed(&submit, &[2])
        .ok()
        .prints(&["entered     already, log entry 2"]);
    node.start();
    node.until_announced();
    let below = federation.joined_below("below", "aa.x").proposal("aa.x");
    node.run(&["enrol", path(&below), "--yes"]).ok();
    let again = node.run(&["enrol", path(&below)]).ok();
    again.prints(&["aa.x is enrolled already (entry "]);
}

/// Who signs offline sees what would change as well, and whose file it is not.
#[test]
fn a_keeper_who_is_offline_sees_what_would_change() {
    let mut federation = Federation::start();
    let keepers = Keepers(&federation.registry);
    let new = federation.dir.path().join("new.pem");
    let added = keyfile::create(&new).expect("a root key");
    let file = federation.dir.path().join("next.root");
    let propose = [
        "root",
        "propose",
        "--add",
        path(&new),
        "--recovery-delay",
        "60",
    ];
    let out = [&propose[..], &["--out", path(&file)]].concat();
    let come = format!("added       root key {}", added.public().id());
    let words = [
        "against     version 1, which this one follows:",
        &come,
        "changed     threshold: 2 of 3 → 2 of 4",
        "changed     recovery: effective after 604800 s → effective after 60 s",
    ];
    let proposed = keepers.run(&out).ok().prints(&words);
    assert!(!proposed.stdout.contains("removed "), "{proposed}");
    let early = federation.dir.path().join("early.root");
    std::fs::copy(&file, &early).unwrap();
    let other = federation.dir.path().join("other.root");
    let propose = ["root", "propose", "--threshold", "1", "--out"];
    keepers.run(&[&propose[..], &[path(&other)]].concat()).ok();
    federation.registry.stop();
    let registry = &federation.registry;
    let (one, two) = (Keepers(registry).key(1), Keepers(registry).key(2));
    let sign = ["root", "sign", path(&file), "--yes", "--root-key"];
    for key in [&one, &new] {
        let ran = registry.run(&[&sign[..], &[path(key)]].concat()).ok();
        ran.prints(&words);
    }
    let again = registry.run(&[&sign[..], &[path(&one)]].concat()).ok();
    again.prints(&[
        "has signed it already",
        "signatures  1 of 2 that the 3 root keys in force must give: 1 missing",
        "signatures  2 of 2 that the 4 root keys proposed must give\n",
        &format!("Next: jingwei-registry root submit {} ", path(&file)),
    ]);
    federation.registry.start();
    let keepers = Keepers(&federation.registry);
    let submit = [
        "root",
        "submit",
        path(&file),
        "--yes",
        "--root-key",
        path(&two),
    ];
    keepers.run(&submit).ok().prints(&words);
    // It is in force now: the same again changes nothing, with whichever signatures, and another one
    // that was proposed before is late.
    keepers
        .run(&submit)
        .ok()
        .prints(&["nothing changes against version 2", "entered     already"]);
    let submit = |file: &Path| keepers.signed(&["root", "submit", path(file)], &[3]);
    submit(&early).ok().prints(&["entered     already"]);
    submit(&other)
        .expect_code(1)
        .complains(&["version 2 is in force", "propose it anew"]);
}

/// What was proposed before the agency changed is done already, or has to be proposed anew.
#[test]
fn a_proposal_that_comes_late_is_told_what_became_of_it() {
    let federation = Federation::start();
    let keepers = Keepers(&federation.registry);
    let propose = |arguments: &[&str], name: &str| {
        let file = federation.dir.path().join(name);
        let out = [arguments, &["--out", path(&file)][..]].concat();
        keepers.run(&out).ok();
        let key = keepers.key(1);
        federation.registry.run(&root_sign(&file, &key)).ok();
        file
    };
    let submit = |file: &Path| keepers.signed(&["root", "submit", path(file)], &[2]);
    let node = federation.joined("node", &["aa"]);
    let enrol = propose(&["enrol", path(&node.proposal("aa"))], "enrol");
    let other = federation.joined("other", &["aa"]);
    let another = propose(&["enrol", path(&other.proposal("aa"))], "another");
    submit(&enrol).ok().prints(&["log entry 1"]);
    let suspend = propose(&["agency", "suspend", "aa"], "suspend");
    let rename = propose(&["agency", "update", "aa", "--name", "New"], "rename");
    let audit = ["agency", "suspend", "aa", "--reason", "an audit"];
    keepers
        .signed(&audit, &[1, 3])
        .ok()
        .prints(&["log entry 2"]);
    let size = keepers.size();
    submit(&enrol)
        .ok()
        .prints(&["entered     already, log entry 1"]);
    submit(&suspend)
        .ok()
        .prints(&["aa is suspended since log entry 2: ‘an audit’: nothing to do"]);
    let late = submit(&rename).expect_code(1).complains(&[
        "aa has changed since this was proposed, by log entry 2",
        "propose it anew with ‘jingwei-registry agency update aa ",
    ]);
    assert!(!late.stderr.contains("sequence"), "{late}");
    submit(&another)
        .expect_code(1)
        .complains(&["enrolled already (entry 1)", "by another proposal"]);
    assert_eq!(keepers.size(), size);
}

#[track_caller]
fn unasked(ran: &Ran, says: &str) {
    let ran = ran.clone().expect_code(2).complains(&["--yes"]);
    ran.prints(&[says]);
}

/// A registry that has not been taken over does not serve.
#[track_caller]
fn not_begun(registry: &Registry, dir: &Path) {
    let serve = ["serve", "--dir", path(dir), "--listen", "127.0.0.1:0"];
    let ran = registry.run(&serve);
    assert!(ran.code != 0 && ran.stderr.contains("take-over"), "{ran}");
}
