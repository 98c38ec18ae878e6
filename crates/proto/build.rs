//! Compiles the protos in `proto/` without protoc, and writes what the crate includes: the code, the descriptors, and
//! the list of streaming methods.

use std::path::PathBuf;

/// The value of the enum `FieldDescriptorProto.Type` for a field of bytes, TYPE_BYTES.
const TYPE_BYTES: i32 = 12;

/// The fields, each with its message, that the generated code leaves encoded, which makes no difference on
/// the wire. So a message goes into the chat's log as it came, and out again as it was stored, including
/// fields that this version does not know.
const KEPT_ENCODED: [(&str, &str); 3] = [
    ("SendMessage", "envelope"),
    ("SendMessageRequest", "envelope"),
    ("Entry", "content"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The directory is looked up when the script runs, because a build script that was copied with a target directory
    // has to compile the protos beside the copy.
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files: Vec<PathBuf> = ["tern/v1", "tern/internal/v1"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(root.join(dir)).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    let descriptors = protox::compile(&files, [&root])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // These are the paths of all methods that stream in either direction.
    let services = descriptors
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)));
    let streaming: Vec<String> = services
        .flat_map(|(package, service)| {
            let streams = service.method.iter();
            let streams = streams.filter(|method| method.client_streaming() || method.server_streaming());
            streams.map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect();
    std::fs::write(out.join("streaming.rs"), format!("&{streaming:?}"))?;
    std::fs::write(out.join("descriptors.bin"), prost_bytes(&descriptors))?;
    let mut code = descriptors;
    for message in code.file.iter_mut().flat_map(|file| &mut file.message_type) {
        let name = message.name().to_owned();
        for field in &mut message.field {
            if KEPT_ENCODED.contains(&(&name, field.name())) {
                (field.r#type, field.type_name) = (Some(TYPE_BYTES), None);
            }
        }
    }
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::StrictCodec")
        .compile_fds(code)?;
    Ok(())
}

fn prost_bytes(descriptors: &impl prost::Message) -> Vec<u8> {
    descriptors.encode_to_vec()
}
