//! The agencies that a node hosts: their keys, and what they say of themselves.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jingwei_proto::id::AgencyId;
use jingwei_proto::key::SecretKey;
use jingwei_proto::statement::{Role, Territory};
use jingwei_registry::disk::Disk;
use jingwei_registry::enrolment::Profile;
use jingwei_registry::keyfile::{self, KeyFileError};
use serde::{Deserialize, Serialize};

use crate::home::Home;
use crate::signing::SigningKey;

/// An agency whose keys this node holds.
#[derive(Debug)]
pub struct HostedAgency {
    /// What it says of itself.
    pub profile: Profile,
    /// Signs statements and messages.
    pub signing: SigningKey,
    /// Signs its journal's checkpoints.
    pub journal: Arc<SecretKey>,
    /// Co-signs others' logs.
    pub witness: Arc<SecretKey>,
}

/// A hosted agency could not be made or loaded.
#[derive(Debug, thiserror::Error)]
pub enum AgencyError {
    /// It is there already.
    #[error("{0} is hosted here already, in {1}")]
    Exists(AgencyId, PathBuf),
    /// A key file is missing, broken or readable by others.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The profile cannot be read or written.
    #[error("{path}: {reason}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredProfile {
    id: AgencyId,
    name: String,
    level: u64,
    territory: Territory,
    #[serde(default)]
    roles: Vec<Role>,
}

/// The file of what an agency says of itself, in its directory.
const PROFILE: &str = "profile.json";

/// A profile as its file holds it.
fn stored(profile: &Profile) -> Result<Vec<u8>, String> {
    let stored = StoredProfile {
        id: profile.id.clone(),
        name: profile.name.clone(),
        level: profile.level,
        territory: profile.territory.clone(),
        roles: profile.roles.clone(),
    };
    let mut text = serde_json::to_vec_pretty(&stored).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

impl HostedAgency {
    /// The agency's id.
    pub fn id(&self) -> &AgencyId {
        &self.profile.id
    }

    /// Makes keys for a new agency in a node's directory.
    pub fn create(home: &Home, profile: Profile) -> Result<HostedAgency, AgencyError> {
        let dir = home.agency(&profile.id);
        let path = dir.join(PROFILE);
        if path.exists() {
            return Err(AgencyError::Exists(profile.id, dir));
        }
        keyfile::create_private_dir(&dir)?;
        let agency = HostedAgency {
            signing: SigningKey::load_or_create(&dir)?,
            journal: Arc::new(keyfile::load_or_create(&dir.join("journal.pem"))?),
            witness: Arc::new(keyfile::load_or_create(&dir.join("witness.pem"))?),
            profile,
        };
        // The profile comes last: with it the agency is there, without it nothing is.
        let text = stored(&agency.profile).map_err(|reason| AgencyError::Profile {
            path: path.clone(),
            reason,
        })?;
        keyfile::create_private(&path, &text)?;
        Ok(agency)
    }

    /// The agency `id`, if the node in `home` hosts it.
    pub fn find(home: &Home, id: &AgencyId) -> Result<Option<HostedAgency>, AgencyError> {
        let dir = home.agency(id);
        match dir.join(PROFILE).exists() {
            true => HostedAgency::load(&dir).map(Some),
            false => Ok(None),
        }
    }

    /// Replaces what the agency says of itself; its id and its keys stay. Only for an agency
    /// that is not enrolled: the federation has been told what an enrolled one is.
    pub fn correct(&mut self, home: &Home, profile: Profile) -> Result<(), AgencyError> {
        let path = home.agency(&profile.id).join(PROFILE);
        let wrong = |reason: String| AgencyError::Profile {
            path: path.clone(),
            reason,
        };
        Disk::new()
            .private()
            .replace(&path, &stored(&profile).map_err(wrong)?)
            .map_err(|error| wrong(error.to_string()))?;
        self.profile = profile;
        Ok(())
    }

    /// All agencies that the node in `home` hosts, by id.
    pub fn load_all(home: &Home) -> Result<Vec<HostedAgency>, AgencyError> {
        let mut dirs: Vec<PathBuf> = HostedAgency::dirs(home).collect();
        dirs.sort();
        dirs.iter().map(|dir| HostedAgency::load(dir)).collect()
    }

    /// Whether the node in `home` hosts any.
    pub fn any(home: &Home) -> bool {
        HostedAgency::dirs(home).next().is_some()
    }

    fn dirs(home: &Home) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(home.agencies()).into_iter().flatten();
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|dir| dir.join(PROFILE).exists())
    }

    fn load(dir: &Path) -> Result<HostedAgency, AgencyError> {
        let path = dir.join(PROFILE);
        let wrong = |reason: String| AgencyError::Profile {
            path: path.clone(),
            reason,
        };
        let text = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
        let stored: StoredProfile =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        Ok(HostedAgency {
            profile: Profile {
                id: stored.id,
                name: stored.name,
                level: stored.level,
                territory: stored.territory,
                roles: stored.roles,
            },
            signing: SigningKey::load(dir)?,
            journal: Arc::new(keyfile::load(&dir.join("journal.pem"))?),
            witness: Arc::new(keyfile::load(&dir.join("witness.pem"))?),
        })
    }
}
