//! Ids from the wire: parsed at the edge, with the field's name in the error.

use std::str::FromStr;

use tern_types::IdError;

use crate::ApiError;

/// A UUID string of a public request.
pub fn id<T: FromStr<Err = IdError>>(field: &'static str, text: &str) -> Result<T, ApiError> {
    text.parse()
        .map_err(|_| ApiError::invalid(field, "must be a UUID in its hyphenated form"))
}

/// The same where the field may be empty.
pub fn optional_id<T: FromStr<Err = IdError>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, ApiError> {
    if text.is_empty() {
        Ok(None)
    } else {
        id(field, text).map(Some)
    }
}

/// A string of at most `max` bytes.
pub fn text(field: &'static str, text: String, max: usize) -> Result<String, ApiError> {
    if text.len() > max {
        return Err(ApiError::invalid(
            field,
            &format!("must have at most {max} bytes"),
        ));
    }
    if text.contains('\0') {
        return Err(ApiError::invalid(field, "must not contain NUL"));
    }
    Ok(text)
}
