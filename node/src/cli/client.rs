//! The way from a command to its running node: gRPC over the socket in the node's directory.

use std::error::Error as _;
use std::future::Future;

use jingwei_registry::connect::{self, Link};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::registry::Paths;
use jingwei_registry::shell;
use tonic::{Response, Status};

use super::serve::open_fault;
use super::{Place, runtime};
use crate::agency::HostedAgency;
use crate::home::Home;
use crate::node::{OpenError, ready};
use crate::serve::stubs::local_client::LocalClient;

/// The largest message from the node: a batch of a table.
const MAX_MESSAGE: usize = 256 * 1024 * 1024;

/// A client of the node.
pub type Client = LocalClient<Link>;

/// Connects to the node in `place`, and says how to start it if it does not run.
pub async fn connect(place: &Place) -> Result<Client, Fault> {
    let socket = Home::new(&place.dir).socket();
    let link = connect::uds(&socket).await.map_err(|fault| {
        if let Err(fault) = begun(place) {
            return fault;
        }
        if denied(&socket) {
            return Fault::new(
                Blame::Unavailable,
                format!("the node in {} cannot be reached: {}", place.dir.display(), fault.message),
            )
            .advise("its socket node.sock belongs to another user: run this as the one who runs the node");
        }
        if let Err(error) = ready(&Home::new(&place.dir)) {
            return open_fault(error);
        }
        let message = format!("the node in {} does not run", place.dir.display());
        let message = match socket.exists() {
            true => format!("{message} ({})", fault.message),
            false => message,
        };
        Fault::new(Blame::Unavailable, message)
        .advise(format!(
            "start it: jingwei serve --dir {}",
            shell::path(&place.dir)
        ))
    })?;
    Ok(LocalClient::new(link).max_decoding_message_size(MAX_MESSAGE))
}

/// Refuses a directory in which no node was begun, and says how to begin one.
pub fn begun(place: &Place) -> Result<(), Fault> {
    let (dir, home) = (&place.dir, Home::new(&place.dir));
    let none = |what: String| {
        Fault::new(Blame::WrongUse, what)
            .advise("name the node's directory with --dir, or begin one with ‘jingwei init’")
    };
    if !dir.is_dir() {
        return Err(none(format!("there is no directory {}", dir.display())));
    }
    // Into another user's directory nobody sees; its socket tells more.
    let unseen = std::fs::read_dir(dir).is_err();
    if unseen || home.settings().exists() || HostedAgency::any(&home) {
        return Ok(());
    }
    if Paths::new(dir).log_key().exists() {
        let what = format!("{} holds a registry, and no node", dir.display());
        return Err(none(what));
    }
    Err(open_fault(OpenError::NoAgency(dir.clone())))
}

/// Runs a command that talks to the node.
pub fn with_node<T, F>(place: &Place, command: impl FnOnce(Client) -> F) -> Result<T, Fault>
where
    F: Future<Output = Result<T, Fault>>,
{
    runtime()?.block_on(async { command(connect(place).await?).await })
}

/// The node's answer, or what it has against the request.
pub fn received<T>(answer: Result<Response<T>, Status>) -> Result<T, Fault> {
    answer
        .map(Response::into_inner)
        .map_err(|status| fault(&status))
}

/// What a status means: the node's own word, or that it stopped before it could say one.
pub fn fault(status: &Status) -> Fault {
    let fault = Fault::from_status(status);
    // Only a connection that broke has a cause on this side of it.
    let broke = matches!(
        fault.blame,
        Blame::Unavailable | Blame::Internal | Blame::Cancelled
    );
    if broke && status.source().is_some() {
        return stopped();
    }
    fault
}

/// What to do when the node has gone in the middle of a question.
pub const START_AGAIN: &str =
    "see its log, start it again with ‘jingwei serve’, and repeat the command";

/// The node has gone in the middle.
pub fn stopped() -> Fault {
    Fault::new(
        Blame::Unavailable,
        "the node stopped before it had answered",
    )
    .advise(format!("{START_AGAIN}; a publication goes on where it was"))
}

/// Whether the system forbids this user to connect.
fn denied(socket: &std::path::Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}
