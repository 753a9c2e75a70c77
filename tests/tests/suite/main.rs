//! Everything that takes more than one crate: real processes, liars, crashes, bad input.
//!
//! One test program for all of it, because linking is what takes the time.

mod adversary_asker;
mod adversary_evidence;
mod adversary_peer;
mod adversary_provider;
mod adversary_registry;
mod adversary_time;
mod alarms;
mod bad_files;
mod bad_registry;
mod bad_sql;
mod bad_statements;
mod command_line;
mod crash_node;
mod crash_registry;
mod crash_replica;
mod demo;
mod e2e;
mod evidence_export;
mod fuzz_seeds;
mod help;
mod keepers;
mod keepers_quorum;
mod limits;
mod membership;
mod memory;
mod object_storage;
mod pair;
mod readme;
mod services;
mod snapshots;
mod take_over;
mod take_over_crash;
mod take_over_submitters;
mod witness;
mod witnessed_crash;
mod witnessed_faults;
mod witnessed_log;
