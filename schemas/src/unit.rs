//! Units of measure, as codes of UCUM, the Unified Code for Units of Measure (<https://ucum.org>).
//!
//! The `octofhir-ucum` crate judges the code. What is added here is a hint for those who wrote
//! what people write (`°C`, `km/hour`, `hectare`, `persons`) instead.

use octofhir_ucum::{ErrorKind, UnitRecord, get_all_units, validate};

use crate::nearest::nearest;

/// Checks that `text` is a UCUM code, such as `mm`, `[degF]`, `har/15` or `{person}`.
///
/// # Errors
/// What is wrong with it, and the nearest codes, as the rest of a sentence about `x-unit`.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let Err(error) = validate(text) else {
        return Ok(());
    };
    Err(match &error.kind {
        ErrorKind::UnitNotFound { unit, .. } => {
            format!("‘{unit}’ is no unit of UCUM{}", hint(unit))
        }
        ErrorKind::InvalidExpression { reason, .. } => {
            format!(
                "‘{text}’ is no UCUM code: {}{}",
                lower_first(reason),
                hint(text)
            )
        }
        _ => format!("‘{text}’ is no UCUM code: {}", lower_first(&error.message)),
    })
}

/// What many people write, and what UCUM writes for it.
const HABITS: [(&str, &str); 12] = [
    ("°", "deg"),
    ("°c", "Cel"),
    ("°f", "[degF]"),
    ("celsius", "Cel"),
    ("fahrenheit", "[degF]"),
    ("ft", "[ft_i]"),
    ("ha", "har"),
    ("hectare", "har"),
    ("in", "[in_i]"),
    ("km/h", "km/h"),
    ("percent", "%"),
    ("sec", "s"),
];

/// The codes that may have been meant, as the tail of a sentence.
fn hint(written: &str) -> String {
    let meant = meant(written);
    if meant.is_empty() {
        return "; what is counted stands in braces, like {person}".to_owned();
    }
    let quoted: Vec<String> = meant.iter().map(|code| format!("‘{code}’")).collect();
    format!("; did you mean {}?", quoted.join(" or "))
}

fn meant(written: &str) -> Vec<String> {
    let lower = written.trim().to_lowercase();
    if let Some((_, code)) = HABITS.iter().find(|(habit, _)| *habit == lower) {
        return vec![(*code).to_owned()];
    }
    let units = get_all_units();
    let with = |same: &dyn Fn(&UnitRecord) -> bool| -> Vec<String> {
        let found = units.iter().filter(|unit| same(unit));
        found.take(3).map(|unit| unit.code.to_owned()).collect()
    };
    let spelled = with(&|unit| {
        unit.display_name.to_lowercase() == lower || unit.code.to_lowercase() == lower
    });
    if !spelled.is_empty() {
        return spelled;
    }
    if validate(&lower).is_ok() {
        return vec![lower];
    }
    // One or two letters are near to a dozen codes, and say nothing.
    if lower.chars().count() < 3 {
        return Vec::new();
    }
    let names = nearest(&lower, units.iter().map(|unit| unit.display_name));
    if names.is_empty() {
        return nearest(&lower, units.iter().map(|unit| unit.code));
    }
    with(&|unit| names.iter().any(|name| name == unit.display_name))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_lowercase().to_string());
    first.unwrap_or_default() + chars.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_ucum() {
        for code in [
            "mm",
            "m/s",
            "%",
            "1",
            "deg",
            "mbar",
            "Cel",
            "[degF]",
            "[in_i]",
            "[mi_i]/h",
            "{person}",
            "{person}/km2",
            "har/15",
            "10*3.{CNY}",
            "kg{dry}/m3",
            "mm[Hg]",
        ] {
            assert_eq!(check(code), Ok(()), "{code}");
        }
    }

    /// The Chinese 亩 is a fifteenth of a hectare.
    #[test]
    fn a_mu_is_667_square_metres() {
        let mu = octofhir_ucum::parse_expression("har/15").unwrap();
        let mu = octofhir_ucum::evaluate(&mu).unwrap();
        assert!((mu.factor.to_f64() - 2000.0 / 3.0).abs() < 1e-9);
        assert_eq!(mu.dim.to_string(), "L2");
    }

    #[test]
    fn what_is_none_and_what_may_have_been_meant() {
        for (written, meant) in [
            ("°C", "‘Cel’"),
            ("km/hour", "‘h’"),
            ("degrees Celsius", "‘Cel’"),
            ("meter", "‘m’"),
            ("hectare", "‘har’"),
            ("MM", "‘mm’"),
            ("persons", "{person}"),
            ("EUR", "{person}"),
            ("m//s", "is no UCUM code"),
            ("", "is no UCUM code"),
        ] {
            let error = check(written).unwrap_err();
            assert!(error.contains(meant), "{written}: {error}");
        }
    }
}
