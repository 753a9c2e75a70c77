//! The messages of the gRPC services, as prost types. Envelopes travel in them as bytes.

// Their documentation stands in the .proto files.
#![allow(missing_docs)]

/// `jingwei.registry.v1`
pub mod registry {
    include!(concat!(env!("OUT_DIR"), "/jingwei.registry.v1.rs"));
}

/// `jingwei.node.v1`
pub mod node {
    include!(concat!(env!("OUT_DIR"), "/jingwei.node.v1.rs"));
}
