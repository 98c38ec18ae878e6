//! Values that a field should not hold.

use bytes::Bytes;
use prost_reflect::{Kind, Value};
use tern_types::RequestId;
use tern_types::limits::{MAX_BODY_BYTES, MAX_ENVELOPE_BYTES, MAX_GROUP_MEMBERS};

use crate::SQL;
use crate::descriptors::Leaf;

/// The description of a well-formed id that does not exist.
pub const NOTHING: &str = "the id of nothing";

/// The description of a text that is not one line.
pub const CONTROL: &str = "control characters";

/// A value and its description.
#[derive(Clone)]
pub struct Hostile {
    pub what: &'static str,
    pub value: Value,
    /// True if the value is no valid id, if the field is one for ids.
    pub no_id: bool,
}

/// Returns the values that this field should not hold, and some that are allowed but rare.
pub fn values(leaf: &Leaf) -> Vec<Hostile> {
    let mut values = one(&leaf.kind());
    if leaf.is_list() {
        let several = values
            .iter()
            .find(|hostile| hostile.what == NOTHING)
            .map(|hostile| vec![hostile.value.clone(); MAX_GROUP_MEMBERS + 1]);
        values.extend(several.map(|items| Hostile {
            what: "far too many",
            value: Value::List(items),
            no_id: false,
        }));
    }
    values
}

fn one(kind: &Kind) -> Vec<Hostile> {
    match kind {
        Kind::String => texts(),
        Kind::Bytes => plain([
            ("nothing", Value::Bytes(Bytes::new())),
            ("SQL", Value::Bytes(SQL.into())),
            ("every byte", Value::Bytes((0..=u8::MAX).collect())),
            ("too many bytes", Value::Bytes(vec![0; MAX_BODY_BYTES + 1].into())),
        ]),
        Kind::Bool => plain([("no", Value::Bool(false)), ("yes", Value::Bool(true))]),
        Kind::Enum(_) => {
            plain([0, 99, i32::MIN, i32::MAX].map(|n| ("an enum's number", Value::EnumNumber(n))))
        }
        Kind::Uint32 | Kind::Fixed32 => {
            plain([0, i32::MAX as u32, u32::MAX].map(|n| ("an unsigned number", Value::U32(n))))
        }
        Kind::Uint64 | Kind::Fixed64 => plain(
            [0, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX]
                .map(|n| ("an unsigned number", Value::U64(n))),
        ),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            plain([i32::MIN, -1, i32::MAX].map(|n| ("a signed number", Value::I32(n))))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            plain([i64::MIN, -1, i64::MAX].map(|n| ("a signed number", Value::I64(n))))
        }
        Kind::Float => plain([f32::NAN, f32::INFINITY].map(|n| ("no number", Value::F32(n)))),
        Kind::Double => plain([f64::NAN, f64::INFINITY].map(|n| ("no number", Value::F64(n)))),
        Kind::Message(_) => Vec::new(),
    }
}

fn texts() -> Vec<Hostile> {
    let id = RequestId::random().to_string();
    let no_ids = [
        ("SQL", SQL.to_owned()),
        ("wildcards and escapes", r#"%_\'"$1 {} %s \0"#.to_owned()),
        (CONTROL, "\u{1}\t\r\n\u{1b}[2J\u{7f}\u{85}".to_owned()),
        ("NUL", "a\0b".to_owned()),
        (
            "the odd ends of Unicode",
            "\u{202e}\u{feff}\u{fffd}\u{10ffff}e\u{301}".to_owned(),
        ),
        ("a page token of no time", format!("{}.{id}", i64::MAX)),
        ("a page token of long ago", format!("{}.{id}", i64::MIN)),
        ("an id without its hyphens", id.replace('-', "")),
        ("a text over the limit of names", "x".repeat(300)),
        (
            "a text over the limit of envelopes",
            "x".repeat(MAX_ENVELOPE_BYTES + 1),
        ),
        ("a text over the limit of bodies", "x".repeat(MAX_BODY_BYTES + 1)),
    ];
    let ids = [
        ("nothing", String::new()),
        (NOTHING, id),
        (
            "the id of nobody",
            "00000000-0000-0000-0000-000000000000".to_owned(),
        ),
    ];
    let hostile = |no_id| {
        move |(what, text)| Hostile {
            what,
            value: Value::String(text),
            no_id,
        }
    };
    no_ids
        .map(hostile(true))
        .into_iter()
        .chain(ids.map(hostile(false)))
        .collect()
}

fn plain<const N: usize>(values: [(&'static str, Value); N]) -> Vec<Hostile> {
    let hostile = |(what, value)| Hostile {
        what,
        value,
        no_id: false,
    };
    values.map(hostile).into()
}
