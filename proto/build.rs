//! Compiles the `.proto` files: messages and services by tonic, their JSON form by pbjson. Takes no protoc.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: [&str; 2] = ["usercenter/v1/usercenter.proto", "gateway/v1/gateway.proto"];

/// The package of the objects of the apiserver. Their JSON is Kubernetes', not that of protobuf.
const OBJECTS: &str = ".apps.v1beta1";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    // The comments are the descriptions of the OpenAPI document.
    compiler.include_imports(true).include_source_info(true).open_files(FILES)?;
    let descriptors = compiler.encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), &descriptors)?;
    tonic_prost_build::configure()
        // A transport is whoever's that serves or calls.
        .build_transport(false)
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .btree_map(OBJECTS)
        .message_attribute(OBJECTS, "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(OBJECTS, "#[serde(rename_all = \"camelCase\", default)]")
        .field_attribute(OBJECTS, "#[serde(skip_serializing_if = \"crate::is_default\")]")
        .compile_fds(compiler.file_descriptor_set())?;
    pbjson_build::Builder::new()
        .register_descriptors(&descriptors)?
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .build(&[".usercenter.v1", ".gateway.v1"])?;
    Ok(())
}
