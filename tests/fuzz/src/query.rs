//! The border grammar, and the names in it.

use jingwei_proto::border::{Expr, MAX_BYTES, Query};
use jingwei_proto::id::{AgencyId, DatasetId, FederationId, VersionId};
use jingwei_proto::statement::{fingerprint, parse_fingerprint};
use jingwei_proto::time::Time;

/// A query has one spelling and keeps the rules that a query built in code has to keep; what
/// asks for more is not it.
pub fn border(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Query::parse(text) {
        Ok(query) => {
            assert!(text.len() <= MAX_BYTES);
            assert_eq!(query.to_string(), text);
            query.check().expect("what was read may be written");
            assert!(Query::parse(&format!("{text};")).is_err());
            assert!(Query::parse(&format!("{text} UNION ALL {text}")).is_err());
            narrower(query);
        }
        Err(error) => {
            let told = error.to_string();
            assert!(
                told.len() < 512,
                "a stranger's text is not repeated at length"
            );
            assert!(!told.contains(|c: char| c.is_control()), "{told:?}");
        }
    }
}

/// The same query with one condition more is again a query, unless it breaks a limit.
fn narrower(query: Query) {
    let one = Expr::column("a");
    let filter = match query.filter.clone() {
        Some(filter) => Expr::all(vec![filter, one]),
        None => Some(one),
    };
    let narrower = Query { filter, ..query };
    if narrower.check().is_ok() {
        let text = narrower.to_string();
        assert_eq!(Query::parse(&text).as_ref(), Ok(&narrower), "{text}");
    }
}

/// Names and times have one spelling each; a fingerprint is the same however it is grouped.
pub fn id(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(agency) = text.parse::<AgencyId>() {
        assert_eq!(agency.to_string(), text);
        assert!(agency.labels() <= 8 && text.len() <= 128);
        let mut above = agency.superior();
        let mut labels = agency.labels();
        while let Some(id) = above {
            labels -= 1;
            assert_eq!(id.to_string().parse::<AgencyId>().as_ref(), Ok(&id));
            assert_eq!(id.labels(), labels);
            above = id.superior();
        }
        assert_eq!(labels, 1);
    }
    if let Ok(dataset) = text.parse::<DatasetId>() {
        assert_eq!(dataset.to_string(), text);
    }
    if let Ok(version) = text.parse::<VersionId>() {
        assert_eq!(version.to_string(), text);
        assert!((1..=1 << 53).contains(&version.version));
    }
    if let Ok(federation) = text.parse::<FederationId>() {
        assert_eq!(federation.to_string(), text);
    }
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string(), text);
        assert_eq!(Time::from_seconds(time.seconds()), Some(time));
    }
    if let Some(digest) = parse_fingerprint(text) {
        let plain = |text: &str| text.replace(['-', ' '], "").to_ascii_uppercase();
        assert_eq!(plain(&fingerprint(&digest)), plain(text));
    }
}
