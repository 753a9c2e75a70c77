//! Askers that do not keep to the rules, with real keys: they send a request twice or over
//! another's connection, never acknowledge, break off, ask too fast, or ask for what is withheld.

use jingwei_proto::dsse::Envelope;
use jingwei_proto::statement::{Predicate, Statement};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_tests::bare_asker::{BareAsker, Wire};
use jingwei_tests::node::PLACES;
use jingwei_tests::programs::eventually;
use jingwei_tests::reading::LogFiles;
use jingwei_tests::{Federation, Node, journal};

const QUERY: &str = r#"SELECT "code", "name" FROM "aa"."places@1""#;

/// `aa` provides, under limits; `bb` asks with its keys in the test's hands.
struct Stage {
    a: Node,
    b: Node,
    asker: BareAsker,
    wire: Wire,
    federation: Federation,
}

impl Stage {
    fn new(limits: &[(&str, &str)]) -> Stage {
        let federation = Federation::start();
        let mut a = federation.joined("a", &["aa"]);
        for (name, value) in limits {
            let variable = format!("JINGWEI_NODE_EXCHANGE_{name}");
            a.settings.push((variable, (*value).to_owned()));
        }
        federation.registry.enrol(&a.proposal("aa")).ok();
        a.start();
        a.until_announced();
        let b = federation.node("b", &["bb"]);
        a.publish_places("aa", "places", "unconditional", PLACES);
        federation.settle(&[&a, &b]);
        Stage {
            asker: BareAsker::new(&b.dir, "bb", &a.dir, "aa"),
            wire: Wire::new(&b.dir, &a.dir, a.listen),
            a,
            b,
            federation,
        }
    }

    /// Asks and reads the whole answer; returns the acknowledgement, which is not sent.
    fn answered(&self) -> Envelope {
        self.try_answered()
            .unwrap_or_else(|fault| panic!("{fault}"))
    }

    fn try_answered(&self) -> Result<Envelope, Fault> {
        let request = self.asker.request(QUERY);
        let frames = self.wire.ask(&request.bytes)?;
        let receipt = self.asker.receipt(&request, &frames);
        assert_eq!(receipt.body.answer.rows, 3);
        Ok(self.asker.acknowledgement(&receipt))
    }

    #[track_caller]
    fn refused(&self, words: &str) {
        let fault = self.try_answered().expect_err("it was answered");
        assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
        assert!(fault.message.contains(words), "{fault}");
        assert!(fault.retry_after.is_some(), "{fault}");
    }

    /// The exchanges in the journal of `aa` that have this message.
    fn count(&self, kind: usize) -> usize {
        let exchanges = journal::exchanges(&self.a.dir, "aa");
        exchanges
            .values()
            .filter(|(_, counts)| counts[kind - 1] > 0)
            .count()
    }
}

#[test]
fn a_request_is_answered_once_and_over_its_own_connection() {
    let stage = Stage::new(&[]);
    let request = stage.asker.request(QUERY);
    assert!(stage.wire.ask(&request.bytes).unwrap().len() >= 3);
    let replay = stage.wire.ask(&request.bytes).expect_err("a replay");
    assert_eq!(replay.blame, Blame::Inconsistent, "{replay}");
    assert!(replay.message.contains("used before"), "{replay}");

    // Another member, which got hold of a request that was not answered yet.
    let c = stage.federation.node("c", &["cc"]);
    stage.federation.settle(&[&stage.a]);
    let others = Wire::new(&c.dir, &stage.a.dir, stage.a.listen);
    let request = stage.asker.request(QUERY);
    let fault = others.ask(&request.bytes).expect_err("a stolen request");
    assert_eq!(fault.blame, Blame::Unauthorised, "{fault}");
    assert!(fault.message.contains("connection"), "{fault}");
    // Nor does it take an acknowledgement away from whom it belongs to.
    let frames = stage.wire.ask(&request.bytes).unwrap();
    let receipt = stage.asker.receipt(&request, &frames);
    let acknowledgement = stage.asker.acknowledgement(&receipt);
    let fault = others.acknowledge(&acknowledgement).expect_err("another's");
    assert_eq!(fault.blame, Blame::Unauthorised, "{fault}");
    stage.wire.acknowledge(&acknowledgement).unwrap();

    let exchanges = journal::exchanges(&stage.a.dir, "aa");
    assert_eq!(exchanges.len(), 2);
    for (_, counts) in exchanges.values() {
        assert!(counts[..3] == [1, 1, 1], "{counts:?}");
    }
    assert_eq!(stage.count(4), 1);
}

#[test]
fn whoever_does_not_acknowledge_is_answered_no_more() {
    let mut stage = Stage::new(&[("UNACKNOWLEDGED", "3")]);
    let first = stage.answered();
    let second = stage.answered();
    // Whether it is broken off before or after its last row: the rows were sent.
    let request = stage.asker.request(QUERY);
    assert_eq!(stage.wire.ask_for(&request.bytes, 2).unwrap().len(), 2);
    eventually("the third answer is over", || stage.count(3) == 3);
    stage.refused("3 answers to bb are not acknowledged");

    // A restart between receipt and acknowledgement changes nothing.
    stage.a.kill9();
    stage.a.start();
    stage.wire = Wire::new(&stage.b.dir, &stage.a.dir, stage.a.listen);
    stage.refused("3 answers to bb are not acknowledged");
    stage.wire.acknowledge(&first).unwrap();
    let third = stage.answered();
    stage.refused("not acknowledged");

    // Several at once, one of which has come before, and one twice.
    let outcomes = stage
        .wire
        .acknowledge_all(&[&first, &second, &third, &third])
        .unwrap();
    let blames: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().err().map(|fault| fault.blame))
        .collect();
    let gone = Some(Blame::NotFound);
    assert_eq!(blames, [gone, None, None, gone]);
    assert_eq!(stage.count(4), 3);
    stage.answered();
    let garbage = stage.wire.act(vec![0, 0, 0, 9, b'{']).expect_err("garbage");
    assert_eq!(garbage.blame, Blame::Malformed, "{garbage}");
    for (_, counts) in journal::exchanges(&stage.a.dir, "aa").values() {
        assert!(counts.iter().all(|count| *count <= 1), "{counts:?}");
    }
}

#[test]
fn whoever_asks_too_fast_is_told_to_wait() {
    let stage = Stage::new(&[("RATE", "1")]);
    let asked: Vec<_> = std::thread::scope(|scope| {
        let asking: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| stage.try_answered()))
            .collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let refused: Vec<&Fault> = asked.iter().filter_map(|one| one.as_ref().err()).collect();
    assert!(!refused.is_empty() && refused.len() < asked.len());
    for fault in refused {
        assert_eq!(fault.blame, Blame::Overloaded, "{fault}");
        assert!(
            fault.message.contains("more than 1 times a second"),
            "{fault}"
        );
        assert!(fault.retry_after.is_some());
    }
    // Patience helps.
    eventually("it is answered again", || stage.try_answered().is_ok());
}

/// Neither by the name that its agency knows nor by the one that stands in the log.
#[test]
fn what_is_withheld_is_not_there_for_others() {
    let stage = Stage::new(&[]);
    stage.a.publish_places("aa", "secret", "withheld", PLACES);
    let refusal = |name: &str| {
        let request = stage
            .asker
            .request(&format!(r#"SELECT "code" FROM "aa"."{name}@1""#));
        let fault = stage.wire.ask(&request.bytes).expect_err("an answer");
        (fault.blame, fault.to_string().replace(name, "NAME"))
    };
    let (blame, text) = refusal("invented");
    assert_eq!(blame, Blame::NotFound, "{text}");
    assert_eq!(refusal("secret"), (blame, text));
    // That something is withheld under this name is public; what it is called is not.
    let entered = entered_as(&stage.federation);
    let (blame, text) = refusal(&entered);
    assert_eq!(blame, Blame::Refused, "{text}");
    assert!(!text.contains("secret"), "{text}");
    assert!(journal::exchanges(&stage.a.dir, "aa").is_empty());
    // The provider answers all the same.
    stage.answered();
    assert_eq!(stage.count(2), 1);
}

/// The name of the newest dataset in the registry's log.
fn entered_as(federation: &Federation) -> String {
    let log = LogFiles::read(&federation.registry.dir.join("log"));
    let mut datasets = log.envelopes.iter().filter_map(|bytes| {
        let envelope = Envelope::parse(bytes).unwrap();
        match Statement::parse(envelope.payload()).unwrap().predicate {
            Predicate::Dataset(dataset) => Some(dataset.name.to_string()),
            _ => None,
        }
    });
    let name = datasets.next_back().expect("a dataset");
    assert!(name.starts_with("w_"), "{name}");
    name
}
