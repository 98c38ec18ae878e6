//! A place in a distributed trace, as the W3C header `traceparent` writes it.

use std::fmt;

/// The length of a `traceparent` of version 00 in characters: version, trace id, span id, flags and three dashes.
const LEN: usize = 55;
/// The bit of the flags that is set if the trace is recorded.
const SAMPLED: u8 = 1;

/// A span of a trace. It is copied along with each item on its way through the nodes, and allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The id of the trace.
    pub trace_id: [u8; 16],
    /// The id of the span.
    pub span_id: [u8; 8],
    /// True if the trace is recorded, which the caller decided.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`. `None` if the text is not valid. Of versions above 00, only the fields that version 00
    /// has are read.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let text = traceparent.as_bytes();
        let (known, rest) = text.split_at_checked(LEN)?;
        let version: [u8; 1] = hex(&known[..2])?;
        let complete = match version {
            [0xff] => false,
            [0] => rest.is_empty(),
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let dashes = known[2] == b'-' && known[35] == b'-' && known[52] == b'-';
        let (trace_id, span_id) = (hex(&known[3..35])?, hex(&known[36..52])?);
        let [flags]: [u8; 1] = hex(&known[53..])?;
        let valid = complete && dashes && trace_id != [0; 16] && span_id != [0; 8];
        valid.then_some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }

    /// Reads a `traceparent` like [`Self::parse`], but returns `None` also if the trace is not recorded.
    pub fn sampled(traceparent: &str) -> Option<Self> {
        Self::parse(traceparent).filter(|context| context.sampled)
    }
}

/// Writes the context as a `traceparent` of version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            u128::from_be_bytes(self.trace_id),
            u64::from_be_bytes(self.span_id),
            u8::from(self.sampled)
        )
    }
}

/// Reads `N` bytes from pairs of hexadecimal digits. `None` if a digit is not one, or is in upper case.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written_as_it_was() {
        let kept = TraceContext::sampled(KEPT).expect("a context");
        assert_eq!((kept.trace_id[0], kept.span_id[7]), (0x0a, 0x31));
        assert_eq!(kept.to_string(), KEPT);
        let dropped = KEPT.replace("-01", "-00");
        assert_eq!(
            TraceContext::parse(&dropped).map(|it| it.to_string()),
            Some(dropped.clone())
        );
        assert_eq!(TraceContext::sampled(&dropped), None);
        assert!(TraceContext::sampled(&KEPT.replace("-01", "-03")).is_some());
        assert!(TraceContext::sampled(&format!("{}-more", KEPT.replacen("00", "01", 1))).is_some());
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let none = [
            String::new(),
            "garbage".to_owned(),
            KEPT[..54].to_owned(),
            format!("{KEPT}-"),
            KEPT.to_uppercase(),
            KEPT.replace('-', "_"),
            KEPT.replacen("00", "ff", 1),
            KEPT.replacen("00", "0g", 1),
            KEPT.replace("b7ad6b7169203331", "0000000000000000"),
            KEPT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            "é".repeat(30),
        ];
        for text in none {
            assert_eq!(TraceContext::parse(&text), None, "{text}");
        }
    }
}
