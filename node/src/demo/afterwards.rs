//! After the tour: what to type in another terminal while the federation stays up.

use std::path::Path;

use jingwei_registry::fault::Fault;
use jingwei_registry::shell;

use super::directory::Directory;
use super::federation::Federation;
use super::proof;
use super::registry::failed;
use super::screen::Screen;

/// The highest temperature of each month in two cities, brought to one unit:
/// as near to like for like as hourly reports come.
const QUESTION: &str = "SELECT n.month, round(n.high, 1) AS new_york, s.high AS seattle \
FROM (SELECT month, max((temp - 32) / 1.8) AS high FROM \"us.nyc\".weather_hour GROUP BY month) AS n \
JOIN (SELECT extract(month FROM date) AS month, max(temp_max) AS high FROM \"us.sea\".weather_day GROUP BY 1) AS s \
ON s.month = n.month ORDER BY n.month";

/// Prints the commands, exactly as they must be typed, and how to end.
pub fn tell(federation: &Federation, directory: &Directory, screen: &Screen) -> Result<(), Fault> {
    let program = std::env::current_exe().map_err(failed)?;
    screen.title("The federation stays up: try these in another terminal");
    for command in commands(federation, &program)? {
        screen.gap();
        // No margin: a line that is copied whole must do.
        screen.command(&command);
    }
    screen.gap();
    if directory.is_temporary() {
        screen.say("Ctrl-C ends the demo and removes its directory; ‘demo --dir DIR’ keeps it.");
        return Ok(());
    }
    screen.say("Ctrl-C ends the demo.");
    tell_kept(federation, screen)
}

/// What is left when the demo ends with the tour, and how to get a federation that stays up.
pub fn tell_ended(
    federation: &Federation,
    directory: &Directory,
    screen: &Screen,
) -> Result<(), Fault> {
    if directory.is_temporary() {
        screen.say("Its directory is removed. ‘jingwei demo’ without --once stays up, with commands to try; with --dir DIR it keeps everything.");
        return Ok(());
    }
    tell_kept(federation, screen)
}

fn tell_kept(federation: &Federation, screen: &Screen) -> Result<(), Fault> {
    screen.say("The directory is kept; what is in it can be served again, one by one:");
    for witness in federation.registry.witnesses() {
        let dir = federation.dir().join(&witness.name);
        screen.say(&format!(
            "jingwei-registry witness --dir {}",
            shell::path(&dir)
        ));
    }
    screen.say(&format!(
        "jingwei-registry serve --dir {}",
        shell::path(federation.registry.dir())
    ));
    screen.say(&format!(
        "jingwei serve --dir {}",
        shell::path(&federation.node_dir("fr")?)
    ));
    Ok(())
}

fn commands(federation: &Federation, program: &Path) -> Result<[String; 3], Fault> {
    let program = shell::path(program);
    let city = shell::path(&federation.node_dir("us.sea")?);
    let elsewhere = shell::path(&federation.node_dir("cn.mca")?);
    let evidence = shell::path(&proof::saved(federation));
    Ok([
        format!(
            "{program} sql --dir {city} --agency us.sea {}",
            shell::word(QUESTION)
        ),
        format!("{program} find --dir {elsewhere} population"),
        format!(
            "{program} verify {evidence} --root {}",
            federation.registry.fingerprint()
        ),
    ])
}
