//! Whether the columns of a file are those of the schema.

use std::collections::HashSet;

use crate::nearest::suggestion;
use crate::schema::TableSchema;

/// The columns of a file do not match the schema: every problem at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the columns do not match the schema: {}", problems.join("; "))]
pub struct HeaderError {
    /// One sentence for each problem.
    pub problems: Vec<String>,
}

/// Problems in one report; a file of another table would otherwise fill the screen.
const MOST: usize = 20;

impl TableSchema {
    /// For each name of a file's header, its place in [`TableSchema::columns`].
    ///
    /// Names match exactly; a byte order mark before the first is overlooked. A column that is
    /// not required may be missing.
    ///
    /// # Errors
    /// A name stands twice, is not in the schema, or a required one is missing.
    pub fn header<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<usize>, HeaderError> {
        let mut problems = Vec::new();
        let mut seen = HashSet::new();
        let mut places = Vec::with_capacity(names.len());
        for (at, name) in names.iter().enumerate() {
            let name = name.as_ref();
            let name = if at == 0 {
                name.trim_start_matches('\u{feff}')
            } else {
                name
            };
            match self.place(name) {
                Some(place) if seen.insert(place) => places.push(place),
                Some(_) => problems.push(format!("two columns are called ‘{name}’")),
                None => problems.push(self.unknown(name, at)),
            }
        }
        let missing = self.columns().iter().enumerate();
        for (_, column) in
            missing.filter(|(place, column)| column.required && !seen.contains(place))
        {
            problems.push(format!("the required column ‘{}’ is missing", column.name));
        }
        if problems.is_empty() {
            return Ok(places);
        }
        problems.truncate(MOST);
        Err(HeaderError { problems })
    }

    fn unknown(&self, name: &str, at: usize) -> String {
        let hint = suggestion(name, self.names());
        let name: String = name.chars().take(80).collect();
        format!(
            "column {} is ‘{name}’, which the schema does not have{hint}",
            at + 1
        )
    }
}
