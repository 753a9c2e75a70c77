//! The names somebody may have meant, for error messages.

/// No name worth a suggestion is longer; it keeps the work small for hostile input.
const LONGEST: usize = 256;

/// At most three of `candidates` that differ from `name` in a few letters, nearest first.
///
/// Case does not count, and a third of the letters (one to three) may differ.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let name = folded(name);
    if name.len() > LONGEST {
        return Vec::new();
    }
    let allowed = (name.len() / 3).clamp(1, 3);
    let mut near: Vec<(usize, &str)> = candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 4 * LONGEST)
        .filter_map(|candidate| {
            let candidate_name = folded(candidate);
            if candidate_name.len().abs_diff(name.len()) > allowed {
                return None;
            }
            let distance = distance(&name, &candidate_name);
            (distance <= allowed).then_some((distance, candidate))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.into_iter()
        .take(3)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// The nearest names as the tail of a sentence: `; did you mean ‘a’ or ‘b’?`, or nothing.
pub(crate) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    did_you_mean(&nearest(name, candidates)).unwrap_or_default()
}

/// These names as the tail of a sentence, if there are any.
pub(crate) fn did_you_mean(near: &[String]) -> Option<String> {
    let quoted: Vec<String> = near.iter().map(|name| format!("‘{name}’")).collect();
    (!near.is_empty()).then(|| format!("; did you mean {}?", quoted.join(" or ")))
}

fn folded(name: &str) -> Vec<char> {
    name.chars()
        .take(LONGEST + 1)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`
/// (optimal string alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut two_back = vec![0; width];
    let mut previous: Vec<usize> = (0..width).collect();
    for i in 1..=a.len() {
        let mut current = vec![i; width];
        for j in 1..width {
            let substituted = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            current[j] = substituted.min(previous[j] + 1).min(current[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                current[j] = current[j].min(two_back[j - 2] + 1);
            }
        }
        two_back = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_nearest_first() {
        let names = ["population", "populations", "nom", "code", "codes"];
        assert_eq!(nearest("popluation", names), ["population", "populations"]);
        assert_eq!(nearest("Code", names), ["code", "codes"]);
        assert!(nearest("weather", names).is_empty());
        assert!(nearest(&"x".repeat(100_000), names).is_empty());
        assert_eq!(nearest("é", ["e", "É", "f", "g"]), ["É", "e", "f"]);
        assert_eq!(suggestion("nomm", names), "; did you mean ‘nom’?");
        assert_eq!(suggestion("zzzz", names), "");
    }

    #[test]
    fn distances() {
        let d = |a: &str, b: &str| distance(&folded(a), &folded(b));
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("kitten", "sitting"), 3);
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("same", "same"), 0);
    }
}
