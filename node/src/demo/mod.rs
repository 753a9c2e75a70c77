//! The demo: a whole federation in one process, and a tour through it.
//!
//! ```text
//! directory ─► federation: a registry, two witnesses, eight nodes, eleven agencies ─► tour ─► afterwards
//!                                                                                     │
//!            publishing ─► questions ─► the registry stopped ─► proof ─► a lying one ◄┘
//! ```
//!
//! Nothing here is staged: keys, enrolments, TLS, the log, the journals and the answers are
//! those of `jingwei` and `jingwei-registry`, and every step goes by the sockets and messages
//! that the command line uses. Only the agencies are played; the data that they publish are real.
//!
//! Each stop of the tour knows what must come out of it, and the tour fails if anything else does.

mod afterwards;
mod client;
mod data;
mod directory;
mod federation;
mod liar;
mod members;
mod outage;
mod proof;
mod publishing;
mod questions;
mod registry;
mod screen;
mod tour;
mod witnesses;

use std::time::Instant;

use jingwei_registry::command::asked_to_stop;
use jingwei_registry::fault::{Blame, Fault};

pub use directory::Directory;
use federation::Federation;
use screen::Screen;
use tour::Tour;

/// How the demo is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// End after the tour.
    pub once: bool,
    /// Plain lines without colours and progress bars, on a terminal too.
    pub quiet: bool,
}

/// Starts the federation in `directory`, gives the tour, and unless it is to be given once only
/// stays up until Ctrl-C.
///
/// # Errors
/// If the federation does not start, or if a stop of the tour did not come out as it must.
pub async fn run(directory: &Directory, options: Options) -> Result<(), Fault> {
    directory.log_into()?;
    let screen = Screen::new(options.quiet);
    // One future from beginning to end: a Ctrl-C between tour and waiting is not lost.
    let mut interrupted = std::pin::pin!(asked_to_stop()?);
    let given = tokio::select! {
        given = give(directory, options, &screen) => given,
        () = &mut interrupted => return Err(Fault::new(Blame::Cancelled, "interrupted before the end of the tour")),
    };
    let (federation, result) = given?;
    if !options.once {
        interrupted.await;
        screen.say("stopping");
    }
    federation.stop().await;
    result
}

async fn give(
    directory: &Directory,
    options: Options,
    screen: &Screen,
) -> Result<(Federation, Result<(), Fault>), Fault> {
    let began = Instant::now();
    members::introduce(screen);
    let mut federation = Federation::start(directory.path()).await?;
    federation.describe(screen, began.elapsed());
    let result = Tour::new(&mut federation, screen).give().await;
    if options.once {
        screen.say(&format!(
            "the tour took {} in all",
            screen::duration(began.elapsed())
        ));
        afterwards::tell_ended(&federation, directory, screen)?;
    } else {
        afterwards::tell(&federation, directory, screen)?;
    }
    Ok((federation, result))
}
