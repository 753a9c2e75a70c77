//! Which bucket holds a log, and where its store is.

use std::str::FromStr;

use object_store::aws::AmazonS3Builder;

use crate::setting::Setting;
use crate::settings::Settings;

/// The name of a bucket and what stands before all names in it: `s3://BUCKET` or
/// `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageUrl {
    pub(super) bucket: String,
    pub(super) prefix: String,
}

impl FromStr for StorageUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<StorageUrl, ()> {
        let rest = text.strip_prefix("s3://").ok_or(())?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let good = !bucket.is_empty()
            && bucket.chars().all(plain)
            && (prefix.is_empty() || prefix.split('/').all(|part| !part.is_empty()))
            && prefix.chars().all(|c| plain(c) || c == '/');
        good.then(|| StorageUrl {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
        .ok_or(())
    }
}

impl std::fmt::Display for StorageUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.prefix)
    }
}

impl Setting for StorageUrl {
    const EXPECTED: &'static str = "the URL of a bucket like s3://bucket/prefix";

    fn parse(text: &str) -> Option<StorageUrl> {
        text.parse().ok()
    }
}

/// A bucket as the configuration names it. What is not said here comes from the environment, as
/// every S3 client reads it: `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, and likewise
/// `AWS_REGION` and `AWS_ENDPOINT_URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Which one.
    pub url: StorageUrl,
    /// Where its store is, if that is not AWS.
    pub endpoint: Option<String>,
    /// In which region.
    pub region: Option<String>,
}

impl Bucket {
    /// Reads the setting `storage` and the table `s3`; `None` for a log in a directory.
    pub fn read(settings: &mut Settings) -> Option<Bucket> {
        let url = settings.optional("storage");
        let (endpoint, region) = (
            settings.optional::<String>("s3.endpoint"),
            settings.optional("s3.region"),
        );
        let web = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if endpoint.as_ref().is_some_and(|endpoint| !web(endpoint)) {
            settings.refuse("s3.endpoint", "a URL that begins with https:// or http://");
        }
        Some(Bucket {
            url: url?,
            endpoint,
            region,
        })
    }

    /// How to reach it.
    pub fn builder(&self) -> AmazonS3Builder {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.url.bucket);
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            // Whoever writes http:// means it; requests are signed, and what a log holds is public.
            let plain = endpoint.starts_with("http://");
            builder = builder.with_endpoint(endpoint).with_allow_http(plain);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let read = |text: &str| {
            let none = std::iter::empty::<(String, String)>();
            let mut settings = Settings::parse("registry.toml", text, "JINGWEI_REGISTRY_", none);
            let bucket = Bucket::read(&mut settings);
            settings.finish().map(|()| bucket)
        };
        assert_eq!(read(""), Ok(None));
        let text = "storage = \"s3://b/p\"\n[s3]\nendpoint = \"http://[::1]:9000\"";
        let bucket = read(text).unwrap().unwrap();
        assert_eq!(bucket.url.to_string(), "s3://b/p");
        assert_eq!(bucket.endpoint.as_deref(), Some("http://[::1]:9000"));
        for bad in [
            "storage = \"/srv/log\"",
            "[s3]\nendpoint = \"localhost:9000\"",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn urls() {
        for good in ["s3://bucket", "s3://bucket/prefix", "s3://b.u-c/a/b_c"] {
            assert_eq!(good.parse::<StorageUrl>().unwrap().to_string(), good);
        }
        assert_eq!(
            "s3://b/p/".parse::<StorageUrl>().unwrap().to_string(),
            "s3://b/p"
        );
        for bad in [
            "",
            "bucket",
            "s3://",
            "s3:///p",
            "s3://b/a//c",
            "s3://b/a b",
            "file:///x",
            "s3://b?x",
        ] {
            assert!(bad.parse::<StorageUrl>().is_err(), "{bad}");
        }
    }
}
