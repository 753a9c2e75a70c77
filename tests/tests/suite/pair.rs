//! Two nodes of one federation with a few tables, which tests share that only read.

use std::sync::Arc;

use jingwei_tests::node::PLACES;
use jingwei_tests::shared::Shared;
use jingwei_tests::{Federation, Node};

/// `aa` at one node, `bb` at another.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    pub federation: Federation,
}

impl Pair {
    /// A pair of its own, with nothing published.
    pub fn bare() -> Pair {
        let federation = Federation::start();
        let (a, b) = (federation.node("a", &["aa"]), federation.node("b", &["bb"]));
        federation.settle(&[&a, &b]);
        Pair { a, b, federation }
    }

    /// A pair of its own, of which `aa` has published `places` and seen it arrive at both.
    pub fn with_places() -> Pair {
        let pair = Pair::bare();
        pair.a
            .publish_places("aa", "places", "unconditional", PLACES);
        pair.federation.settle(&[&pair.a, &pair.b]);
        pair
    }

    /// The pair that tests share: nobody may stop its processes or publish under these names.
    ///
    /// `aa` has `places` in two versions, `reserved` (conditional) and `secret` (withheld); `bb`
    /// has `open` (public) and `own` (withheld).
    pub fn shared() -> Arc<Pair> {
        static PAIR: Shared<Pair> = Shared::new();
        PAIR.get(|| {
            let pair = Pair::with_places();
            let more = format!("{PLACES}35004,Antrain,\n");
            pair.a
                .publish_places("aa", "places", "unconditional", &more);
            pair.a
                .publish_places("aa", "reserved", "conditional", PLACES);
            pair.a.publish_places("aa", "secret", "withheld", PLACES);
            let few = "code,name,people\n35002,Amanlis,1800\n35009,Baguer,400\n";
            pair.b.publish_places("bb", "open", "public", few);
            pair.b.publish_places("bb", "own", "withheld", few);
            pair.federation.settle(&[&pair.a, &pair.b]);
            pair
        })
    }
}
