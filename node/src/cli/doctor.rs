//! `jingwei doctor`

use jingwei_registry::say;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jingwei_proto::time::Time;
use jingwei_proto::wire::node::{CompareRequest, StatusRequest, StatusResponse};
use jingwei_proto::words::{counted, entries};
use jingwei_registry::command::{environment, wrong_use};
use jingwei_registry::disk::Disk;
use jingwei_registry::fault::{Blame, Fault};
use jingwei_registry::keyfile::KeyFileError;
use jingwei_registry::replica::{Alarm, SHORT_TAKE_OVER, alarms_in};
use jingwei_registry::shell;
use jingwei_registry::source::Source;

use super::client::{begun, connect, received};
use super::{Place, runtime};
use crate::agency::HostedAgency;
use crate::config::Config;
use crate::home::Home;
use crate::journal;
use crate::node::enroller;
use crate::publish::Record;
use crate::store::DatasetStore;

/// Between two looks while waiting.
const LOOK: Duration = Duration::from_millis(100);

/// How long a node that does not run is waited for in silence: one that was just started is there
/// sooner.
const SILENCE: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  jingwei doctor --dir fr
  jingwei doctor --dir fr --wait 30     # until everything is well, at most 30 s

An alarm about the registry stands until you have looked into it and have moved its file away.

Exit codes: 0 all is well, 1 something is not, 2 there is no node in the directory, or one that has
joined no federation, or its settings are wrong, 3 the registry has lied, or may have.")]
pub struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Wait up to so many seconds until everything is well, also for a node that does not run yet
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true
    )]
    wait: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Fault> {
    let home = Home::new(&arguments.place.dir);
    begun(&arguments.place)?;
    Config::read(&home.settings(), environment()).map_err(wrong_use)?;
    say!("settings    in order");
    let looked = runtime()?.block_on(wait(arguments));
    let (status, mut problems) = looked.inspect_err(|_| {
        // A node does not start with a key that others can read, and cannot say so itself.
        for problem in check_keys(&home) {
            say!("problem     {problem}");
        }
    })?;
    print(&status);
    problems.extend(compare(&arguments.place, &status));
    problems.extend(check_files(&home));
    let alarms = alarms_in(&home.replica());
    problems.retain(|problem| !alarms.iter().any(|alarm| alarm.to_string() == *problem));
    if problems.is_empty() && alarms.is_empty() {
        say!("\nall is well");
        return Ok(());
    }
    say!("");
    for problem in &problems {
        say!("problem     {problem}");
    }
    if !alarms.is_empty() {
        return Err(report(&alarms, &status.root_fingerprint));
    }
    Err(Fault::new(
        Blame::Internal,
        format!(
            "{} found",
            counted(problems.len() as u64, "problem", "problems")
        ),
    ))
}

/// The alarms about the registry, and what to do with them.
fn report(alarms: &[Alarm], root: &str) -> Fault {
    for alarm in alarms {
        say!("alarm       {}: {}", alarm.kind, alarm.text);
        match &alarm.proof {
            Some(proof) => say!(
                "            proved; check it with: jingwei verify {} --root {root}",
                shell::path(proof)
            ),
            None => {
                say!("            not proved: it may be the fault of somebody else, or of a clock")
            }
        }
        say!(
            "            stands until you move {} away",
            shell::path(&alarm.file)
        );
    }
    let proved = alarms.iter().any(|alarm| alarm.proof.is_some());
    let (message, advice) = if alarms.iter().all(|alarm| alarm.kind == SHORT_TAKE_OVER) {
        (
            "a take-over of the registry leaves entries out",
            "tell the keepers of the root keys: they must take over again, from a replica as long as this node's",
        )
    } else if proved {
        (
            "the registry has lied",
            "show the proofs to the root's keepers: the registry's keys can be replaced",
        )
    } else {
        (
            "the registry may have lied",
            "ask other members what they see, and the registry's keepers why",
        )
    };
    Fault::new(Blame::Unverified, message).advise(advice)
}

/// What the registry has shown to others; a split view becomes an alarm of the node.
fn compare(place: &Place, status: &StatusResponse) -> Vec<String> {
    if status
        .agencies
        .iter()
        .all(|agency| !agency.stopped.is_empty())
    {
        say!("histories   not compared: other nodes refuse one whose agencies take no part");
        return Vec::new();
    }
    let compared = runtime().and_then(|runtime| {
        runtime.block_on(async {
            let mut node = connect(place).await?;
            received(node.compare(CompareRequest {}).await)
        })
    });
    let peers = match compared {
        Ok(answer) => answer.peers,
        Err(fault) => return vec![fault.to_string()],
    };
    let met = peers.iter().filter(|peer| peer.problem.is_empty()).count();
    say!(
        "histories   {met} of {} been shown the same log",
        counted(peers.len() as u64, "other node has", "other nodes have")
    );
    for peer in peers.iter().filter(|peer| !peer.problem.is_empty()) {
        // Others may be down: that is no problem of this node.
        say!("            {}: {}", peer.address, peer.problem);
    }
    Vec::new()
}

async fn wait(arguments: &Arguments) -> Result<(StatusResponse, Vec<String>), Fault> {
    let began = Instant::now();
    let patience = Duration::from_secs(arguments.wait);
    let mut told = false;
    loop {
        let looked = look(&arguments.place).await;
        let over = match &looked {
            Ok((_, problems)) => problems.is_empty(),
            // A directory that holds no member of a federation becomes none by waiting.
            Err(fault) => fault.blame == Blame::WrongUse,
        };
        if over || began.elapsed() >= patience {
            return looked;
        }
        if let Err(fault) = looked
            && !told
            && began.elapsed() >= SILENCE
        {
            told = true;
            tell(&fault, patience);
        }
        // A node that is starting has no socket yet on which it could tell when it is ready.
        tokio::time::sleep(LOOK).await;
    }
}

/// Says what is waited for while there is no node to ask.
fn tell(fault: &Fault, patience: Duration) {
    eprintln!(
        "{}: waiting up to {} s for it",
        fault.message,
        patience.as_secs()
    );
    if let Some(advice) = &fault.advice {
        eprintln!("  {advice}");
    }
}

/// The node's own word, and what is wrong with it.
async fn look(place: &Place) -> Result<(StatusResponse, Vec<String>), Fault> {
    let home = Home::new(&place.dir);
    // Looked up before the node is asked and again after it: what is entered in between waits no
    // more, and what begins in between is under way.
    let before = signed(&home);
    let status = status(place).await?;
    let mut problems = problems(&status, place);
    problems.extend(waiting(&status, &home, &before));
    let told = Some(status.problem.clone()).filter(|problem| !problem.is_empty());
    match registry_size(&status.registry).await {
        Ok(size) if size > status.log_size => {
            problems.push(format!(
                "the registry's log has {}, of which {} verified here so far",
                entries(size),
                counted(status.log_size, "is", "are")
            ));
            problems.extend(told);
        }
        // What the node met with when it last tried is over: the registry answers, and the node
        // has all that it holds.
        Ok(_) => {}
        Err(error) => problems.push(format!(
            "{}; if another registry has taken over: jingwei follow http://HOST:PORT --dir {}",
            told.unwrap_or(error),
            shell::path(&place.dir)
        )),
    }
    Ok((status, problems))
}

/// The datasets of which a version is signed, and not known to be entered.
fn signed(home: &Home) -> Vec<String> {
    let all = Record::all(home).into_iter();
    let waiting = all.filter(|(agency, name)| {
        let record = Record::load(home, agency, name);
        record.is_ok_and(|record| record.waits())
    });
    waiting
        .map(|(agency, name)| format!("{agency}/{name}"))
        .collect()
}

/// What is signed for publication, and not known to be entered, of the agencies that the node
/// hosts: beside what somebody publishes right now, and what was not signed `before`.
fn waiting(status: &StatusResponse, home: &Home, before: &[String]) -> Vec<String> {
    let mut waiting = Vec::new();
    for (agency, name) in Record::all(home) {
        let (id, dataset) = (agency.to_string(), format!("{agency}/{name}"));
        if !status.agencies.iter().any(|hosted| hosted.id == id) {
            continue;
        }
        let under_way = status.publishing == dataset || !before.contains(&dataset);
        match Record::load(home, &agency, &name) {
            Ok(record) if under_way || !record.waits() => {}
            Ok(_) => waiting.push(format!(
                "the publication of {dataset} is not entered yet: the node submits it again; if it stays so, publish the file once more"
            )),
            Err(fault) => waiting.push(fault.to_string()),
        }
    }
    waiting
}

/// How large the registry says its log is.
async fn registry_size(address: &str) -> Result<u64, String> {
    let source = Source::new(address).map_err(|error| error.to_string())?;
    let note = source
        .checkpoint(0, Duration::ZERO)
        .await
        .map_err(|error| error.to_string())?;
    let size = note.lines().nth(1).and_then(|line| line.parse().ok());
    size.ok_or_else(|| format!("{address} does not show a checkpoint"))
}

/// Keys, data files and journals, as they stand in the node's directory.
fn check_files(home: &Home) -> Vec<String> {
    let mut problems = check_keys(home);
    match check_data(home) {
        Ok(files) => say!("data        every file has the digest that is its name; files: {files}"),
        Err(found) => problems.extend(found),
    }
    match check_journals(home) {
        Ok(records) => say!("journals    every record is as its log has it; records: {records}"),
        Err(found) => problems.extend(found),
    }
    problems
}

/// The keys, which stand in the node's directory whether it runs or not.
fn check_keys(home: &Home) -> Vec<String> {
    let mut problems = exposed(home);
    match HostedAgency::load_all(home) {
        Ok(agencies) if problems.is_empty() => {
            say!("keys        private; agencies hosted: {}", agencies.len());
        }
        Ok(_) => {}
        Err(error) => {
            let told = error.to_string();
            if !problems.contains(&told) {
                problems.push(told);
            }
        }
    }
    problems
}

/// The key files that others than their owner can read, each with the remedy.
fn exposed(home: &Home) -> Vec<String> {
    let dirs = list(&home.agencies()).into_iter().chain([home.keys()]);
    let mut paths: Vec<PathBuf> = dirs.flat_map(|dir| list(&dir)).collect();
    paths.sort();
    let keys = paths.into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name == "secret" || (name.ends_with(".pem") && !name.ends_with(".cert.pem"))
    });
    let exposed = keys.filter_map(|path| {
        let mode = std::fs::metadata(&path).ok()?.mode() & 0o7777;
        let private = mode & 0o077 == 0;
        (!private).then(|| KeyFileError::Exposed { path, mode }.to_string())
    });
    exposed.collect()
}

/// What is in a directory; nothing if it cannot be read.
fn list(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn check_data(home: &Home) -> Result<usize, Vec<String>> {
    let store =
        DatasetStore::open(&home.data(), Disk::new()).map_err(|error| vec![error.to_string()])?;
    let files = store.list().map_err(|error| vec![error.to_string()])?;
    let broken: Vec<String> = files
        .iter()
        .filter_map(|file| store.verified(file).err())
        .map(|error| error.to_string())
        .collect();
    if broken.is_empty() {
        Ok(files.len())
    } else {
        Err(broken)
    }
}

fn check_journals(home: &Home) -> Result<usize, Vec<String>> {
    let years = list(&home.journal())
        .into_iter()
        .flat_map(|agency| list(&agency));
    let (mut records, mut broken) = (0, Vec::new());
    for year in years {
        match journal::read_all(&year) {
            Ok(read) => records += read.len(),
            Err(error) => broken.push(error.to_string()),
        }
    }
    if broken.is_empty() {
        Ok(records)
    } else {
        Err(broken)
    }
}

async fn status(place: &Place) -> Result<StatusResponse, Fault> {
    let mut node = connect(place).await?;
    received(node.status(StatusRequest {}).await)
}

fn print(status: &StatusResponse) {
    let time = |seconds: i64| match Time::from_seconds(seconds) {
        Some(time) if seconds > 0 => time.to_string(),
        _ => "never".to_owned(),
    };
    say!(
        "node        version {} at {}",
        status.version,
        status.address
    );
    say!("federation  {}", status.federation);
    say!("root        {}", status.root_fingerprint);
    say!(
        "registry    {}, last heard {}",
        status.registry,
        time(status.registry_seen)
    );
    say!(
        "log         {} verified, head co-signed {}",
        entries(status.log_size),
        time(status.log_time)
    );
    for cosigner in &status.cosigners {
        match cosigner.time {
            0 => say!(
                "not signed  by {} so far, which may sign a later checkpoint",
                cosigner.name
            ),
            signed => say!("co-signed   {} by {}", time(signed), cosigner.name),
        }
    }
    if !status.witness.is_empty() {
        say!("witness     {}", status.witness);
    }
    if !status.publishing.is_empty() {
        say!("publishing  {}, under way", status.publishing);
    }
    for agency in &status.agencies {
        let state = match (agency.enrolled, agency.announced) {
            _ if !agency.stopped.is_empty() => agency.stopped.as_str(),
            (true, true) => "enrolled and announced",
            (true, false) => "enrolled, not announced yet",
            (false, _) => "not enrolled yet",
        };
        say!(
            "agency      {} ({}), level {}, {}: {state}",
            agency.id,
            agency.name,
            agency.level,
            agency.territory
        );
    }
}

fn problems(status: &StatusResponse, place: &Place) -> Vec<String> {
    let mut problems = status.alarms.clone();
    for agency in &status.agencies {
        if !agency.enrolled {
            let file = Home::new(&place.dir)
                .dir()
                .join(format!("{}.enrolment", agency.id));
            let enroller = agency.id.parse().map(|id| enroller(&id));
            problems.push(format!(
                "{} is not enrolled: give {} to {}",
                agency.id,
                shell::path(&file),
                enroller.unwrap_or_default()
            ));
        } else if !agency.announced && agency.stopped.is_empty() {
            problems.push(format!(
                "{} is not announced: others cannot find this node yet",
                agency.id
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use jingwei_proto::digest::Digest;
    use jingwei_proto::dsse::Envelope;
    use jingwei_proto::key::SecretKey;
    use jingwei_proto::wire::node::HostedAgency;

    use super::*;
    use crate::publish::Staged;

    #[test]
    fn a_publication_under_way_is_no_problem() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let staged = Staged {
            envelope: Some(Envelope::sign(
                b"{}".to_vec(),
                &SecretKey::from_seed(&[7; 32]),
            )),
            ..Staged::new(Digest::of(b"rows"))
        };
        let record = Record {
            staged: Some(staged),
            ..Record::default()
        };
        let path = home.publication(&"aa".parse().unwrap(), &"places".parse().unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
        let status = |publishing: &str| StatusResponse {
            agencies: vec![HostedAgency {
                id: "aa".to_owned(),
                ..HostedAgency::default()
            }],
            publishing: publishing.to_owned(),
            ..StatusResponse::default()
        };
        let before = signed(&home);
        assert_eq!(before, ["aa/places"]);
        let problems = waiting(&status(""), &home, &before);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].contains("aa/places is not entered yet"));
        for other in ["aa/other", "aa/place"] {
            assert_eq!(waiting(&status(other), &home, &before).len(), 1);
        }
        assert!(waiting(&status("aa/places"), &home, &before).is_empty());
        // It began after the node had said what it publishes.
        assert!(waiting(&status(""), &home, &[]).is_empty());
    }
}
