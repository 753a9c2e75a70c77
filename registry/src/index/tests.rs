//! An index of another form, or with a record that cannot be read, is built anew.

use jingwei_proto::time::Time;

use jingwei_proto::key::{SecretKey, Signer as _};
use jingwei_proto::statement::Statement;

use super::*;
use crate::disk::Disk;
use crate::enrolment::{Profile, Proposal, parse_territory, propose};
use crate::found::{Plan, found, sign_together};
use crate::keyfile;
use crate::log::Log;
use crate::registry::Paths;

/// A log of one root document, and where its index is.
fn founded() -> (tempfile::TempDir, LogReader, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (place, now) = (dir.path().join("registry"), Time::from_seconds(1).unwrap());
    let plan = Plan::new("test", 1, 1);
    let founded = found(&place, &plan, now, Disk::new()).unwrap();
    let paths = Paths::new(&place);
    let origin = founded.federation.registry_origin(1);
    let log = Log::open(&paths.log(), Disk::new(), &origin).unwrap();
    (dir, log.reader(), paths.index())
}

/// Changes what is stored behind the index's back.
fn overwrite(path: &Path, key: &[u8], value: &[u8]) {
    let index = Index::open_at(path).unwrap();
    index.db.insert(key, value).unwrap();
    index.db.flush().unwrap();
}

#[test]
fn an_index_of_another_form_is_built_anew() {
    let (_dir, log, path) = founded();
    drop(Index::open(&path, &log).unwrap());
    for stored in [&0u64.to_be_bytes()[..], &99u64.to_be_bytes(), b"?"] {
        overwrite(&path, b"meta/format", stored);
        overwrite(&path, b"state/agency/left", b"of another form");
        let index = Index::open(&path, &log).unwrap();
        assert_eq!(index.rejected().next(), None);
        assert_eq!(index.size().unwrap(), 1);
        assert!(index.get("agency/left").unwrap().is_none());
        assert!(index.root().unwrap().is_some());
    }
    // One of this form is taken as it is.
    overwrite(&path, b"state/agency/left", b"of this form");
    let index = Index::open(&path, &log).unwrap();
    assert!(index.get("agency/left").unwrap().is_some());
}

#[test]
fn a_record_that_cannot_be_read_is_an_error_and_the_next_start_mends_it() {
    let (_dir, log, path) = founded();
    drop(Index::open(&path, &log).unwrap());
    overwrite(&path, b"state/root", b"{}");
    let index = Index::open(&path, &log).unwrap();
    let found = index.root();
    assert!(
        matches!(&found, Err(IndexError::Record { key, .. }) if key == "root"),
        "{found:?}"
    );
    drop(index);
    let index = Index::open(&path, &log).unwrap();
    assert!(index.root().unwrap().is_some());
}

#[test]
fn a_record_that_the_fold_needs_is_mended_at_once() {
    let (_dir, log, path) = founded();
    drop(Index::open(&path, &log).unwrap());
    // The index stands before the entry, and the record below it is broken.
    overwrite(&path, b"meta/size", &0u64.to_be_bytes());
    overwrite(&path, b"state/root", b"{}");
    let index = Index::open(&path, &log).unwrap();
    assert_eq!(index.rejected().next(), None);
    assert!(index.root().unwrap().is_some());
}

#[test]
fn a_rejected_entry_stays_noted_until_it_is_settled() {
    let (dir, log, path) = founded();
    // A second first root: nothing that the rules admit.
    let again = Envelope::parse(&log.envelope(0).unwrap()).unwrap();
    let index = Index::open(&path, &log).unwrap();
    index.fold(1, std::slice::from_ref(&again)).unwrap();
    index.fold(2, &[again]).unwrap();
    index.db.flush().unwrap();
    drop(index);
    // The places are far apart in the order of text, and not in that of the log.
    overwrite(&path, &rejected_key(300), b"a later one");
    let index = Index::open_at(&path).unwrap();
    let places = |index: &Index| {
        index
            .rejected()
            .map(|entry| entry.index)
            .collect::<Vec<_>>()
    };
    assert_eq!(places(&index), [1, 2, 300]);
    assert!(index.rejected().all(|entry| !entry.reason.is_empty()));
    index.settle(1).unwrap();
    index.settle(300).unwrap();
    assert_eq!(places(&index), [2]);
    // What is built anew finds again what the log holds, and nothing else.
    drop(index);
    overwrite(&path, b"meta/format", &0u64.to_be_bytes());
    let index = Index::open(&path, &log).unwrap();
    assert_eq!((places(&index), index.size().unwrap()), (vec![], 1));
    drop(dir);
}

#[test]
fn an_index_that_is_let_go_of_in_a_moment_is_not_built_anew() {
    let (_dir, log, path) = founded();
    let index = Index::open(&path, &log).unwrap();
    index.db.insert(b"state/agency/left", b"here").unwrap();
    index.db.flush().unwrap();
    let (opening, began) = std::sync::mpsc::sync_channel(1);
    let holder = std::thread::spawn(move || {
        began.recv().unwrap();
        std::thread::sleep(RELEASED / 20);
        drop(index);
    });
    opening.send(()).unwrap();
    let again = Index::open(&path, &log).unwrap();
    assert!(again.get("agency/left").unwrap().is_some());
    holder.join().unwrap();
}

/// The enrolment of a national agency, signed by the root keys of the log in `dir`.
fn enrolment(dir: &Path, log: &LogReader, id: &str) -> Envelope {
    let founded = Envelope::parse(&log.envelope(0).unwrap()).unwrap();
    let founded = Statement::parse(founded.payload()).unwrap();
    let (key, noon) = (SecretKey::generate(), Time::from_seconds(9).unwrap());
    let profile = Profile {
        id: id.parse().unwrap(),
        name: id.to_owned(),
        level: 1,
        territory: parse_territory("test@1:A").unwrap(),
        roles: Vec::new(),
    };
    let proposal = propose(&profile, &founded.head.federation, &key, noon);
    let proposal = Proposal::parse(&proposal.to_bytes()).unwrap();
    let root = keyfile::load(&dir.join("registry/root-keys/1.pem")).unwrap();
    sign_together(&proposal.statement(), &[&root], 1)
}

#[test]
fn what_is_being_taken_in_is_there_for_the_next_batch() {
    let (dir, log, path) = founded();
    let index = Index::open(&path, &log).unwrap();
    let mut behind = Behind::start(index.clone()).unwrap();
    let (first, second) = (agency("aa"), agency("bb"));
    let enrolments = ["aa", "bb"].map(|id| enrolment(dir.path(), &log, id));
    let mut batch = behind.batch().unwrap();
    let root = keyfile::load(&dir.path().join("registry/root-keys/1.pem")).unwrap();
    batch.admit(1, &enrolments[0], None).unwrap();
    behind.hand_over(batch, 2).unwrap();
    assert_eq!(behind.size().unwrap(), 2);
    let mut next = behind.batch().unwrap();
    assert!(next.get(&keys::agency(&first)).unwrap().is_some());
    assert_eq!(next.place(&enrolments[0], root.public()).unwrap(), Some(1));
    assert!(
        next.admit(2, &enrolments[0], None).is_err(),
        "enrolled twice"
    );
    next.admit(2, &enrolments[1], None).unwrap();
    behind.hand_over(next, 3).unwrap();
    // The one before has been written when the next is handed over.
    assert!(index.agency(&first).unwrap().is_some());
    behind.settle().unwrap();
    assert!(index.agency(&second).unwrap().is_some());
    assert_eq!(index.size().unwrap(), 3);
    // Nothing is written over a hole.
    let mut late = behind.batch().unwrap();
    late.base -= 1;
    late.admit(3, &enrolment(dir.path(), &log, "dd"), None)
        .unwrap();
    assert!(behind.hand_over(late, 4).is_err());
    // What was handed over is written also when nobody waits for it.
    let mut last = behind.batch().unwrap();
    last.admit(3, &enrolment(dir.path(), &log, "cc"), None)
        .unwrap();
    behind.hand_over(last, 4).unwrap();
    drop(behind);
    assert_eq!(index.size().unwrap(), 4);
}

fn agency(id: &str) -> AgencyId {
    id.parse().unwrap()
}
