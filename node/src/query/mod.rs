//! Questions and answers: SQL at the asker, one-table queries at each provider.
//!
//! ```text
//!  asker's node                                            provider's node
//!  SQL ─► session ─► plan ─► remote ─► border query text ─► provide ─► guard ─► Parquet
//!                      ▲                                        │
//!                      └──────── answer (Arrow frames) ◄────────┘
//! ```
//!
//! The asker's [`session`] takes full SQL. Each table in it is a [`remote`] one, whose filters,
//! columns and limit [`convert`] turns into a border query; joins, unions, subqueries and
//! windows run here. The provider plans the text of that query ([`provide`]) over a [`guard`]
//! that enforces its policy. What travels is hashed by both sides with [`answer`].
//!
//! Out of scope here: sockets, signatures and journals, which the exchange adds in between.

pub mod answer;
mod border_session;
pub mod catalog;
pub mod convert;
pub mod error;
pub mod file;
pub mod frames;
pub mod functions;
pub mod guard;
pub mod limits;
mod names;
pub mod permit;
pub mod predicate;
pub mod provide;
pub mod remote;
pub mod seats;
pub mod session;
mod statement;
pub mod types;

#[cfg(test)]
mod tests;

use datafusion::config::{ConfigNonZeroUsize, ConfigOptions};

/// What SQL means, the same on both sides of the border.
fn settle_sql(options: &mut ConfigOptions) {
    let parser = &mut options.sql_parser;
    // Names are looked up as they are written; a wrong case is mended where unique.
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    parser.parse_float_as_decimal = false;
    // Room for two or three of the parser's levels to each level that the border allows.
    if let Ok(levels) = ConfigNonZeroUsize::try_new(4 * jingwei_proto::border::MAX_DEPTH) {
        parser.recursion_limit = levels;
    }
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.collect_statistics = false;
    // What one agency's rows hold never becomes a filter at another's: that would disclose it.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
}
