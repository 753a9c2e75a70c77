//! What the command lines of both programs share: how a failure is told and ends, what they read
//! from the environment and from options, and when they are asked to stop.

use std::fmt::Display;
use std::io::Write as _;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::process::ExitCode;

use jingwei_proto::evidence::command::printable;
pub use tokio::signal::unix::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::fault::{Blame, Fault};

/// A failure without further structure.
pub fn failed(error: impl Display) -> Fault {
    Fault::new(Blame::Internal, error.to_string())
}

/// A command, an option or a file that was named is at fault.
pub fn wrong_use(error: impl Display) -> Fault {
    Fault::new(Blame::WrongUse, error.to_string())
}

/// Ends a command: tells what failed, and exits as [`Blame::exit_code`] says.
pub fn end(result: Result<(), Fault>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            report(&fault);
            ExitCode::from(fault.exit_code())
        }
    }
}

/// What went wrong, where, and what to do next.
fn report(fault: &Fault) {
    let mut out = std::io::stderr().lock();
    // Who has closed standard error does not want to read it.
    let _ = writeln!(out, "error: {}", printable(&fault.message));
    if let Some(advice) = &fault.advice {
        let _ = writeln!(out, "  {}", printable(advice));
    }
    if let Some(pause) = fault.retry_after {
        let _ = writeln!(out, "  try again in {} s", pause.as_secs().max(1));
    }
}

/// The environment as text; variables that are not text cannot be ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// Where to listen: `IP:PORT`, or `NAME:PORT` with a name of this machine such as `localhost`.
///
/// # Errors
/// What it looks like, for whoever wrote something else.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let form = || "it looks like 127.0.0.1:7100, [::1]:7100, localhost:7100 or 0.0.0.0:7100";
    if !text.contains(':') {
        return Err(form().to_owned());
    }
    let found: Vec<SocketAddr> = text
        .to_socket_addrs()
        .map_err(|error| format!("{error}; {}", form()))?
        .collect();
    // One address is listened on; those who type ‘localhost’ elsewhere try IPv4 too.
    let preferred = found.iter().find(|address| address.is_ipv4());
    preferred
        .or(found.first())
        .copied()
        .ok_or_else(|| form().to_owned())
}

/// A number of something that is wanted: 1 or more. Leaving the option out means the default.
///
/// # Errors
/// If it is none.
pub fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("0 would leave nothing: give 1 or more, or leave it out".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a whole number, 1 or more".to_owned()),
    }
}

/// Returns what ends when a person (Ctrl-C) or the system (SIGTERM) asks the program to end. From
/// this call on neither ends it by itself.
///
/// # Errors
/// If the system does not let it listen for them.
pub fn asked_to_stop() -> Result<impl Future<Output = ()>, Fault> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// What tells each time that a person or the system asks to read the configuration again (SIGHUP).
///
/// # Errors
/// If the system does not let it listen for that.
pub fn asked_to_read_again() -> Result<Signal, Fault> {
    signal(SignalKind::hangup()).map_err(failed)
}

/// Cancelled when the program is asked to end, as by [`asked_to_stop`].
///
/// # Errors
/// As [`asked_to_stop`].
pub fn stopping() -> Result<CancellationToken, Fault> {
    let (asked, token) = (asked_to_stop()?, CancellationToken::new());
    let cancelled = token.clone();
    tokio::spawn(async move {
        asked.await;
        tracing::info!("stopping");
        cancelled.cancel();
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        let address = |text| listen_address(text).map(|address| address.to_string());
        assert_eq!(address("127.0.0.1:0").unwrap(), "127.0.0.1:0");
        assert_eq!(address("[::1]:7100").unwrap(), "[::1]:7100");
        assert!(listen_address("localhost:7100").unwrap().ip().is_loopback());
        for bad in ["7100", "localhost", "127.0.0.1:", "127.0.0.1:http", ""] {
            let error = listen_address(bad).unwrap_err();
            assert!(error.contains("localhost:7100"), "{bad}: {error}");
        }
    }

    #[test]
    fn nothing_is_not_a_number_of_things() {
        assert_eq!(at_least_one("1"), Ok(1));
        for bad in ["0", "-1", "many", "1.5", ""] {
            assert!(at_least_one(bad).is_err(), "{bad}");
        }
    }
}
