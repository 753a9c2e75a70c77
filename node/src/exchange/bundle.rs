//! Several envelopes in one message, and what became of each.
//!
//! ```text
//! bundle   = for each envelope: length as u32, big-endian; its bytes
//! outcome  = empty if it is durable, or else a google.rpc.Status
//! ```
//!
//! The first byte tells a bundle from a single envelope: no envelope is long enough to make it
//! anything but 0, and a single one begins with `{`.

use jingwei_registry::fault::{Blame, Fault};

/// Envelopes in one bundle.
pub const MOST: usize = 128;
/// Bytes of one bundle, which leave room below what a node takes as one message.
pub const MOST_BYTES: usize = 384 * 1024;
/// Bytes that each envelope takes besides its own.
pub const PREFIX: usize = 4;

/// Puts envelopes together; whoever calls this keeps to [`MOST`] and [`MOST_BYTES`].
pub fn pack<'a>(envelopes: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for envelope in envelopes {
        bytes.extend((envelope.len() as u32).to_be_bytes());
        bytes.extend(envelope);
    }
    bytes
}

/// The envelopes in a message, be it one or a bundle of them.
pub fn unpack(bytes: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    let malformed = |reason: String| Fault::new(Blame::Malformed, reason);
    if bytes.first() != Some(&0) {
        return Ok(vec![bytes]);
    }
    if bytes.len() > MOST_BYTES {
        return Err(malformed(format!(
            "{} bytes in one message, at most {MOST_BYTES} are taken",
            bytes.len()
        )));
    }
    let (mut envelopes, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        if envelopes.len() == MOST {
            return Err(malformed(format!(
                "more than {MOST} envelopes in one message"
            )));
        }
        let envelope = rest.split_first_chunk().and_then(|(length, after)| {
            after.split_at_checked(u32::from_be_bytes(*length) as usize)
        });
        let Some((envelope, after)) = envelope else {
            return Err(malformed("a message that ends within an envelope".into()));
        };
        envelopes.push(envelope);
        rest = after;
    }
    Ok(envelopes)
}

/// What became of one envelope, as it travels.
pub fn outcome(result: Result<(), Fault>) -> Vec<u8> {
    result.map_or_else(Fault::to_bytes, |()| Vec::new())
}

/// The same, read. What is not understood is not taken for a success.
pub fn read_outcome(bytes: &[u8]) -> Result<(), Fault> {
    match bytes {
        [] => Ok(()),
        fault => Err(Fault::from_bytes(fault)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked() {
        let envelopes: Vec<Vec<u8>> = (0..MOST).map(|i| vec![b'{'; i * 20]).collect();
        let bytes = pack(envelopes.iter().map(Vec::as_slice));
        assert_eq!(unpack(&bytes).unwrap(), envelopes);
        let single = &envelopes[1][..];
        assert_eq!(unpack(single).unwrap(), [single]);
        let more = [&bytes[..], &[0, 0, 0, 1, b'{']].concat();
        assert!(unpack(&more).is_err(), "one more");
        for end in 1..400 {
            let cut = unpack(&bytes[..end]);
            assert!(cut.is_err() || pack(cut.unwrap().into_iter()) == bytes[..end]);
        }
        let large = pack([&vec![b'{'; MOST_BYTES][..]].into_iter());
        assert!(unpack(&large).is_err(), "too large");
    }

    #[test]
    fn outcomes_come_back() {
        assert!(outcome(Ok(())).is_empty() && read_outcome(b"").is_ok());
        let fault = Fault::new(Blame::NotFound, "no answer waits for it").advise("send it once");
        assert_eq!(read_outcome(&outcome(Err(fault.clone()))), Err(fault));
        let garbage = read_outcome(b"OK").unwrap_err();
        assert_eq!(garbage.blame, Blame::Unverified);
    }
}
