//! The registry's log entry: Rekor's `hashedrekord` 0.0.2, small and canonical, so that stock
//! Sigstore verifiers accept inclusion proofs of it.
//!
//! A stock verifier does not check that the key inside a leaf is the envelope's. Whoever
//! follows the log therefore rebuilds the leaf from the envelope and compares every byte.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::digest::Digest;
use crate::dsse::Envelope;
use crate::key::PublicKey;

/// The log entry of `envelope`, signed by `key`.
pub fn leaf(envelope: &Envelope, key: &PublicKey) -> Vec<u8> {
    // Member names stand in RFC 8785 order and no value needs escaping.
    format!(
        concat!(
            r#"{{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{{"hashedRekordV002":{{"#,
            r#""data":{{"algorithm":"SHA2_256","digest":"{}"}},"#,
            r#""signature":{{"content":"{}","verifier":{{"keyDetails":"PKIX_ED25519","#,
            r#""publicKey":{{"rawBytes":"{}"}}}}}}}}}}}}"#
        ),
        BASE64_STANDARD.encode(Digest::of(&envelope.pae()).as_bytes()),
        BASE64_STANDARD.encode(envelope.signature()),
        BASE64_STANDARD.encode(key.spki()),
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{SecretKey, Signer};

    #[test]
    fn is_canonical_json_of_the_settled_form() {
        let key = SecretKey::from_seed(&[1; 32]);
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let leaf = leaf(&envelope, key.public());
        let value = crate::json::parse(&leaf).unwrap();
        assert_eq!(crate::json::canonical(&value), leaf);
        let record = &value["spec"]["hashedRekordV002"];
        assert_eq!(
            record["signature"]["verifier"]["keyDetails"],
            "PKIX_ED25519"
        );
        assert_eq!(value["apiVersion"], "0.0.2");
    }
}
