//! `size`: bytes of the three programs as built; a release build is stripped.
//!
//! There is no other way of doing the same to compare with: the baseline is what each may have.

use jingwei_tests::programs::program;

use crate::Failure;
use crate::figure::Figure;
use crate::world::build_programs;

/// The programs, and how many megabytes each may have.
const PROGRAMS: [(&str, f64); 3] = [
    ("jingwei", 90.0),
    ("jingwei-registry", 20.0),
    ("jingwei-verify", 8.0),
];

/// Runs it.
pub fn run() -> Result<(), Failure> {
    build_programs()?;
    for (name, limit) in PROGRAMS {
        let bytes = std::fs::metadata(program(name))?.len();
        Figure {
            bench: "size",
            figure: name,
            value: bytes as f64 / 1e6,
            unit: "MB",
            against: limit,
            baseline: "the most that it may have",
        }
        .print();
    }
    Ok(())
}
