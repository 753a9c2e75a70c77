//! How the names in a user's SQL find what they mean.
//!
//! - Table names, aliases and the names of `WITH` are folded to small letters unless quoted, as
//!   in PostgreSQL; agencies and datasets have no capitals.
//! - A dotted agency may be written without quotes where its labels are words:
//!   `cn.mca.counties` is `"cn.mca".counties`.
//! - Columns match exactly, else without regard to case where that leaves one.

use std::ops::ControlFlow;

use datafusion::common::{Column, DataFusionError, SchemaError};
use datafusion::sql::sqlparser::ast::{
    self, Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, TableFactor, VisitMut, Visitor, VisitorMut,
};

use super::error::QueryError;

/// Folds the names of tables in `query` and joins dotted agencies.
pub fn fold(query: &mut Query) {
    let _: ControlFlow<()> = query.visit(&mut Fold);
}

struct Fold;

impl VisitorMut for Fold {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        for cte in query.with.iter_mut().flat_map(|with| &mut with.cte_tables) {
            fold_ident(&mut cte.alias.name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                _,
            ) = item
            {
                fold_table(name);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &mut ObjectName) -> ControlFlow<()> {
        fold_table(relation);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let alias = match factor {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. }
            | TableFactor::Pivot { alias, .. }
            | TableFactor::Unpivot { alias, .. } => alias,
            _ => return ControlFlow::Continue(()),
        };
        if let Some(alias) = alias {
            fold_ident(&mut alias.name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::CompoundIdentifier(parts) = expr
            && let Some(column) = parts.pop()
        {
            fold_parts(parts);
            parts.push(column);
        }
        ControlFlow::Continue(())
    }
}

fn fold_table(name: &mut ObjectName) {
    let idents = name.0.iter().map(|part| part.as_ident().cloned());
    let Some(mut idents) = idents.collect::<Option<Vec<Ident>>>() else {
        return;
    };
    fold_parts(&mut idents);
    name.0 = idents.into_iter().map(ObjectNamePart::Identifier).collect();
}

/// Folds each part and joins all but the last, which is the table, into the agency.
fn fold_parts(parts: &mut Vec<Ident>) {
    parts.iter_mut().for_each(fold_ident);
    if parts.len() > 2
        && let Some(table) = parts.pop()
    {
        let labels: Vec<&str> = parts.iter().map(|part| part.value.as_str()).collect();
        let mut agency = Ident::with_quote('"', labels.join("."));
        agency.span = parts[0].span;
        *parts = vec![agency, table];
    }
}

fn fold_ident(ident: &mut Ident) {
    if ident.quote_style.is_none() {
        ident.value = ident.value.to_lowercase();
    }
}

/// Line and character, from 1, where a table stands in a folded `query`, if known.
pub fn place_of(query: &Query, agency: Option<&str>, table: &str) -> Option<(u64, u64)> {
    let mut wanted = Wanted { agency, table };
    match ast::Visit::visit(query, &mut wanted) {
        ControlFlow::Break(place) => Some(place),
        ControlFlow::Continue(()) => None,
    }
}

struct Wanted<'a> {
    agency: Option<&'a str>,
    table: &'a str,
}

impl Visitor for Wanted<'_> {
    type Break = (u64, u64);

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<(u64, u64)> {
        let idents = relation.0.iter().filter_map(ObjectNamePart::as_ident);
        let parts: Vec<&Ident> = idents.collect();
        let (agency, table) = match parts.as_slice() {
            [table] => (None, table),
            [agency, table] => (Some(agency.value.as_str()), table),
            _ => return ControlFlow::Continue(()),
        };
        let place = parts[0].span.start;
        if agency == self.agency && table.value == self.table && place.line > 0 {
            return ControlFlow::Break((place.line, place.column));
        }
        ControlFlow::Continue(())
    }
}

/// A column that planning did not find.
#[derive(Debug)]
pub struct Missing {
    column: Column,
    valid: Vec<Column>,
    /// Line and character, from 1, where it stands, if known.
    place: Option<(u64, u64)>,
}

impl Missing {
    /// What is missing, if that is why planning failed.
    pub fn from_error(error: &DataFusionError) -> Option<Missing> {
        let DataFusionError::SchemaError(inner, _) = error.find_root() else {
            return None;
        };
        let SchemaError::FieldNotFound {
            field,
            valid_fields,
        } = &**inner
        else {
            return None;
        };
        let told = error.diagnostic().and_then(|diagnostic| diagnostic.span);
        let span = field.spans().first().or(told);
        Some(Missing {
            column: (**field).clone(),
            valid: valid_fields.clone(),
            place: span.map(|span| (span.start.line, span.start.column)),
        })
    }

    /// Mends the name in `query` where one column has it in another case. False if that is not
    /// so: then it is the user's fault.
    pub fn mend(&self, query: &mut Query) -> bool {
        let wanted = self.column.name.to_lowercase();
        let relation = self
            .column
            .relation
            .as_ref()
            .map(|relation| relation.table());
        let mut names = self.valid.iter().filter_map(|valid| {
            let same_table = match (relation, &valid.relation) {
                (Some(wanted), Some(valid)) => wanted == valid.table(),
                (Some(_), None) => false,
                (None, _) => true,
            };
            let same_name = valid.name.to_lowercase() == wanted && valid.name != self.column.name;
            (same_table && same_name).then_some(&valid.name)
        });
        let Some(name) = names.next() else {
            return false;
        };
        if names.any(|other| other != name) {
            return false;
        }
        let mut mend = Mend {
            from: &self.column.name,
            to: name,
            place: self.place,
            mended: false,
        };
        let _: ControlFlow<()> = query.visit(&mut mend);
        mend.mended
    }

    /// The error for the user.
    pub fn into_error(self) -> QueryError {
        let names = self.valid.iter().map(|column| column.name.as_str());
        let mut nearest = jingwei_schemas::nearest(&self.column.name, names.clone());
        let text = nearest.is_empty() && self.column.relation.is_none();
        if nearest.is_empty() {
            nearest = names.take(LISTED).map(str::to_owned).collect();
        }
        QueryError::UnknownColumn {
            name: self.column.flat_name(),
            text,
            nearest,
            line: self.place.map(|(line, _)| line),
            column: self.place.map(|(_, column)| column),
        }
    }
}

/// Columns that are listed where none is near: what a person takes in at a glance.
const LISTED: usize = 12;

struct Mend<'a> {
    from: &'a str,
    to: &'a str,
    place: Option<(u64, u64)>,
    mended: bool,
}

impl VisitorMut for Mend<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let parts = match expr {
            Expr::Identifier(ident) => std::slice::from_mut(ident),
            Expr::CompoundIdentifier(parts) => parts.as_mut_slice(),
            _ => return ControlFlow::Continue(()),
        };
        let here = parts
            .first()
            .map(|first| (first.span.start.line, first.span.start.column));
        if let Some(column) = parts.last_mut()
            && column.value == self.from
            && (self.place.is_none() || self.place == here)
        {
            column.value = self.to.to_owned();
            self.mended = true;
        }
        ControlFlow::Continue(())
    }
}

/// A table as SQL writes it: quotes only where they are needed.
pub fn spell(agency: &str, table: &str) -> String {
    format!("{}.{}", quoted(agency), quoted(table))
}

fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if plain {
        name.to_owned()
    } else {
        format!("\"{}\"", name.replace('"', "\"\""))
    }
}
