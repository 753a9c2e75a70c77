//! Questions from end to end in one process: a fake exchange joins the asker's side to the
//! provider's.

mod asker;
mod provider;
mod pushdown;
mod support;
