//! Who takes part: eleven agencies of three countries and of several levels, on eight nodes.

use jingwei_registry::enrolment::{Profile, parse_territory};
use jingwei_registry::fault::{Blame, Fault};

use super::screen::Screen;

/// An agency of the demo.
pub struct Member {
    /// Its id; its superior's is what remains without the last label.
    pub id: &'static str,
    /// Its name for people.
    pub name: &'static str,
    /// 1 national to 5 township.
    pub level: u64,
    /// What it answers for, as the command line takes it.
    pub territory: &'static str,
    /// The node that hosts it, by the name of its directory.
    pub node: &'static str,
}

/// The agencies, superiors first.
pub const MEMBERS: [Member; 11] = [
    Member {
        id: "fr",
        name: "France",
        level: 1,
        territory: "insee@2026:FR",
        node: "fr",
    },
    Member {
        id: "cn",
        name: "China 中国",
        level: 1,
        territory: "gb2260@2023:CN",
        node: "cn",
    },
    Member {
        id: "us",
        name: "United States",
        level: 1,
        territory: "fips@2020:US",
        node: "us",
    },
    // National bodies under a government are of its level and answer for the whole country.
    Member {
        id: "fr.communes",
        name: "Register of communes",
        level: 1,
        territory: "insee@2026:FR",
        node: "fr.communes",
    },
    Member {
        id: "fr.groups",
        name: "Register of groupings of communes",
        level: 1,
        territory: "insee@2026:FR",
        node: "fr.groups",
    },
    Member {
        id: "fr.bre",
        name: "Bretagne",
        level: 2,
        territory: "insee@2026:53<FR",
        node: "fr.bre",
    },
    Member {
        id: "cn.stats",
        name: "Statistics 统计",
        level: 1,
        territory: "gb2260@2023:CN",
        node: "cn",
    },
    Member {
        id: "cn.mca",
        name: "Civil affairs 民政",
        level: 1,
        territory: "gb2260@2023:CN",
        node: "cn.mca",
    },
    // New York stands above its five boroughs, each of which is a county, so it is prefectural.
    Member {
        id: "us.nyc",
        name: "New York City",
        level: 3,
        territory: "fips@2020:36005<36<US,36047<36<US,36061<36<US,36081<36<US,36085<36<US",
        node: "us",
    },
    // Seattle is a place (53-63000) within one county, King (53033): a level below it.
    Member {
        id: "us.sea",
        name: "Seattle",
        level: 5,
        territory: "fips@2020:53-63000<53033<53<US",
        node: "us",
    },
    Member {
        id: "fr.bre.35",
        name: "Ille-et-Vilaine",
        level: 3,
        territory: "insee@2026:35<53",
        node: "fr.bre.35",
    },
];

/// The nodes, by the names of their directories.
pub const NODES: [&str; 8] = [
    "fr",
    "fr.communes",
    "fr.groups",
    "fr.bre",
    "fr.bre.35",
    "cn",
    "cn.mca",
    "us",
];

impl Member {
    /// What it says of itself when it asks to be enrolled.
    pub fn profile(&self) -> Result<Profile, Fault> {
        let wrong = |error: String| Fault::new(Blame::Internal, format!("{}: {error}", self.id));
        Ok(Profile {
            id: self.id.parse().map_err(|error| wrong(format!("{error}")))?,
            name: self.name.to_owned(),
            level: self.level,
            territory: parse_territory(self.territory).map_err(wrong)?,
            roles: Vec::new(),
        })
    }

    /// The id of the agency that enrols it; none for those that the root enrols.
    pub fn superior(&self) -> Option<&'static str> {
        self.id.rsplit_once('.').map(|(superior, _)| superior)
    }

    /// How many agencies stand above it.
    pub fn depth(&self) -> usize {
        self.id.matches('.').count()
    }
}

/// The member with this id.
pub fn member(id: &str) -> Result<&'static Member, Fault> {
    MEMBERS
        .iter()
        .find(|member| member.id == id)
        .ok_or_else(|| Fault::new(Blame::Internal, format!("the demo has no agency {id}")))
}

/// Says what is about to start.
pub fn introduce(screen: &Screen) {
    screen.title("Jingwei 经纬: a federation on this machine");
    screen.say(&format!(
        "Starting a registry and {} nodes for {} agencies, in one process, on free ports of 127.0.0.1.",
        NODES.len(),
        MEMBERS.len()
    ));
    screen.say("The agencies are played here; the data that they publish are real.");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agency_has_a_node_and_lies_within_its_superior() {
        for each in &MEMBERS {
            let profile = each.profile().unwrap();
            assert!(NODES.contains(&each.node), "{}", each.id);
            assert_eq!(
                profile.id.superior().map(|id| id.to_string()).as_deref(),
                each.superior()
            );
            if let Some(superior) = each.superior() {
                let above = member(superior).unwrap().profile().unwrap();
                assert!(
                    profile.territory.lies_within(&above.territory),
                    "{}",
                    each.id
                );
                assert!(profile.level >= above.level, "{}", each.id);
            }
        }
        for node in NODES {
            assert!(MEMBERS.iter().any(|member| member.node == node), "{node}");
        }
    }
}
