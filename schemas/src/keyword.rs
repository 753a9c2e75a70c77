//! The keywords of JSON Schema 2020-12: a validator passes over a word that it does not know, so
//! that a misspelt rule would never hold.

use serde_json::Value;

use crate::annotation;
use crate::error::SchemaError;
use crate::nearest::nearest;
use crate::violation::shortened;

/// What the value of a keyword is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// A number, a text, a list of values: nothing in it is a keyword.
    Data,
    /// A schema.
    Schema,
    /// A list of schemas.
    List,
    /// Schemas under names that their author chose.
    Named,
}

/// The keywords of all vocabularies, in the order of the specification. `definitions` and
/// `dependencies` are kept from earlier drafts by its meta-schema.
const KEYWORDS: [(&str, Holds); 59] = [
    ("$id", Holds::Data),
    ("$schema", Holds::Data),
    ("$ref", Holds::Data),
    ("$anchor", Holds::Data),
    ("$dynamicRef", Holds::Data),
    ("$dynamicAnchor", Holds::Data),
    ("$vocabulary", Holds::Data),
    ("$comment", Holds::Data),
    ("$defs", Holds::Named),
    ("definitions", Holds::Named),
    ("dependencies", Holds::Named),
    ("allOf", Holds::List),
    ("anyOf", Holds::List),
    ("oneOf", Holds::List),
    ("not", Holds::Schema),
    ("if", Holds::Schema),
    ("then", Holds::Schema),
    ("else", Holds::Schema),
    ("dependentSchemas", Holds::Named),
    ("prefixItems", Holds::List),
    ("items", Holds::Schema),
    ("contains", Holds::Schema),
    ("properties", Holds::Named),
    ("patternProperties", Holds::Named),
    ("additionalProperties", Holds::Schema),
    ("propertyNames", Holds::Schema),
    ("unevaluatedItems", Holds::Schema),
    ("unevaluatedProperties", Holds::Schema),
    ("type", Holds::Data),
    ("enum", Holds::Data),
    ("const", Holds::Data),
    ("multipleOf", Holds::Data),
    ("maximum", Holds::Data),
    ("exclusiveMaximum", Holds::Data),
    ("minimum", Holds::Data),
    ("exclusiveMinimum", Holds::Data),
    ("maxLength", Holds::Data),
    ("minLength", Holds::Data),
    ("pattern", Holds::Data),
    ("maxItems", Holds::Data),
    ("minItems", Holds::Data),
    ("uniqueItems", Holds::Data),
    ("maxContains", Holds::Data),
    ("minContains", Holds::Data),
    ("maxProperties", Holds::Data),
    ("minProperties", Holds::Data),
    ("required", Holds::Data),
    ("dependentRequired", Holds::Data),
    ("format", Holds::Data),
    ("contentEncoding", Holds::Data),
    ("contentMediaType", Holds::Data),
    ("contentSchema", Holds::Schema),
    ("title", Holds::Data),
    ("description", Holds::Data),
    ("default", Holds::Data),
    ("deprecated", Holds::Data),
    ("readOnly", Holds::Data),
    ("writeOnly", Holds::Data),
    ("examples", Holds::Data),
];

/// Refuses the first word of `schema`, at any depth, that is no keyword. What begins with `x-` is
/// an annotation: those of columns and of the table are judged by [`annotation`], others are free.
pub(crate) fn check(schema: &Value) -> Result<(), SchemaError> {
    check_at(schema, "")
}

fn check_at(schema: &Value, place: &str) -> Result<(), SchemaError> {
    // Elsewhere than at the top, true and false are schemas, too.
    let Some(members) = schema.as_object() else {
        return Ok(());
    };
    for (name, value) in members {
        let place = below(place, name);
        match holds(name) {
            Some(Holds::Data) => {}
            Some(Holds::Schema) => check_at(value, &place)?,
            Some(Holds::List | Holds::Named) => check_each(value, &place)?,
            None if name.starts_with("x-") => {}
            None => return Err(unknown(name, &place)),
        }
    }
    Ok(())
}

/// Checks the schemas of a list, or those that stand under names.
fn check_each(schemas: &Value, place: &str) -> Result<(), SchemaError> {
    match schemas {
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(n, item)| check_at(item, &format!("{place}/{n}"))),
        Value::Object(members) => members
            .iter()
            .try_for_each(|(name, member)| check_at(member, &below(place, name))),
        _ => Ok(()),
    }
}

fn holds(name: &str) -> Option<Holds> {
    let found = KEYWORDS.iter().find(|(keyword, _)| *keyword == name);
    found.map(|(_, holds)| *holds)
}

/// The JSON Pointer of a member.
fn below(place: &str, name: &str) -> String {
    format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn unknown(name: &str, place: &str) -> SchemaError {
    let keywords = KEYWORDS.iter().map(|(keyword, _)| *keyword);
    SchemaError::UnknownKeyword {
        place: shortened(place),
        near: nearest(name, keywords.chain(annotation::all())),
        keyword: shortened(name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_keyword_stands_once() {
        let mut names: Vec<&str> = KEYWORDS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn pointers_are_escaped() {
        let schema = json!({"properties": {"a/b~c": {"patern": "x"}}});
        let error = check(&schema).unwrap_err().to_string();
        assert!(error.contains("/properties/a~1b~0c/patern"), "{error}");
    }
}
