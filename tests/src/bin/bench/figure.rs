//! A figure and its baseline, as one line of JSON.

use serde::Serialize;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Figure<'a> {
    /// The benchmark.
    pub bench: &'a str,
    /// What of it.
    pub figure: &'a str,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'a str,
    /// The baseline's value, of the same unit and the same run.
    pub against: f64,
    /// What the baseline is.
    pub baseline: &'a str,
}

impl Figure<'_> {
    /// Prints it as a line of its own, with the ratio of value and baseline.
    pub fn print(mut self) {
        #[derive(Serialize)]
        struct Line<'a> {
            #[serde(flatten)]
            figure: Figure<'a>,
            ratio: f64,
        }
        let ratio = thousandths(self.value / self.against);
        self.value = thousandths(self.value);
        self.against = thousandths(self.against);
        let line = Line {
            figure: self,
            ratio,
        };
        match serde_json::to_string(&line) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("a figure cannot be written: {error}"),
        }
    }
}

/// The middle one of an odd number of values, the upper middle one of an even number.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn thousandths(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
