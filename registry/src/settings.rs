//! Configuration: one TOML file, environment overrides, and all errors at once.
//!
//! ```
//! # use jingwei_registry::settings::Settings;
//! # use std::net::SocketAddr;
//! let environment = [("JINGWEI_LISTEN".to_owned(), "0.0.0.0:7400".to_owned())];
//! let mut settings = Settings::parse("node.toml", "log.format = \"json\"", "JINGWEI_", environment);
//! let listen: SocketAddr = settings.get("listen", "127.0.0.1:7400".parse().unwrap());
//! let format: String = settings.get("log.format", "text".to_owned());
//! settings.finish().unwrap();
//! assert_eq!(listen.to_string(), "0.0.0.0:7400");
//! # assert_eq!(format, "json");
//! ```
//!
//! Each `get` names a key, so that in the end every other key in the file or the environment is
//! known to be a mistake. Errors are gathered until [`Settings::finish`]; what `get` returns
//! before that is provisional, and no port may be bound on it. (serde would stop at the first.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub use crate::setting::{ByteSize, Setting};
use jingwei_schemas::nearest;

/// A configuration while it is being read.
pub struct Settings {
    file: String,
    values: BTreeMap<String, Found>,
    prefix: &'static str,
    environment: BTreeMap<String, String>,
    /// Every key that was asked for.
    known: BTreeSet<String>,
    errors: Vec<SettingsError>,
}

struct Found {
    place: Place,
    value: Value,
}

enum Value {
    One(String),
    List(Vec<String>),
    /// A table with nothing in it, or a list of tables: no key of ours is one.
    Neither,
}

/// Where a setting stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file, on a line counted from 1.
    Line(String, usize),
    /// The file as a whole.
    File(String),
    /// In an environment variable.
    Variable(String),
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// Where it stands.
    pub place: Place,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot read it: {0}")]
    Unreadable(String),
    /// The file is not TOML.
    #[error("not valid TOML: {0}")]
    Syntax(String),
    /// No setting has this name.
    #[error("unknown setting ‘{key}’{}", did_you_mean(.nearest))]
    Unknown {
        /// The name as written.
        key: String,
        /// The most similar name there is.
        nearest: Option<String>,
    },
    /// The value is not what the setting takes.
    #[error("{key} = ‘{value}’: expected {expected}")]
    Value {
        /// The setting.
        key: String,
        /// Its value as written, shortened.
        value: String,
        /// What it takes.
        expected: String,
    },
    /// A setting without a default is not there.
    #[error("{key} is missing: expected {expected}")]
    Missing {
        /// The setting.
        key: String,
        /// What it takes.
        expected: String,
    },
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsErrors(pub Vec<SettingsError>);

impl Settings {
    /// Reads the file, if there is one, and those variables of the environment that begin with
    /// `prefix`. What is wrong is reported by [`Settings::finish`].
    pub fn read(
        path: Option<&Path>,
        prefix: &'static str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Settings {
        let Some(path) = path else {
            return Settings::parse("the configuration", "", prefix, environment);
        };
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Settings::parse(&file, &text, prefix, environment),
            Err(error) => {
                let mut settings = Settings::parse(&file, "", prefix, environment);
                settings.report(Place::File(file), Problem::Unreadable(error.to_string()));
                settings
            }
        }
    }

    /// Like [`Settings::read`], for the text of a file.
    pub fn parse(
        file: &str,
        text: &str,
        prefix: &'static str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Settings {
        let ours = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with(prefix));
        let mut settings = Settings {
            file: file.to_owned(),
            values: BTreeMap::new(),
            prefix,
            environment: ours.collect(),
            known: BTreeSet::new(),
            errors: Vec::new(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = settings.line(text, &error.span().unwrap_or(0..0));
            settings.report(place, Problem::Syntax(error.message().to_owned()));
        }
        settings.gather("", table.get_ref(), text);
        settings
    }

    /// The setting's value, or the default if it is not set.
    pub fn get<T: Setting>(&mut self, key: &str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The setting's value, if it is set.
    pub fn optional<T: Setting>(&mut self, key: &str) -> Option<T> {
        let (place, value) = self.look_up(key)?;
        let parsed = match &value {
            Value::One(text) => T::parse(text),
            Value::List(_) | Value::Neither => None,
        };
        if parsed.is_none() {
            self.bad_value(place, key, &value, T::EXPECTED.to_owned());
        }
        parsed
    }

    /// The value of a setting that must be set; `stand_in` until [`Settings::finish`] says so.
    pub fn required<T: Setting>(&mut self, key: &str, stand_in: T) -> T {
        let present = self.look_up(key).is_some();
        if !present {
            let (key, expected) = (key.to_owned(), T::EXPECTED.to_owned());
            self.report(
                Place::File(self.file.clone()),
                Problem::Missing { key, expected },
            );
        }
        self.get(key, stand_in)
    }

    /// The values of a setting that is a list; in the environment they are joined by commas.
    pub fn list<T: Setting>(&mut self, key: &str) -> Vec<T> {
        let Some((place, value)) = self.look_up(key) else {
            return Vec::new();
        };
        let texts: Vec<&str> = match &value {
            Value::List(texts) => texts.iter().map(String::as_str).collect(),
            Value::One(text) if matches!(place, Place::Variable(_)) => text
                .split(',')
                .map(str::trim)
                .filter(|t| !t.is_empty())
                .collect(),
            Value::One(_) | Value::Neither => {
                self.bad_value(place, key, &value, format!("a list of {}", T::EXPECTED));
                return Vec::new();
            }
        };
        let mut parsed = Vec::new();
        for text in texts {
            match T::parse(text) {
                Some(item) => parsed.push(item),
                None => {
                    let one = Value::One(text.to_owned());
                    self.bad_value(place.clone(), key, &one, T::EXPECTED.to_owned());
                }
            }
        }
        parsed
    }

    /// Refuses a value that is well formed but makes no sense here.
    pub fn refuse(&mut self, key: &str, expected: impl Into<String>) {
        match self.look_up(key) {
            Some((place, value)) => self.bad_value(place, key, &value, expected.into()),
            None => {
                let (key, expected) = (key.to_owned(), expected.into());
                self.report(
                    Place::File(self.file.clone()),
                    Problem::Missing { key, expected },
                );
            }
        }
    }

    /// All errors, if there are any: bad values, and keys that nobody asked for.
    pub fn finish(mut self) -> Result<(), SettingsErrors> {
        self.report_unknown();
        self.errors.sort_by_key(|error| match &error.place {
            Place::File(_) => (0, 0),
            Place::Line(_, line) => (1, *line),
            Place::Variable(_) => (2, 0),
        });
        match self.errors.is_empty() {
            true => Ok(()),
            false => Err(SettingsErrors(self.errors)),
        }
    }

    fn gather(&mut self, path: &str, table: &DeTable<'_>, text: &str) {
        for (key, value) in table.iter() {
            let path = match path {
                "" => key.get_ref().to_string(),
                _ => format!("{path}.{}", key.get_ref()),
            };
            match value.get_ref() {
                DeValue::Table(inner) if !inner.is_empty() => self.gather(&path, inner, text),
                other => {
                    let place = self.line(text, &key.span());
                    let value = value_of(other);
                    self.values.insert(path, Found { place, value });
                }
            }
        }
    }

    fn look_up(&mut self, key: &str) -> Option<(Place, Value)> {
        self.known.insert(key.to_owned());
        let variable = variable(self.prefix, key);
        if let Some(text) = self.environment.get(&variable) {
            return Some((Place::Variable(variable), Value::One(text.clone())));
        }
        let found = self.values.get(key)?;
        let value = match &found.value {
            Value::One(text) => Value::One(text.clone()),
            Value::List(texts) => Value::List(texts.clone()),
            Value::Neither => Value::Neither,
        };
        Some((found.place.clone(), value))
    }

    fn report_unknown(&mut self) {
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        let mut unknown = Vec::new();
        for (key, found) in &self.values {
            // The header of an empty table names no setting, but may be the home of some.
            let home = matches!(found.value, Value::Neither)
                && known.iter().any(|k| k.starts_with(&format!("{key}.")));
            if !self.known.contains(key) && !home {
                unknown.push((
                    found.place.clone(),
                    key.clone(),
                    nearest(key, known.iter().copied()).into_iter().next(),
                ));
            }
        }
        let variables: Vec<String> = known.iter().map(|key| variable(self.prefix, key)).collect();
        for name in self
            .environment
            .keys()
            .filter(|name| !variables.contains(name))
        {
            let similar = nearest(name, variables.iter().map(String::as_str))
                .into_iter()
                .next();
            unknown.push((Place::Variable(name.clone()), name.clone(), similar));
        }
        for (place, key, nearest) in unknown {
            self.report(place, Problem::Unknown { key, nearest });
        }
    }

    fn bad_value(&mut self, place: Place, key: &str, value: &Value, expected: String) {
        let value = match value {
            Value::One(text) => text.chars().take(100).collect(),
            Value::List(texts) => format!("[{}]", texts.join(", "))
                .chars()
                .take(100)
                .collect(),
            Value::Neither => "a table".to_owned(),
        };
        let key = key.to_owned();
        self.report(
            place,
            Problem::Value {
                key,
                value,
                expected,
            },
        );
    }

    fn report(&mut self, place: Place, problem: Problem) {
        self.errors.push(SettingsError { place, problem });
    }

    fn line(&self, text: &str, span: &Range<usize>) -> Place {
        let before = text.bytes().take(span.start);
        Place::Line(
            self.file.clone(),
            1 + before.filter(|b| *b == b'\n').count(),
        )
    }
}

/// The environment variable that overrides a key: `log.format` → `JINGWEI_LOG_FORMAT`.
fn variable(prefix: &str, key: &str) -> String {
    let name = key.to_ascii_uppercase().replace(['.', '-'], "_");
    format!("{prefix}{name}")
}

fn value_of(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::Array(items) => {
            let texts = items.iter().map(scalar).collect();
            Option::map_or(texts, Value::Neither, Value::List)
        }
        other => scalar_of(other).map_or(Value::Neither, Value::One),
    }
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Option<String> {
    scalar_of(value.get_ref())
}

fn scalar_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .ok()
            .map(|number| number.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(yes) => Some(yes.to_string()),
        DeValue::Datetime(time) => Some(time.to_string()),
        DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    match nearest {
        Some(name) => format!("; did you mean ‘{name}’?"),
        None => String::new(),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(file, line) => write!(f, "{file}, line {line}"),
            Place::File(file) => f.write_str(file),
            Place::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl fmt::Display for SettingsErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "error" } else { "errors" };
        write!(f, "{} {noun} in the configuration:", self.0.len())?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for SettingsErrors {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn settings(text: &str, environment: &[(&str, &str)]) -> Settings {
        let environment = environment
            .iter()
            .map(|(k, v)| (k.to_string(), v.to_string()));
        Settings::parse("node.toml", text, "JINGWEI_", environment)
    }

    fn local() -> SocketAddr {
        "127.0.0.1:1".parse().unwrap()
    }

    #[test]
    fn values_come_from_file_environment_and_defaults() {
        let text = "listen = \"127.0.0.1:7\"\nlimit = 0x10\npeers = [\"a\", \"b\"]\n[log]\nformat = \"json\"\n";
        let variables = [
            ("JINGWEI_LISTEN", "127.0.0.1:8"),
            ("JINGWEI_TAGS", "x, y"),
            ("HOME", "/"),
        ];
        let mut s = settings(text, &variables);
        assert_eq!(s.get("listen", local()).port(), 8);
        assert_eq!(s.get("limit", 1_u64), 16);
        assert_eq!(s.get("log.format", String::new()), "json");
        assert_eq!(
            s.get("time-out", Duration::from_secs(9)),
            Duration::from_secs(9)
        );
        assert_eq!(s.list::<String>("peers"), ["a", "b"]);
        assert_eq!(s.list::<String>("tags"), ["x", "y"]);
        s.finish().unwrap();
    }

    #[test]
    fn all_errors_at_once_each_with_its_place() {
        let text =
            "listne = \"127.0.0.1:7\"\nlimit = \"many\"\n\n[log]\nformat = [1]\nfliter = 1\n";
        let variables = [("JINGWEI_TIMEOUT", "soon"), ("JINGWEI_LIMITT", "1")];
        let mut s = settings(text, &variables);
        s.get("listen", local());
        s.get("limit", 1_u64);
        s.get("log.format", String::new());
        s.get("log.filter", String::new());
        s.get("timeout", Duration::ZERO);
        s.required("root", String::new());
        let message = s.finish().unwrap_err().to_string();
        let lines: Vec<&str> = message.lines().map(str::trim).collect();
        assert_eq!(
            lines,
            [
                "7 errors in the configuration:",
                "node.toml: root is missing: expected a text",
                "node.toml, line 1: unknown setting ‘listne’; did you mean ‘listen’?",
                "node.toml, line 2: limit = ‘many’: expected a whole number from 0 to 18446744073709551615",
                "node.toml, line 5: log.format = ‘[1]’: expected a text",
                "node.toml, line 6: unknown setting ‘log.fliter’; did you mean ‘log.filter’?",
                "environment variable JINGWEI_TIMEOUT: timeout = ‘soon’: expected a duration like 500ms, 10s, 5m, 72h or 7d",
                "environment variable JINGWEI_LIMITT: unknown setting ‘JINGWEI_LIMITT’; did you mean ‘JINGWEI_LIMIT’?",
            ]
        );
    }

    #[test]
    fn broken_toml_and_missing_files() {
        let mut s = settings("a = 1\nb = = 2\n", &[]);
        s.get("a", 0_u64);
        s.get("b", 0_u64);
        let errors = s.finish().unwrap_err();
        assert!(
            errors
                .to_string()
                .contains("node.toml, line 2: not valid TOML"),
            "{errors}"
        );
        let s = Settings::read(Some(Path::new("/no/such.toml")), "JINGWEI_", []);
        let errors = s.finish().unwrap_err();
        assert!(
            errors.to_string().contains("/no/such.toml: cannot read it"),
            "{errors}"
        );
    }

    #[test]
    fn empty_and_unknown_tables() {
        let mut s = settings("[log]\n[lgo]\n", &[]);
        s.get("log.format", String::new());
        assert_eq!(s.finish().unwrap_err().0.len(), 1);
    }

    #[test]
    fn a_value_that_makes_no_sense_is_refused_where_it_stands() {
        let mut s = settings("\nrows = 0\n", &[]);
        if s.get("rows", 1_u64) == 0 {
            s.refuse("rows", "at least 1");
        }
        let message = s.finish().unwrap_err().to_string();
        assert!(
            message.contains("line 2: rows = ‘0’: expected at least 1"),
            "{message}"
        );
    }
}
