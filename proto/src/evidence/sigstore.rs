//! Evidence for tools that we did not write: statements of a verified evidence file as Sigstore
//! bundles, with the trusted root and the keys by which a stock verifier checks them.
//!
//! ```text
//! <index>.sigstore.json     a bundle: the envelope, the log entry, its proof of inclusion
//! trusted-root.json         the log's name and key
//! keys/<hint>.pem           the signers' keys; a bundle names its own by its hint
//! ```
//!
//! What such a verifier shows: this key signed this statement, and this log holds it. Whose key
//! it is and whether they might say so follows from the root and the enrolments, which it does
//! not know; nor does it look at cosignatures, or at the key inside a log entry. For those there
//! is [`super::verify`], and nothing is exported that it has not found valid.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::verify::{Logged, Report};
use crate::checkpoint::Checkpoint;
use crate::dsse::PAYLOAD_TYPE;
use crate::key::PublicKey;
use crate::leaf::leaf;

/// The name of the file with the log's key.
pub const TRUSTED_ROOT: &str = "trusted-root.json";

const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const ROOT_TYPE: &str = "application/vnd.dev.sigstore.trustedroot+json;version=0.1";

/// The files of an export by their names: the bundles of the statements at `wanted`, or of all
/// in the file if none is named, and what is needed to verify them.
///
/// # Errors
/// The first index that the evidence holds no statement of.
pub fn export(report: &Report, wanted: &[u64]) -> Result<BTreeMap<String, Vec<u8>>, u64> {
    let missing = |index: &&u64| !report.logged.iter().any(|logged| logged.index == **index);
    if let Some(index) = wanted.iter().find(missing) {
        return Err(*index);
    }
    let mut files = BTreeMap::from([(TRUSTED_ROOT.to_owned(), text(&trusted_root(report)))]);
    for logged in &report.logged {
        if wanted.is_empty() || wanted.contains(&logged.index) {
            let name = format!("{}.sigstore.json", logged.index);
            files.insert(name, text(&bundle(report, logged)));
            let name = format!("keys/{}.pem", logged.signer.id());
            files.insert(name, pem(&logged.signer).into_bytes());
        }
    }
    Ok(files)
}

fn text(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// One statement as a Sigstore bundle v0.3.
fn bundle(report: &Report, logged: &Logged) -> Value {
    let envelope = &logged.envelope;
    let Checkpoint { size, root, .. } = &report.checkpoint;
    let hashes = logged.proof.hashes.iter();
    let hashes: Vec<String> = hashes.map(|hash| base64(hash.as_bytes())).collect();
    json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {
            "publicKey": { "hint": logged.signer.id().to_string() },
            "tlogEntries": [{
                "logIndex": logged.index.to_string(),
                "logId": { "keyId": base64(report.log.id().as_bytes()) },
                "kindVersion": { "kind": "hashedrekord", "version": "0.0.2" },
                "inclusionProof": {
                    "logIndex": logged.index.to_string(),
                    "rootHash": base64(root.as_bytes()),
                    "treeSize": size.to_string(),
                    "hashes": hashes,
                    "checkpoint": { "envelope": logged.proof.checkpoint },
                },
                "canonicalizedBody": base64(&leaf(envelope, &logged.signer)),
            }],
        },
        "dsseEnvelope": {
            "payload": base64(envelope.payload()),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{
                "sig": base64(envelope.signature()),
                "keyid": envelope.key().to_string(),
            }],
        },
    })
}

/// The log's key. A verifier takes a checkpoint's signature for that log's if the signature's
/// name, which is the origin, stands in `baseUrl`; nothing is fetched from there.
fn trusted_root(report: &Report) -> Value {
    json!({
        "mediaType": ROOT_TYPE,
        "tlogs": [{
            "baseUrl": report.log.name(),
            "hashAlgorithm": "SHA2_256",
            "publicKey": {
                "rawBytes": base64(&report.log.public().spki()),
                "keyDetails": "PKIX_ED25519",
                "validFor": { "start": "1970-01-01T00:00:00Z" },
            },
            "logId": { "keyId": base64(report.log.id().as_bytes()) },
        }],
        "certificateAuthorities": [],
        "ctlogs": [],
        "timestampAuthorities": [],
    })
}

/// SubjectPublicKeyInfo in PEM (RFC 7468): its 60 characters of base64 fit on one line.
fn pem(key: &PublicKey) -> String {
    format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        base64(&key.spki())
    )
}
