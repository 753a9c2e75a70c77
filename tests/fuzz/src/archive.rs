//! Evidence files.

use jingwei_proto::digest::Digest;
use jingwei_proto::evidence::{Writer, read_archive, verify};

/// An archive that is read is, byte for byte, the one that is written from its members; and no
/// file is evidence under a fingerprint that is not its own.
pub fn archive(input: &[u8]) {
    assert!(verify(input, &Digest::of(input)).is_err());
    let Ok(members) = read_archive(input) else {
        return;
    };
    let mut writer = Writer::new(Vec::with_capacity(input.len()));
    let mut at = 0;
    for member in &members {
        // Answers are not kept in memory, so the content comes from where it must stand.
        let size = usize::try_from(member.size).expect("it was in memory");
        let content = &input[at + 512..at + 512 + size];
        assert_eq!(Digest::of(content), member.digest);
        assert!(member.bytes.is_empty() || member.bytes == content);
        let written = writer.member(&member.name, member.size, content);
        written.expect("a member that was read");
        at += 512 + size.next_multiple_of(512);
    }
    assert_eq!(writer.finish().expect("memory is large enough"), input);
}
