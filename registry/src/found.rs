//! Founding a federation: its root keys, its first root document, and the registry's own keys.

use std::path::{Path, PathBuf};

use jingwei_proto::digest::Digest;
use jingwei_proto::dsse::Envelope;
use jingwei_proto::id::{FederationId, IdError};
use jingwei_proto::key::{SecretKey, Signer};
use jingwei_proto::statement::{Head, Predicate, RegistryKeys, Root, Statement};
use jingwei_proto::time::Time;

use crate::disk::Disk;
use crate::keyfile::{self, KeyFileError, TlsIdentity};
use crate::registry::{OpenError, Paths, Registry};

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
    /// The name is not acceptable.
    #[error(transparent)]
    Name(#[from] IdError),
    /// More keys must sign than there are.
    #[error(
        "{threshold} of {keys} root keys cannot sign: the threshold lies between 1 and the number of keys, at most 32"
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
}

/// Makes the keys of a federation called `name` in `dir`, of whose `keys` root keys `threshold`
/// must sign, and begins its log with the root document. A superior's recovery of an agency's key
/// takes effect after `recovery_delay` seconds.
pub fn found(
    dir: &Path,
    name: &str,
    keys: u64,
    threshold: u64,
    recovery_delay: u64,
    now: Time,
    disk: Disk,
) -> Result<Founded, FoundError> {
    let paths = Paths::new(dir);
    if paths.log().exists() || paths.root_keys().exists() {
        return Err(FoundError::Exists(dir.to_owned()));
    }
    if threshold == 0 || threshold > keys || keys > 32 {
        return Err(FoundError::Threshold { keys, threshold });
    }
    let federation = FederationId::new(name, rand::random())?;
    keyfile::create_private_dir(dir)?;
    keyfile::create_private_dir(&paths.keys())?;
    keyfile::create_private_dir(&paths.root_keys())?;
    let root_keys: Vec<(PathBuf, SecretKey)> = (1..=keys)
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
            threshold,
            registry: RegistryKeys {
                origin: federation.registry_origin(1),
                log: log.public().clone(),
                cosigner: cosigner.public().clone(),
                tls: tls.id,
            },
            witnesses: Vec::new(),
            quorum: 0,
            rules: jingwei_proto::state::RULES,
            recovery_delay,
            continues: None,
            consents: Vec::new(),
        }),
    };
    let signers: Vec<&dyn Signer> = root_keys
        .iter()
        .map(|(_, key)| key as &dyn Signer)
        .collect();
    let envelope = sign_together(&proposal, &signers, threshold);
    let root = envelope.payload_digest();
    Registry::begin(dir, envelope, now, disk)?;
    Ok(Founded {
        federation,
        root,
        root_keys: root_keys.into_iter().map(|(path, _)| path).collect(),
    })
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
