//! HTTP/2 frames made by hand (RFC 9113), for connections that stop half way.

/// The first bytes that a client sends.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The flag of a stream's last frame.
pub const END_STREAM: u8 = 0x1;
/// The flag of the last frame with header fields.
pub const END_HEADERS: u8 = 0x4;
/// The setting that says how many bytes of a stream the client accepts before it allows more.
pub const INITIAL_WINDOW_SIZE: u16 = 0x4;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const SETTINGS: u8 = 0x4;

/// Returns a frame with the client's settings.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let pairs = settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat());
    frame(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>())
}

/// Returns a frame with the header fields that begin a stream.
pub fn headers(stream: u32, fields: &[(String, String)], flags: u8) -> Vec<u8> {
    let block: Vec<u8> = fields
        .iter()
        .flat_map(|(name, value)| field(name, value))
        .collect();
    frame(HEADERS, flags, stream, &block)
}

/// Returns a frame with bytes of a stream.
pub fn data(stream: u32, bytes: &[u8], flags: u8) -> Vec<u8> {
    frame(DATA, flags, stream, bytes)
}

/// Returns the header fields of a gRPC call. An empty `authorization` is left out.
pub fn call(path: &str, authorization: &str) -> Vec<(String, String)> {
    let fields = [
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", authorization),
    ];
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Encodes a "Literal Header Field without Indexing — New Name" (RFC 7541, section 6.2.2), without Huffman coding.
fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        length(&mut field, text.len());
        field.extend(text.as_bytes());
    }
    field
}

/// Appends an integer with a prefix of 7 bits (RFC 7541, section 5.1).
fn length(out: &mut Vec<u8>, length: usize) {
    const PREFIX: usize = 0x7f;
    if length < PREFIX {
        return out.push(length as u8);
    }
    out.push(PREFIX as u8);
    let mut rest = length - PREFIX;
    while rest >= 0x80 {
        out.push((rest % 0x80) as u8 | 0x80);
        rest /= 0x80;
    }
    out.push(rest as u8);
}
