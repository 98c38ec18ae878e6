//! The web sites whose pages may use this gateway. A browser says in `Origin` which site's page makes a request.
//! Other clients send none, and are not restricted here.

use http::HeaderMap;
use http::header::{HeaderValue, ORIGIN};

/// The value of the flag `--gateway-allowed-origins`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origins {
    /// Pages of no site may use it.
    #[default]
    None,
    /// Pages of every site may use it.
    Any,
    /// Pages of these origins may use it. An origin is a scheme, a host, and the port unless it is the scheme's own,
    /// as browsers write them.
    These(Vec<String>),
}

/// The error for an entry of the flag that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no origin: write https://app.example.com, with a port where it is not the scheme's own, or * for all"
)]
pub struct NotAnOrigin(String);

impl std::str::FromStr for Origins {
    type Err = NotAnOrigin;

    /// Parses a comma separated list of origins; `*` allows all, an empty text none. `Err` if an entry is no origin.
    fn from_str(text: &str) -> Result<Self, NotAnOrigin> {
        let parts: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .collect();
        match parts[..] {
            [] => Ok(Self::None),
            ["*"] => Ok(Self::Any),
            _ => parts
                .into_iter()
                .map(origin)
                .collect::<Result<_, _>>()
                .map(Self::These),
        }
    }
}

/// Parses one origin and writes it as browsers do: in lower case, without the scheme's own port.
fn origin(text: &str) -> Result<String, NotAnOrigin> {
    let wrong = || NotAnOrigin(text.to_owned());
    let origin = text.to_ascii_lowercase();
    let uri: http::Uri = origin.parse().map_err(|_| wrong())?;
    let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    let own_port = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    let bare = origin
        .split_once("://")
        .is_some_and(|(_, rest)| rest == authority.as_str());
    if !bare || authority.as_str().contains(['@', '*']) || uri.port_u16() == Some(own_port) {
        return Err(wrong());
    }
    Ok(origin)
}

impl Origins {
    /// Returns the origin of a request whose page may use this gateway. `None` if the request has no origin, `Err` if
    /// the page may not use the gateway.
    pub fn check<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, Refused> {
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(None);
        };
        let allowed = match self {
            Self::None => false,
            Self::Any => true,
            Self::These(these) => these.iter().any(|one| one.as_bytes() == origin.as_bytes()),
        };
        allowed.then_some(Some(origin)).ok_or(Refused)
    }
}

/// The error for a page whose origin is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pages of this origin may not use this gateway: see --gateway-allowed-origins")]
pub struct Refused;

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(flag: &str, origin: Option<&str>) -> bool {
        let origins: Origins = flag.parse().expect("origins");
        let mut headers = HeaderMap::new();
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().expect("a value"));
        }
        origins.check(&headers).is_ok()
    }

    #[test]
    fn only_pages_of_these_sites_and_whatever_is_no_browser_pass() {
        let two = "https://App.example.com, http://localhost:8080";
        let cases = [
            ("", None, true),
            ("", Some("https://app.example.com"), false),
            ("", Some("null"), false),
            ("*", Some("https://anything.example"), true),
            ("*", Some("null"), true),
            (two, None, true),
            (two, Some("https://app.example.com"), true),
            (two, Some("http://localhost:8080"), true),
            (two, Some("http://app.example.com"), false),
            (two, Some("https://app.example.com:8443"), false),
            (two, Some("https://app.example.com.evil.example"), false),
            (two, Some("http://localhost"), false),
            (two, Some("null"), false),
            (two, Some(""), false),
        ];
        for (flag, origin, expected) in cases {
            assert_eq!(allowed(flag, origin), expected, "{flag:?} {origin:?}");
        }
    }

    #[test]
    fn what_no_browser_would_ever_send_is_refused_at_the_start() {
        for wrong in [
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/chat",
            "https://app.example.com?x",
            "https://*.example.com",
            "https://me@app.example.com",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "ftp://app.example.com",
            "https://",
            "*, https://app.example.com",
        ] {
            assert!(wrong.parse::<Origins>().is_err(), "{wrong}");
        }
    }
}
