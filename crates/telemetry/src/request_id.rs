//! Reads and makes the header `x-request-id`, which names a call in the logs of every node that it passes, and to its
//! caller. A client may choose the id, so that its own logs and ours can be matched. Otherwise the gateway draws one
//! and returns it in the response's metadata.

use http::{HeaderMap, HeaderValue};

/// The header's name.
pub const REQUEST_ID: &str = "x-request-id";
/// The longest id that is accepted, in bytes.
const MAX_BYTES: usize = 64;

/// Returns the id in these headers. If there is none, or one that is unfit for logs, it draws one at random and puts it
/// into the headers.
pub fn ensure(headers: &mut HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get(REQUEST_ID).filter(|id| is_fit(id)) {
        return id.clone();
    }
    let drawn = format!("{:016x}", rand::random::<u64>());
    // Hexadecimal digits are always a valid header value.
    let drawn = HeaderValue::try_from(drawn).unwrap_or(HeaderValue::from_static("none"));
    headers.insert(REQUEST_ID, drawn.clone());
    drawn
}

/// Returns the id in these headers, for a span's field, or `None` if there is none, or one that is unfit for logs.
pub fn of(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID).filter(|id| is_fit(id))?;
    id.to_str().ok()
}

fn is_fit(id: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.as_bytes().iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ensured(id: Option<&str>) -> (String, HeaderMap) {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert(REQUEST_ID, id.parse().expect("a value"));
        }
        let id = ensure(&mut headers);
        (id.to_str().expect("text").to_owned(), headers)
    }

    #[test]
    fn a_clients_id_is_kept_and_what_logs_cannot_take_is_replaced() {
        let (id, headers) = ensured(Some("ios-7f.3_A"));
        assert_eq!((id.as_str(), of(&headers)), ("ios-7f.3_A", Some("ios-7f.3_A")));
        for bad in [None, Some(""), Some("a b"), Some("a\tb"), Some(&*"x".repeat(65))] {
            let (id, headers) = ensured(bad);
            assert_eq!(id.len(), 16, "{bad:?}");
            assert_eq!(of(&headers), Some(id.as_str()), "{bad:?}");
        }
        assert_ne!(ensured(None).0, ensured(None).0);
    }
}
