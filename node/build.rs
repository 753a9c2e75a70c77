//! Generates the stubs of the node's services over the messages of `jingwei-proto`, and the
//! descriptions that reflection serves.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/proto/jingwei/node");
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["jingwei/node/v1/node.proto"], ["../proto/proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("node.fds"), files.encode_to_vec())?;
    // Only described here; the code for it comes with arrow-flight.
    let flight = protox::compile(["flight.proto"], ["proto"])?;
    std::fs::write(out.join("flight.fds"), flight.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".jingwei.node.v1", "::jingwei_proto::wire::node")
        .compile_fds(files)?;
    Ok(())
}
