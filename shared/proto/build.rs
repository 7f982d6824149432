//! Generates the messages and services of `proto/`; protox compiles them, so no `protoc` is needed.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let public = ["truenow/v1/ingest.proto", "truenow/v1/log.proto", "truenow/v1/query.proto"];
    let descriptors = protox::compile(public, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("truenow_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    // Apart from the others, so that reflection tells clients nothing of what is not for them.
    let internal = [
        "truenow/internal/v1/catalog.proto",
        "truenow/internal/v1/checkpoints.proto",
        "truenow/internal/v1/dead_letters.proto",
        "truenow/internal/v1/error.proto",
        "truenow/internal/v1/hot_tier.proto",
        "truenow/internal/v1/node_state.proto",
    ];
    let descriptors = protox::compile(internal, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
