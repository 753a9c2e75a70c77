//! What the tour shows: headings, SQL, tables, who answered, and whether it came out as it must.

use std::fmt::{Debug, Display};
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jingwei_proto::wire::node::SqlDone;
use jingwei_registry::fault::Fault;

use super::client::Answer;
use super::registry::failed;
use crate::output::{Format, Output, TABLE_ROWS};

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

/// Before every line that is not a heading.
const MARGIN: &str = "  ";

/// Standard output, for a person at a terminal or as plain lines.
pub struct Screen {
    styled: bool,
    bars: bool,
}

impl Screen {
    /// Plain if `quiet`, or if standard output is no terminal.
    pub fn new(quiet: bool) -> Screen {
        let terminal = !quiet && std::io::stdout().is_terminal();
        // By https://no-color.org, whatever its value, unless it is empty.
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Screen {
            styled: terminal && !no_colour,
            bars: terminal,
        }
    }

    /// A heading.
    pub fn title(&self, text: &str) {
        self.gap();
        self.line(&self.style(BOLD, text));
    }

    /// A line of text.
    pub fn say(&self, text: &str) {
        self.line(&format!("{MARGIN}{text}"));
    }

    /// Lines that stand back.
    pub fn aside(&self, text: &str) {
        for line in text.lines() {
            self.line(&format!("{MARGIN}{}", self.style(DIM, line)));
        }
    }

    /// A command, with nothing before it.
    pub fn command(&self, text: &str) {
        self.line(&self.style(BOLD, text));
    }

    /// An empty line.
    pub fn gap(&self) {
        self.line("");
    }

    /// A question, exactly as it is asked.
    pub fn question(&self, agency: &str, sql: &str) {
        self.gap();
        self.say(&format!("{agency} asks:"));
        self.gap();
        for line in sql.lines() {
            self.line(&format!("{MARGIN}{MARGIN}{}", self.style(BOLD, line)));
        }
        self.gap();
    }

    /// The table of an answer, who answered, and how long it took.
    pub fn answer(&self, asker: &str, answer: &Answer) -> Result<(), Fault> {
        // Two margins and the column that some terminals wrap in.
        let width = comfy_table::Table::new()
            .width()
            .map(|width| width.saturating_sub(5).max(40));
        let mut output = Output::new(
            Format::Table,
            answer.table.schema(),
            Vec::new(),
            TABLE_ROWS,
            width,
        )
        .map_err(failed)?;
        output.batch(&answer.table).map_err(failed)?;
        let (_, bytes) = output.finish().map_err(failed)?;
        let table = String::from_utf8_lossy(&bytes);
        let table = if self.styled {
            table.into_owned()
        } else {
            unstyled(&table)
        };
        for line in table.lines() {
            self.line(&format!("{MARGIN}{line}"));
        }
        self.answered(asker, &answer.done);
        Ok(())
    }

    fn answered(&self, asker: &str, done: &SqlDone) {
        self.gap();
        self.say(&format!("answered in {}:", micros(done.micros)));
        for exchange in &done.exchanges {
            self.say(&format!(
                "{MARGIN}{:<26} {:>6} rows in {:>8}",
                exchange.version,
                grouped(exchange.rows),
                micros(exchange.micros)
            ));
            self.aside(&format!("{MARGIN}{MARGIN}was asked: {}", exchange.query));
        }
        self.aside(&format!(
            "{MARGIN}each signed by its provider, joined and counted at {asker}"
        ));
    }

    /// Something that must be so: says whether it is, and with what if not.
    pub fn check<T: PartialEq + Debug>(&self, what: &str, found: &T, expected: &T) -> bool {
        let right = found == expected;
        if right {
            self.line(&format!("{MARGIN}{} {what}", self.style(GREEN, "✓")));
        } else {
            self.line(&format!("{MARGIN}{} {what}", self.style(RED, "✗ WRONG:")));
            self.say(&format!("  expected {expected:?}"));
            self.say(&format!("  found    {found:?}"));
        }
        right
    }

    /// A stop that broke off.
    pub fn broke_off(&self, fault: &Fault) {
        self.line(&format!(
            "{MARGIN}{} {}",
            self.style(RED, "✗ BROKE OFF:"),
            fault.message
        ));
        if let Some(advice) = &fault.advice {
            self.say(&format!("  {advice}"));
        }
    }

    /// Progress bars, drawn on standard error; nothing where bars are not wanted.
    pub fn progress(&self) -> MultiProgress {
        match self.bars {
            true => MultiProgress::new(),
            false => MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
        }
    }

    fn line(&self, text: &str) {
        // Who has closed standard output does not want to read on; the exit code still tells.
        let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
    }

    fn style(&self, code: &str, text: &str) -> String {
        if self.styled {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A bar for a dataset of `rows` rows.
pub fn bar(bars: &MultiProgress, name: String, rows: u64) -> ProgressBar {
    let bar = bars.add(ProgressBar::new(rows));
    if let Ok(style) =
        ProgressStyle::with_template("  {prefix:24} {bar:30} {human_pos:>7} of {human_len} rows")
    {
        bar.set_style(style);
    }
    bar.set_prefix(name);
    bar
}

/// A span of time for people.
pub fn duration(span: Duration) -> String {
    if span < Duration::from_secs(1) {
        format!("{:.1} ms", span.as_secs_f64() * 1_000.0)
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}

fn micros(micros: u64) -> String {
    duration(Duration::from_micros(micros))
}

/// A number with its thousands set apart: 26,115.
pub fn grouped(number: impl Display) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `text` without the attributes that a table gives its header on a terminal.
fn unstyled(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_times_and_plain_text() {
        assert_eq!(
            [5, 1_202, 26_115, 1_000_000].map(grouped),
            ["5", "1,202", "26,115", "1,000,000"]
        );
        assert_eq!(micros(1_234), "1.2 ms");
        assert_eq!(micros(2_345_678), "2.3 s");
        assert_eq!(unstyled("a \x1b[1mbold\x1b[0m word"), "a bold word");
    }
}
