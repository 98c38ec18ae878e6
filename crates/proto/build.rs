//! Compiles `proto/` without protoc.

use std::path::PathBuf;

/// `FieldDescriptorProto.TYPE_BYTES`.
const TYPE_BYTES: i32 = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked for when it runs: a build script that was copied with a target directory compiles the protos beside it.
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
    // Paths of the methods that are streams, either way.
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
    // A message goes into the log as it came, with what this version does not know: of a unary request too, the envelope stays
    // bytes. On the wire that is the same. (Of a stream's frames, `raw::ClientFrame` does it.)
    let mut code = descriptors;
    let messages = code.file.iter_mut().flat_map(|file| &mut file.message_type);
    let sends = messages.filter(|message| message.name() == "SendMessageRequest");
    let fields = sends.flat_map(|message| &mut message.field);
    for envelope in fields.filter(|field| field.name() == "envelope") {
        (envelope.r#type, envelope.type_name) = (Some(TYPE_BYTES), None);
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
