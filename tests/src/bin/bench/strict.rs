//! What the machine can verify: strict verifications by ed25519-dalek, one by one, on all cores.

use std::time::Instant;

use ed25519_dalek::{Signature, VerifyingKey};
use jingwei_proto::dsse::Envelope;
use jingwei_proto::key::PublicKey;

use crate::Failure;

/// What the baseline is.
pub const BASELINE: &str = "Ed25519 strict verifications a second on all cores";

/// Strict verifications a second of these envelopes, each by its key.
pub fn verifications<'a>(
    signed: impl Iterator<Item = (&'a PublicKey, &'a Envelope)>,
) -> Result<f64, Failure> {
    let signed = signed
        .map(|(key, envelope)| {
            let key = VerifyingKey::from_bytes(&key.raw())?;
            let signature = Signature::from_bytes(envelope.signature());
            Ok((key, envelope.pae(), signature))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let held: usize = std::thread::scope(|scope| {
        let shares: Vec<_> = signed
            .chunks(signed.len().div_ceil(cores).max(1))
            .map(|share| {
                let held = share.iter().filter(|(key, message, signature)| {
                    key.verify_strict(message, signature).is_ok()
                });
                scope.spawn(move || held.count())
            })
            .collect();
        let counts = shares.into_iter().map(|share| share.join().unwrap_or(0));
        counts.sum()
    });
    match held == signed.len() {
        true => Ok(held as f64 / began.elapsed().as_secs_f64()),
        false => Err("a signature does not hold".into()),
    }
}
