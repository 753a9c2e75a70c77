//! Generates the stubs of the registry's service over the messages of `jingwei-proto`.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto/proto/jingwei/registry");
    let files = protox::compile(["jingwei/registry/v1/registry.proto"], ["../proto/proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("registry.fds"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".jingwei.registry.v1", "::jingwei_proto::wire::registry")
        .compile_fds(files)?;
    Ok(())
}
