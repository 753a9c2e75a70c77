//! Within what an agency and those above it may act, when that becomes less; and who speaks for it.

use super::lifecycle::{deed, update};
use super::*;

/// Nothing is taken from those below by what happens to their superior; but what is entered from
/// then on is judged by what the superior has then.
#[test]
fn who_is_below_keeps_what_it_has_when_its_superior_is_narrowed() {
    let mut world = World::with_normandy();
    world.admit(&dataset("fr.bre.35", None).sign(&key(12)));
    world.does(&deed(update(2, &["22", "FR"]), "fr.bre", &[10]));
    let chain = world.chain("dataset/fr.bre.35/communes");
    world.admit(&dataset("fr.bre.35", chain).sign(&key(12)));
    world.admit(&node("fr.bre.35", None, &[50]).sign(&key(12)));
    // The territory that it has is no longer within the superior's: also by name only nothing is
    // updated that lies outside.
    let outside = world.envelope(&deed(update(3, &["35", "53"]), "fr.bre.35", &[11]));
    assert_eq!(world.blame(&outside), Blame::Unauthorised);
    let sibling = enrolment("fr.bre.29", 3, &["29", "53"], 20);
    let sibling = signed(&sibling, &[&key(20)], &key(11));
    assert_eq!(world.blame(&sibling), Blame::Unauthorised);
    world.does(&deed(update(3, &["2235", "22"]), "fr.bre.35", &[11]));
}

#[test]
fn a_node_statement_is_the_agency_s_own() {
    let mut world = World::with_normandy();
    let statement = node("fr.bre", None, &[50]);
    for (who, seed) in [
        ("the superior", 10),
        ("a neighbour", 13),
        ("an agency below", 12),
        ("a root key", 1),
        ("the log", 90),
        ("nobody", 99),
    ] {
        let envelope = statement.sign(&key(seed));
        assert_eq!(world.blame(&envelope), Blame::Unauthorised, "{who}");
    }
    let by_the_roots = signed(&statement, &[&key(2)], &key(1));
    assert_eq!(world.blame(&by_the_roots), Blame::Unauthorised);
    world.admit(&statement.sign(&key(11)));
}
