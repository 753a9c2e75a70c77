//! `jingwei follow`

use std::time::Duration;

use jingwei_proto::wire::node::{FollowRequest, FollowResponse};
use jingwei_proto::words;
use jingwei_registry::command::failed;
use jingwei_registry::disk::{DirLock, Disk};
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::replica::Replica;
use jingwei_registry::source::Source;
use jingwei_registry::{clock, say};

use super::client::{received, with_node};
use super::{Place, runtime};
use crate::home::Home;
use crate::membership::Membership;
use crate::node::not_followed;

#[derive(clap::Args)]
#[command(after_help = "\
Example:
  jingwei follow http://127.0.0.1:7001 --dir fr

The new registry's log must begin with everything that this node has verified, and its root must be
signed by the keys of the root that the node knows: so no fingerprint has to be compared again. Until
then, and if the new log does not fit, the node goes on as before. It works whether the node runs or
not. What the node has signed and does not find in the new log it submits again by itself.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// The new registry's address
    #[arg(value_name = "http://HOST:PORT")]
    registry: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let home = Home::new(&arguments.place.dir);
    let followed = match DirLock::acquire(home.dir()) {
        Ok(_lock) if Membership::load(&home).is_ok() => at_rest(arguments, &home)?,
        lock => {
            drop(lock);
            running(arguments)?
        }
    };
    say!("registry    {}", arguments.registry);
    say!("log         {}", followed.origin);
    say!("verified    {}", words::entries(followed.size));
    Ok(())
}

/// A node that runs goes over by itself.
fn running(arguments: &Arguments) -> Result<FollowResponse, Fault> {
    let request = FollowRequest {
        registry: arguments.registry.clone(),
    };
    with_node(&arguments.place, |mut node| async move {
        received(node.follow(request).await)
    })
}

fn at_rest(arguments: &Arguments, home: &Home) -> Result<FollowResponse, Fault> {
    let membership = Membership::load(home).map_err(failed)?;
    let source = Source::new(&arguments.registry)
        .map_err(|error| Fault::new(Blame::WrongUse, error.to_string()))?;
    let disk = Disk::new().private();
    let replica = Replica::open(
        &home.replica(),
        &membership.origin,
        membership.root,
        disk.clone(),
    )
    .map_err(failed)?;
    let clock = clock::system();
    let advanced = replica.advance(&source, Duration::ZERO, &clock);
    runtime()?.block_on(advanced).map_err(not_followed)?;
    Membership::follow(home, &source, &disk).map_err(failed)?;
    let checkpoint = replica.log().checkpoint();
    Ok(FollowResponse {
        origin: checkpoint.origin,
        size: checkpoint.size,
    })
}
