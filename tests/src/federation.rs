//! A federation in a directory of its own: founded, joined, enrolled and running.

use tempfile::TempDir;

use crate::node::Node;
use crate::registry::Registry;

/// A running registry and the directory in which its nodes are made.
pub struct Federation {
    /// The registry.
    pub registry: Registry,
    /// The directory; it vanishes with the federation.
    pub dir: TempDir,
}

impl Federation {
    /// Founds a federation and starts its registry.
    pub fn start() -> Federation {
        let dir = tempfile::Builder::new()
            .prefix("jingwei-")
            .tempdir()
            .expect("a temporary directory");
        let mut registry = Registry::found(&dir.path().join("registry"), "test");
        registry.start();
        Federation { registry, dir }
    }

    /// A running node of national agencies, enrolled and announced.
    pub fn node(&self, name: &str, agencies: &[&str]) -> Node {
        let mut node = self.joined(name, agencies);
        for agency in agencies {
            self.registry.enrol(&node.proposal(agency)).ok();
        }
        node.start();
        node.until_announced();
        node
    }

    /// A node of national agencies that has joined and does not run.
    pub fn joined(&self, name: &str, agencies: &[&str]) -> Node {
        let node = Node::new(self.dir.path(), name);
        for agency in agencies {
            node.init(agency, 1, "test@1:A", &[]).ok();
        }
        self.join(&node).ok();
        node
    }

    /// A node of one agency below another that has joined and does not run.
    pub fn joined_below(&self, name: &str, agency: &str) -> Node {
        let node = Node::new(self.dir.path(), name);
        node.init(agency, 2, "test@1:X<A", &[]).ok();
        self.join(&node).ok();
        node
    }

    /// `jingwei join` of a node to this federation.
    pub fn join(&self, node: &Node) -> crate::Ran {
        node.run(&[
            "join",
            &self.registry.url(),
            "--root",
            &self.registry.fingerprint,
        ])
    }

    /// Waits until every node sees all that the registry holds now.
    #[track_caller]
    pub fn settle(&self, nodes: &[&Node]) {
        let size = crate::reading::parse_checkpoint(
            &std::fs::read_to_string(self.registry.dir.join("log/checkpoint"))
                .expect("a published checkpoint"),
        )
        .1;
        for node in nodes {
            node.until_entry(size - 1);
        }
    }
}
