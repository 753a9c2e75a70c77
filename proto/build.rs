//! Compiles the protocol's messages with protox, so that nobody needs protoc. The services'
//! stubs are generated where they are served.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        [
            "jingwei/registry/v1/registry.proto",
            "jingwei/node/v1/node.proto",
        ],
        ["proto"],
    )?;
    prost_build::Config::new().compile_fds(files)?;
    Ok(())
}
