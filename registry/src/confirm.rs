//! Asking before something is done for good.

use std::io::{IsTerminal, Write};

use crate::fault::{Blame, Fault};

/// Asks on the terminal, unless `yes` says that nobody need be asked. Where nobody can be asked,
/// nothing is done.
pub fn confirm(question: &str, yes: bool) -> Result<(), Fault> {
    if yes {
        return Ok(());
    }
    let wrong_use = |text: &str| Fault::new(Blame::WrongUse, text);
    if !std::io::stdin().is_terminal() {
        return Err(wrong_use("nothing is done without somebody's word for it")
            .advise("add --yes to do it without being asked"));
    }
    let failed = |error: std::io::Error| Fault::new(Blame::Internal, error.to_string());
    print!("{question} [y/N] ");
    std::io::stdout().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(failed)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(wrong_use("nothing was done")),
    }
}
