//! Proofs of misbehaviour, as the auditor's program judges them.

use std::path::{Path, PathBuf};

use crate::programs::{Ran, run_in};

/// Places in a file at which it is changed, to see that it no longer proves anything.
const CHANGED: usize = 12;

/// Confirms the proof with `jingwei-verify`; it has to say `words`. Changed copies of it, and the
/// proof against another federation's root, have to be refused.
#[track_caller]
pub fn confirm(proof: &Path, root: &str, words: &[&str]) {
    let ran = verify(proof, root).ok().prints(&["MISBEHAVIOUR PROVED"]);
    ran.prints(words);
    refuse(&verify(proof, &"A".repeat(52)));
    let bytes = std::fs::read(proof).expect("a proof");
    // Bytes of content: between them there are zeros, all of which count too.
    let content: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for part in 0..CHANGED {
        let at = content[(content.len() - 1) * part / (CHANGED - 1)];
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let copy = proof.with_extension("changed");
        std::fs::write(&copy, changed).expect("the test's directory can be written");
        refuse(&verify(&copy, root));
        std::fs::remove_file(&copy).expect("it was just written");
    }
}

fn verify(file: &Path, root: &str) -> Ran {
    let file = file.display().to_string();
    run_in(Path::new("."), "jingwei-verify", [&file, "--root", root])
}

#[track_caller]
fn refuse(ran: &Ran) {
    assert_eq!(ran.code, 3, "{ran}");
    assert!(!ran.stdout.contains("MISBEHAVIOUR PROVED"), "{ran}");
}

/// Where a node keeps the proof of its alarm of this name.
pub fn proof_of(node: &Path, name: &str) -> PathBuf {
    node.join("replica/alarms")
        .join(format!("{name}.misbehaviour"))
}
