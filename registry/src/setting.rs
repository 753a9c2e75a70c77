//! The types that a setting may have, each with its one text form.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A value that a configuration may hold.
pub trait Setting: Sized {
    /// What is expected, for an error message: "a whole number", "text or json".
    const EXPECTED: &'static str;

    /// The value of the text, `None` if it is none.
    fn parse(text: &str) -> Option<Self>;
}

macro_rules! from_str {
    ($($type:ty: $expected:expr,)*) => {
        $(impl Setting for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<$type> {
                text.parse().ok()
            }
        })*
    };
}

from_str! {
    String: "a text",
    bool: "true or false",
    u16: "a whole number from 0 to 65535",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number from 0 to 18446744073709551615",
    usize: "a whole number, not negative",
    HostPort: "HOST:PORT, such as node.example.org:7100",
    SocketAddr: "an address and port like 127.0.0.1:7400 or [::1]:7400",
    jingwei_proto::id::AgencyId: "an agency id like fr.bre.35",
    jingwei_proto::id::FederationId: "a federation id like brittany-0123456789abcdef",
    jingwei_proto::digest::Digest: "64 lower-case hexadecimal digits",
}

impl Setting for PathBuf {
    const EXPECTED: &'static str = "a path";

    fn parse(text: &str) -> Option<PathBuf> {
        (!text.is_empty()).then(|| PathBuf::from(text))
    }
}

impl Setting for Duration {
    const EXPECTED: &'static str = "a duration like 500ms, 10s, 5m, 72h or 7d";

    fn parse(text: &str) -> Option<Duration> {
        let (number, unit) = split(text)?;
        let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
        match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => seconds(1),
            "m" => seconds(60),
            "h" => seconds(3600),
            "d" => seconds(86_400),
            _ => None,
        }
    }
}

/// A number of bytes, such as `64MiB` in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl Setting for ByteSize {
    const EXPECTED: &'static str = "a number of bytes like 4096, 64KiB, 256MiB or 2GiB";

    fn parse(text: &str) -> Option<ByteSize> {
        let (number, unit) = split(text)?;
        let each = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return None,
        };
        number.checked_mul(each).map(ByteSize)
    }
}

/// A host and its port: `node.example.org:7100`, `127.0.0.1:7100` or `[::1]:7100`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    host: String,
    port: u16,
}

impl HostPort {
    /// The host, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        let inner = self
            .host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'));
        inner.unwrap_or(&self.host)
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let form = || match within(text) {
            Some(inner) => format!("‘{text}’ is not HOST:PORT: write {inner}"),
            None => format!("‘{text}’ is not HOST:PORT, such as node.example.org:7100"),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
        let bracketed = host.starts_with('[') && host.ends_with(']');
        let whole = !host.is_empty() && (bracketed || !host.contains([':', '/']));
        match port.parse() {
            Ok(port) if port > 0 && whole => Ok(HostPort {
                host: host.to_owned(),
                port,
            }),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// The host and port in a text that has a scheme before them or a path after them.
fn within(text: &str) -> Option<HostPort> {
    let inner = text.split_once("://").map_or(text, |(_, rest)| rest);
    let (inner, _) = inner.split_once('/').unwrap_or((inner, ""));
    if inner == text {
        return None;
    }
    inner.parse().ok()
}

/// A number and its unit, which a space may separate.
fn split(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(Duration::parse("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(
            Duration::parse("72 h"),
            Some(Duration::from_secs(72 * 3600))
        );
        for bad in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "1 week",
            "99999999999999999999s",
            "9999999999999999999d",
        ] {
            assert_eq!(Duration::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_and_ports() {
        for (text, host) in [
            ("node.example.org:7100", "node.example.org"),
            ("[::1]:7100", "::1"),
            ("127.0.0.1:1", "127.0.0.1"),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((parsed.host(), parsed.to_string().as_str()), (host, text));
        }
        for bad in [
            "",
            "host",
            "host:",
            ":1",
            "host:0",
            "host:70000",
            "::1:7100",
            "http://host:1",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_that_is_more_than_host_and_port_is_corrected() {
        let error = |text: &str| text.parse::<HostPort>().unwrap_err();
        for text in ["https://host:1", "http://host:1/", "host:1/log"] {
            let said = error(text);
            assert_eq!(said, format!("‘{text}’ is not HOST:PORT: write host:1"));
        }
        for text in ["https://host", "://", "/", "host"] {
            let said = error(text);
            assert!(said.ends_with("such as node.example.org:7100"), "{said}");
        }
    }

    #[test]
    fn byte_sizes() {
        assert_eq!(ByteSize::parse("64MiB"), Some(ByteSize(64 << 20)));
        assert_eq!(ByteSize::parse("7"), Some(ByteSize(7)));
        for bad in ["", "MiB", "1 mb", "99999999TiB"] {
            assert_eq!(ByteSize::parse(bad), None, "{bad}");
        }
    }
}
