//! Tests of the durable file operations, healthy and with faults.

use super::faults::{FailAt, Failure};
use super::*;

fn disk(n: u64, failure: Failure) -> (Disk, Arc<FailAt>) {
    let faults = Arc::new(FailAt::new(n, failure));
    (Disk::with_faults(faults.clone()), faults)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_first_to_create_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("record");
    let disk = Disk::new();
    assert_eq!(disk.create_if_absent(&path, b"one").unwrap(), Created::New);
    assert_eq!(
        disk.create_if_absent(&path, b"two").unwrap(),
        Created::Existed
    );
    assert_eq!(fs::read(&path).unwrap(), b"one");
    disk.replace(&path, b"three").unwrap();
    disk.replace_unsynced(&dir.path().join("other"), b"four")
        .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"three");
    assert_eq!(names(dir.path()), ["other", "record"]);
}

#[test]
fn a_fault_at_any_step_leaves_the_old_or_the_new_file() {
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let (created, replaced) = (dir.path().join("a"), dir.path().join("b"));
            fs::write(&replaced, "old").unwrap();
            let (disk, faults) = disk(n, failure);
            let first = disk.create_if_absent(&created, b"new");
            let second = disk.replace(&replaced, b"new");
            if !faults.reached(n) {
                break;
            }
            let a = fs::read(&created).ok();
            assert!(a.is_none() || a.as_deref() == Some(b"new"));
            assert!(first.is_err() || a.is_some());
            let b = fs::read(&replaced).unwrap();
            assert!(b == b"new" || (b == b"old" && second.is_err()));
            faults.repair();
            disk.clean(dir.path()).unwrap();
            assert!(
                !names(dir.path())
                    .iter()
                    .any(|name| name.starts_with(TEMPORARY))
            );
        }
    }
}

#[test]
fn a_failed_append_leaves_whole_appends_only() {
    for failure in [Failure::Once, Failure::FromThenOn, Failure::Persisted] {
        for n in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            let (disk, faults) = disk(n, failure);
            let Ok(mut file) = disk.append(&path) else {
                continue;
            };
            let mut durable = Vec::new();
            for i in 0..4u8 {
                let record = [b'0' + i; 10];
                if file.append(&record).and_then(|()| file.sync()).is_ok() {
                    durable.extend(record);
                }
            }
            if !faults.reached(n) {
                break;
            }
            faults.repair();
            file.append(b"last").unwrap();
            file.sync().unwrap();
            durable.extend(b"last");
            assert_eq!(fs::read(&path).unwrap(), durable, "{failure:?} at {n}");
            assert_eq!(file.length(), durable.len() as u64);
        }
    }
}

#[test]
fn a_staged_file_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new();
    let mut staged = disk.stage(dir.path()).unwrap();
    staged.write_all(b"half").unwrap();
    drop(staged);
    assert!(names(dir.path()).is_empty());
    let mut staged = disk.stage(dir.path()).unwrap();
    staged.write_all(b"whole").unwrap();
    assert_eq!(
        staged.finish_as(&dir.path().join("f")).unwrap(),
        Created::New
    );
    assert_eq!(names(dir.path()), ["f"]);
}

#[test]
fn directories_and_modes() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("a/b/c");
    let disk = Disk::new().private();
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).unwrap();
    disk.overwrite(&deep.join("f"), b"longer").unwrap();
    disk.overwrite(&deep.join("f"), b"short").unwrap();
    assert_eq!(fs::read(deep.join("f")).unwrap(), b"short");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&deep), 0o700);
        assert_eq!(mode(&deep.join("f")), 0o600);
    }
}

#[test]
fn a_directory_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let lock = DirLock::acquire(dir.path()).unwrap();
    let refused = DirLock::acquire(dir.path()).unwrap_err().to_string();
    assert!(
        refused.contains(&std::process::id().to_string()),
        "{refused}"
    );
    assert!(
        refused.contains(&dir.path().display().to_string()),
        "{refused}"
    );
    drop(lock);
    DirLock::acquire(dir.path()).unwrap();
}
