//! What a next root document changes of the one in force, line by line.

use jingwei_proto::key::PublicKey;
use jingwei_proto::statement::{Root, Witness};

/// What a new log key asks of the witnesses. In the same log the first checkpoint over the new root is
/// signed with the old key too; those that follow, with the new one alone.
const NEW_POLICY: &str = "witnesses   each needs the new policy first thing after this is entered: ‘jingwei-registry policy’ prints it, and ‘jingwei-registry witness --help’ says how a witness reads it; until a quorum has it, nothing more is acknowledged";

/// The differences, below a line that says against which version, and what they ask of the
/// witnesses; or that there are none.
pub fn lines(before: &Root, next: &Root) -> Vec<String> {
    let mut found = members("root key", &before.keys, &next.keys, root_key);
    found.extend(members(
        "witness",
        &before.witnesses,
        &next.witnesses,
        witness,
    ));
    let values = values(before).into_iter().zip(values(next));
    found.extend(
        values
            .filter(|((_, old), (_, new))| old != new)
            .map(|((what, old), (_, new))| format!("changed     {what}: {old} → {new}")),
    );
    let against = format!("version {}, which this one follows", before.version);
    if found.is_empty() && same(before, next) {
        return vec![format!("nothing changes against {against}")];
    }
    if found.is_empty() {
        found.push("changed     the order of what it names, or which log it continues".into());
    }
    found.insert(0, format!("against     {against}:"));
    if next.quorum > 0 && next.registry.log != before.registry.log {
        found.push(NEW_POLICY.into());
    }
    found
}

/// Whether two root documents say the same, but for their version.
fn same(before: &Root, next: &Root) -> bool {
    let mut before = before.clone();
    before.version = next.version;
    before == *next
}

/// What has gone from a list, and what has come.
fn members<T: PartialEq>(
    what: &str,
    before: &[T],
    next: &[T],
    shown: impl Fn(&T) -> String,
) -> Vec<String> {
    let gone = before.iter().filter(|member| !next.contains(member));
    let come = next.iter().filter(|member| !before.contains(member));
    let gone = gone.map(|member| format!("removed     {what} {}", shown(member)));
    let come = come.map(|member| format!("added       {what} {}", shown(member)));
    gone.chain(come).collect()
}

fn root_key(key: &PublicKey) -> String {
    format!("{} {key}", key.id())
}

fn witness(witness: &Witness) -> String {
    format!("{} {}", witness.name, witness.key)
}

/// What a root says once.
fn values(root: &Root) -> [(&'static str, String); 8] {
    let registry = &root.registry;
    [
        (
            "threshold",
            format!("{} of {}", root.threshold, root.keys.len()),
        ),
        ("log", registry.origin.clone()),
        ("log key", registry.log.to_string()),
        ("cosigner", registry.cosigner.to_string()),
        ("TLS key", registry.tls.to_string()),
        ("quorum", root.quorum.to_string()),
        ("rules", root.rules.to_string()),
        (
            "recovery",
            format!("effective after {} s", root.recovery_delay),
        ),
    ]
}

#[cfg(test)]
pub(super) mod tests {
    use jingwei_proto::key::{SecretKey, Signer as _};
    use jingwei_proto::statement::RegistryKeys;

    use super::*;

    fn key(n: u8) -> PublicKey {
        SecretKey::from_seed(&[n; 32]).public().clone()
    }

    /// A first root document.
    pub fn root() -> Root {
        Root {
            version: 1,
            keys: vec![key(1), key(2)],
            threshold: 2,
            registry: RegistryKeys {
                origin: "jingwei/test-0123456789abcdef/registry/1".into(),
                log: key(3),
                cosigner: key(4),
                tls: key(5).id(),
            },
            witnesses: Vec::new(),
            quorum: 0,
            rules: 1,
            recovery_delay: 60,
            continues: None,
            consents: Vec::new(),
        }
    }

    #[test]
    fn each_difference_has_a_line() {
        let (before, mut next) = (root(), root());
        next.version = 2;
        next.keys = vec![key(2), key(6)];
        next.threshold = 1;
        next.registry.log = key(7);
        next.witnesses = vec![Witness {
            name: "w1.example".into(),
            key: key(8),
        }];
        next.quorum = 1;
        next.rules = 2;
        next.recovery_delay = 30;
        let expected = [
            "against     version 1, which this one follows:".to_owned(),
            format!("removed     root key {} {}", key(1).id(), key(1)),
            format!("added       root key {} {}", key(6).id(), key(6)),
            format!("added       witness w1.example {}", key(8)),
            "changed     threshold: 2 of 2 → 1 of 2".to_owned(),
            format!("changed     log key: {} → {}", key(3), key(7)),
            "changed     quorum: 0 → 1".to_owned(),
            "changed     rules: 1 → 2".to_owned(),
            "changed     recovery: effective after 60 s → effective after 30 s".to_owned(),
            NEW_POLICY.to_owned(),
        ];
        assert_eq!(lines(&before, &next), expected);
    }

    #[test]
    fn witnesses_are_named_where_there_are_some_and_the_log_key_is_new() {
        let told = |quorum, log| {
            let (before, mut next) = (root(), root());
            next.quorum = quorum;
            next.registry.log = key(log);
            lines(&before, &next).contains(&NEW_POLICY.to_owned())
        };
        assert!(told(1, 7));
        assert!(!told(0, 7) && !told(1, 3));
    }

    #[test]
    fn it_is_said_where_nothing_changes() {
        let next = Root {
            version: 2,
            ..root()
        };
        let words = "nothing changes against version 1, which this one follows";
        assert_eq!(lines(&root(), &next), [words]);
    }
}
