//! Founding a federation: its root keys, its first root document, and the registry's own keys.

use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::FederationId;
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::note::{Algorithm, NoteKey};
use jingwei_proto::statement::{
    Head, Predicate, RECOVERY_DELAY, RegistryKeys, Root, Statement, Witness,
};
use jingwei_proto::time::Time;

use crate::disk::Disk;
use crate::keyfile::{self, KeyFileError, TlsIdentity};
use crate::registry::{OpenError, Paths, Registry};
use jingwei_proto::words::{counted, root_keys};

/// What a new federation's engineer must know and keep.
#[derive(Debug)]
pub struct Founded {
    /// The federation.
    pub federation: FederationId,
    /// The digest of its first root document; everybody who joins compares its fingerprint.
    pub root: Digest,
    /// The files of the root keys, to be moved off this machine.
    pub root_keys: Vec<PathBuf>,
}

/// Founding failed; nothing that was there before is changed.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// A federation lives there already.
    #[error("{0} holds a registry already; choose another --dir")]
    Exists(PathBuf),
    /// A log stands where it is to be.
    #[error("{} holds a log already; choose another place for this one", .0.display())]
    Log(PathBuf),
    /// The name is not acceptable.
    #[error(
        "‘{0}’ cannot be a federation's name: 1 to 32 of a-z, 0-9 and inner dashes, such as my-land"
    )]
    Name(String),
    /// More keys must sign than there are.
    #[error(
        "{threshold} of {} cannot sign: the threshold lies between 1 and the number of keys, at most 32",
        root_keys(.keys)
    )]
    Threshold {
        /// Root keys.
        keys: u64,
        /// How many must sign.
        threshold: u64,
    },
    /// A key file could not be written.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The log could not be begun.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// More witnesses must sign than there are.
    #[error("{quorum} of {} cannot co-sign", counted(*.witnesses as u64, "witness", "witnesses"))]
    Quorum {
        /// Witnesses.
        witnesses: usize,
        /// How many must sign.
        quorum: u64,
    },
    /// A key that is named as a witness's is none, or is named twice.
    #[error(
        "{0} is not a witness's key of its own: expected NAME+HASH+KEY as ‘jingwei-registry witness init’ prints it, each once"
    )]
    Witness(String),
    /// The configuration could not be written.
    #[error("{path}: {source}")]
    Settings {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// What a new federation is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name.
    pub name: String,
    /// How many root keys to make.
    pub keys: u64,
    /// How many of them must sign.
    pub threshold: u64,
    /// Seconds before a superior's recovery of an agency's key takes effect.
    pub recovery_delay: u64,
    /// The witnesses of its log, and where they are.
    pub witnesses: Vec<(NoteKey, reqwest::Url)>,
    /// How many of them must co-sign.
    pub quorum: u64,
}

impl Plan {
    /// Without witnesses: the registry's own cosigner dates the log.
    pub fn new(name: &str, keys: u64, threshold: u64) -> Plan {
        Plan {
            name: name.to_owned(),
            keys,
            threshold,
            recovery_delay: RECOVERY_DELAY,
            witnesses: Vec::new(),
            quorum: 0,
        }
    }

    fn check(&self) -> Result<(), FoundError> {
        let (keys, threshold) = (self.keys, self.threshold);
        if threshold == 0 || threshold > keys || keys > 32 {
            return Err(FoundError::Threshold { keys, threshold });
        }
        for (i, (key, _)) in self.witnesses.iter().enumerate() {
            let same =
                |other: &NoteKey| other.public() == key.public() || other.name() == key.name();
            let twice = self.witnesses[..i].iter().any(|(other, _)| same(other));
            if key.algorithm() != Algorithm::CosignatureV1 || twice {
                return Err(FoundError::Witness(key.to_string()));
            }
        }
        let (witnesses, quorum) = (self.witnesses.len(), self.quorum);
        if quorum > witnesses as u64 {
            return Err(FoundError::Quorum { witnesses, quorum });
        }
        Ok(())
    }
}

/// The lines of `registry.toml` that say where the witnesses are.
pub fn witness_settings(witnesses: &[(NoteKey, reqwest::Url)]) -> String {
    let lines = witnesses.iter().map(|(key, url)| {
        let address = format!("{} {url}", key.name());
        format!("    {},\n", toml::Value::from(address))
    });
    format!("witnesses = [\n{}]\n", lines.collect::<String>())
}

/// Makes the keys of a federation at `paths`, and begins its log with the root document.
pub fn found(
    paths: impl Into<Paths>,
    plan: &Plan,
    now: Time,
    disk: Disk,
) -> Result<Founded, FoundError> {
    let paths = paths.into();
    let dir = paths.dir();
    if paths.root_keys().exists() {
        return Err(FoundError::Exists(dir.to_owned()));
    }
    if paths.has_log().map_err(OpenError::from)? {
        return Err(FoundError::Log(paths.log()));
    }
    plan.check()?;
    let federation = FederationId::new(&plan.name, rand::random())
        .map_err(|_| FoundError::Name(plan.name.chars().take(64).collect()))?;
    keyfile::create_private_dir(dir)?;
    keyfile::create_private_dir(&paths.keys())?;
    keyfile::create_private_dir(&paths.root_keys())?;
    let root_keys: Vec<(PathBuf, SecretKey)> = (1..=plan.keys)
        .map(|n| {
            let path = paths.root_keys().join(format!("{n}.pem"));
            keyfile::create(&path).map(|key| (path, key))
        })
        .collect::<Result<_, _>>()?;
    let log = keyfile::load_or_create(&paths.log_key())?;
    let cosigner = keyfile::load_or_create(&paths.cosigner_key())?;
    let tls = TlsIdentity::load_or_create(&paths.keys())?;
    let proposal = Statement {
        head: Head {
            federation: federation.clone(),
            agency: None,
            time: now,
            sequence: 1,
            previous: None,
        },
        predicate: Predicate::Root(Root {
            version: 1,
            keys: root_keys
                .iter()
                .map(|(_, key)| key.public().clone())
                .collect(),
            threshold: plan.threshold,
            registry: RegistryKeys {
                origin: federation.registry_origin(1),
                log: log.public().clone(),
                cosigner: cosigner.public().clone(),
                tls: tls.id,
            },
            witnesses: plan
                .witnesses
                .iter()
                .map(|(key, _)| Witness {
                    name: key.name().to_owned(),
                    key: key.public().clone(),
                })
                .collect(),
            quorum: plan.quorum,
            rules: jingwei_proto::state::RULES,
            recovery_delay: plan.recovery_delay,
            continues: None,
            consents: Vec::new(),
        }),
    };
    let signers: Vec<&dyn Signer> = root_keys
        .iter()
        .map(|(_, key)| key as &dyn Signer)
        .collect();
    let envelope = sign_together(&proposal, &signers, plan.threshold);
    let root = envelope.payload_digest();
    if !plan.witnesses.is_empty() {
        write_settings(&paths.settings(), &witness_settings(&plan.witnesses), &disk)?;
    }
    Registry::begin(&paths, envelope, now, disk)?;
    Ok(Founded {
        federation,
        root,
        root_keys: root_keys.into_iter().map(|(path, _)| path).collect(),
    })
}

/// Adds to the configuration where the witnesses are; what stands there already stays.
pub fn write_settings(path: &Path, lines: &str, disk: &Disk) -> Result<(), FoundError> {
    let failed = |source| FoundError::Settings {
        path: path.to_owned(),
        source,
    };
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    // Above everything else, since below a table's head they would belong to that table.
    disk.replace(path, format!("{lines}{before}").as_bytes())
        .map_err(failed)
}

/// A statement that `threshold` of `signers` agree on: the first signs, the others consent.
/// Consents that the statement carries already are kept.
pub fn sign_together(statement: &Statement, signers: &[&dyn Signer], threshold: u64) -> Envelope {
    let proposal = statement.proposal();
    let threshold = usize::try_from(threshold).unwrap_or(usize::MAX);
    let mut consents = statement.consents().to_vec();
    consents.extend(
        signers
            .iter()
            .take(threshold)
            .skip(1)
            .map(|signer| proposal.sign(*signer)),
    );
    statement.with_consents(consents).sign(signers[0])
}
