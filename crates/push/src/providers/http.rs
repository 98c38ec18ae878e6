//! Makes the HTTP clients by which providers are called. There are three, because they differ in what they trust.
//!
//! | client | calls | HTTP | redirects | addresses |
//! |---|---|---|---|---|
//! | [`http2`] | APNs | 2 alone, over one connection each | none | any |
//! | [`negotiated`] | FCM, Google's access tokens | 2 or 1.1 | none | any |
//! | [`guarded`] | Web Push services, which devices name | 2 or 1.1 | none | public ones alone |
//!
//! The first two go through the operator's proxy if there is one, and the third through one of its own: a proxy resolves
//! the names, so there it is the proxy that has to refuse private addresses. Proxies of the environment are not used.
//!
//! A request that the server has certainly not processed (REFUSED_STREAM, or GOAWAY without an error) is sent again by
//! reqwest, at most twice. Any other failure is [`Delivery::Later`]. A request whose answer was lost may have been
//! processed; then the device gets the push twice, under the same tag.

use std::borrow::Cow;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Proxy, RequestBuilder, Url};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tern_types::{Clock, Timestamp};
use tokio::sync::Semaphore;

use super::addresses::is_public;
use crate::apps::Secret;
use crate::provider::Delivery;

/// The time that a request may take, with connecting and the answer's body.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// The time that connecting may take, so that a request that follows the connection still has some.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The time between two pings on a connection. A dead one is noticed within this time and [`PING_LIMIT`] together.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The time within which a ping has to be answered.
const PING_LIMIT: Duration = Duration::from_secs(5);
/// The time without a request after which a connection to a Web Push service is closed. It is short, because there are
/// many services.
const GUARDED_IDLE: Duration = Duration::from_secs(60);
/// The number of connections to one Web Push service that are kept without a request.
const GUARDED_IDLE_CONNECTIONS: usize = 8;
/// The most bytes of an answer's body that are read. Providers give reasons in some hundred bytes.
const MAX_ANSWER: usize = 16 << 10;
/// The most bytes of an answer that become the detail of an outcome.
const MAX_DETAIL: usize = 300;
/// The most names of Web Push services that are resolved at a time. Devices choose them, and one whose server does not
/// answer holds a thread for half a minute; the other names that are resolved need threads of the same 512.
const MAX_LOOKUPS: usize = 128;
/// The longest time that a provider may ask to wait for. A longer one is taken for a mistake.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The answer of a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The time to wait, if the provider says it.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns whether the status is a success.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Returns the provider's words: the status, and `reason` or the beginning of the body.
    pub(crate) fn detail(&self, reason: Option<&str>) -> String {
        let text = match reason {
            Some(reason) => Cow::Borrowed(reason),
            None => String::from_utf8_lossy(&self.body),
        };
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        let end = text.floor_char_boundary(MAX_DETAIL);
        format!("{} {}", self.status, &text[..end]).trim_end().to_owned()
    }

    /// Returns a delivery that may succeed later.
    pub(crate) fn later(&self, reason: &'static str, detail: String) -> Delivery {
        Delivery::Later {
            after: self.retry_after,
            reason,
            detail,
        }
    }
}

/// Returns the authorities that are trusted: the system's, and `more`.
pub(crate) fn roots(more: &[CertificateDer<'static>]) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // The first connection fails and says so if this machine trusts no authority at all.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in more {
        roots.add(certificate.clone()).context("ca_file")?;
    }
    Ok(roots)
}

/// Makes a client that speaks HTTP/2 alone, and keeps its connections.
pub(crate) fn http2(roots: &RootCertStore, proxy: Option<&Secret>) -> anyhow::Result<Client> {
    let client = builder(roots, &[b"h2"], proxy)?
        .http2_prior_knowledge()
        .pool_idle_timeout(None::<Duration>);
    Ok(client.build()?)
}

/// Makes a client that speaks HTTP/2 where the server does, and keeps its connections.
pub(crate) fn negotiated(roots: &RootCertStore, proxy: Option<&Secret>) -> anyhow::Result<Client> {
    let client = builder(roots, &[b"h2", b"http/1.1"], proxy)?.pool_idle_timeout(None::<Duration>);
    Ok(client.build()?)
}

/// Makes a client for URLs that devices name. Unless `allow_private`, it connects to public addresses alone, or through
/// the proxy.
pub(crate) fn guarded(
    roots: &RootCertStore,
    allow_private: bool,
    proxy: Option<&Secret>,
) -> anyhow::Result<Client> {
    let mut client = builder(roots, &[b"h2", b"http/1.1"], proxy)?
        .pool_idle_timeout(GUARDED_IDLE)
        .pool_max_idle_per_host(GUARDED_IDLE_CONNECTIONS)
        .https_only(!allow_private);
    // With a proxy, the proxy's own name is the only one that is resolved here.
    if !allow_private && proxy.is_none() {
        client = client.dns_resolver(PublicAddresses::default());
    }
    Ok(client.build()?)
}

fn builder(
    roots: &RootCertStore,
    protocols: &[&[u8]],
    proxy: Option<&Secret>,
) -> anyhow::Result<ClientBuilder> {
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // A proxy connects in place of this server, so only the operator's own file names one.
    let client = match proxy {
        Some(Secret(url)) => Client::builder().proxy(Proxy::all(url.as_str())?),
        None => Client::builder().no_proxy(),
    };
    Ok(client
        .tls_backend_preconfigured(tls)
        .redirect(Policy::none())
        .user_agent("tern")
        .timeout(REQUEST_LIMIT)
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_LIMIT)
        .http2_keep_alive_while_idle(true))
}

/// Sends a request, and reads the beginning of the answer. Returns `Err` with what became of the push if there is no
/// answer.
pub(crate) async fn ask(request: RequestBuilder) -> Result<Answer, Delivery> {
    let mut response = request.send().await.map_err(failed)?;
    let mut answer = Answer {
        status: response.status().as_u16(),
        retry_after: retry_after(response.headers(), Clock::wall()),
        body: Vec::new(),
    };
    // A body that breaks off is good enough: the status says what became of the push.
    while answer.body.len() < MAX_ANSWER
        && let Ok(Some(bytes)) = response.chunk().await
    {
        answer.body.extend_from_slice(&bytes);
    }
    answer.body.truncate(MAX_ANSWER);
    Ok(answer)
}

/// Parses the time to wait: seconds, or a date, of which one that has passed says nothing. `wall` is of the wall clock.
fn retry_after(headers: &HeaderMap, wall: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(text)
                .ok()?
                .duration_since(UNIX_EPOCH)
                .ok()?;
            Some((Timestamp(0) + date).since(wall)).filter(|wait| !wait.is_zero())?
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn failed(error: reqwest::Error) -> Delivery {
    // The URL may have a device's token in it.
    let error = error.without_url();
    let detail = causes(&error);
    if chain(&error).any(|cause| cause.is::<PrivateAddress>()) {
        return private_address();
    }
    if error.is_builder() {
        return Delivery::Refused {
            reason: "request",
            detail,
        };
    }
    let reason = if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "broken"
    };
    Delivery::Later {
        after: None,
        reason,
        detail,
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Returns an error's text with those of its causes.
fn causes(error: &(dyn Error + 'static)) -> String {
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    texts.join(": ")
}

/// Returns whether a device may name this URL. A name is checked again when it is resolved; an address is not, because
/// it is not resolved.
pub(crate) fn may_be_named(url: &Url, allow_private: bool) -> bool {
    if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
        return false;
    }
    let Some(host) = url.host_str() else { return false };
    let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    allow_private || (url.scheme() == "https" && address.is_none_or(is_public))
}

/// Returns what becomes of a push to an address that is not public.
pub(crate) fn private_address() -> Delivery {
    Delivery::Refused {
        reason: "private_address",
        detail: PrivateAddress.to_string(),
    }
}

/// The error for a name that has no public address.
#[derive(Debug, thiserror::Error)]
#[error("the endpoint is not https at a public address")]
struct PrivateAddress;

/// A resolver that leaves out all addresses that are not public. The connection goes to an address that it returned, so
/// a name cannot change its meaning between the check and the connection.
struct PublicAddresses(Arc<Semaphore>);

impl Default for PublicAddresses {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Resolve for PublicAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(public_addresses(self.0.clone(), name.as_str().to_owned()))
    }
}

async fn public_addresses(room: Arc<Semaphore>, host: String) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    let place = room.acquire_owned().await?;
    // The caller may give up, and the lookup holds its thread all the same. So a task keeps the place.
    let lookup = tokio::spawn(async move {
        let found = tokio::net::lookup_host((host, 0)).await;
        drop(place);
        found.map(|found| found.collect::<Vec<SocketAddr>>())
    });
    let found = lookup.await??.into_iter();
    let public: Vec<SocketAddr> = found.filter(|found| is_public(found.ip())).collect();
    if public.is_empty() {
        return Err(Box::new(PrivateAddress));
    }
    Ok(Box::new(public.into_iter()))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn what_a_device_may_name_is_https_at_a_public_address() {
        for (url, public, private) in [
            ("https://push.example.com/x", true, true),
            ("https://1.1.1.1:8443/x", true, true),
            ("https://[2606:4700::1111]/x", true, true),
            ("http://push.example.com/x", false, true),
            ("https://127.0.0.1/x", false, true),
            ("https://0x7f.1/x", false, true),
            ("https://2130706433/x", false, true),
            ("https://[::ffff:127.0.0.1]/x", false, true),
            ("https://[::1]/x", false, true),
            ("https://user@push.example.com/x", false, false),
            ("ftp://push.example.com/x", false, false),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!(may_be_named(&parsed, false), public, "{url}");
            assert_eq!(may_be_named(&parsed, true), private, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_without_a_public_address_is_refused() {
        let room = Arc::new(Semaphore::new(1));
        let error = public_addresses(room.clone(), "localhost".to_owned())
            .await
            .err()
            .unwrap();
        assert_eq!(room.available_permits(), 1);
        assert!(error.is::<PrivateAddress>(), "{error}");
        let client = guarded(&RootCertStore::empty(), false, None).unwrap();
        let refused = ask(client.get("https://localhost:1/")).await.unwrap_err();
        assert_eq!(refused, private_address());
    }

    #[tokio::test]
    async fn a_proxy_of_the_file_is_asked_to_connect() {
        use tokio::io::{AsyncBufReadExt, BufReader};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Secret(format!("http://user:pass@{}", listener.local_addr().unwrap()));
        let client = http2(&RootCertStore::empty(), Some(&proxy)).unwrap();
        let asked = tokio::spawn(ask(client.get("https://push.example.com/")));
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        assert!(first.starts_with("CONNECT push.example.com:443 "), "{first}");
        drop(lines);
        let became = asked.await.unwrap().unwrap_err();
        let Delivery::Later { detail, .. } = &became else {
            panic!("{became:?}")
        };
        assert!(!detail.contains("pass"), "{detail}");
    }

    #[test]
    fn the_time_to_wait_is_seconds_or_a_date_and_bounded() {
        // It is Sun, 06 Nov 1994 08:49:00 GMT.
        let wall = Timestamp(784_111_740_000);
        for (value, expected) in [
            ("7", Some(Duration::from_secs(7))),
            (" 7 ", Some(Duration::from_secs(7))),
            ("99999999", Some(MAX_RETRY_AFTER)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_secs(37))),
            ("Sun, 06 Nov 1994 08:49:00 GMT", None),
            ("Mon, 07 Nov 1994 08:49:00 GMT", Some(MAX_RETRY_AFTER)),
            ("-1", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            assert_eq!(retry_after(&headers, wall), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), wall), None);
    }

    #[test]
    fn a_detail_is_short_and_in_one_line() {
        let answer = Answer {
            status: 500,
            body: "é\n".repeat(1000).into_bytes(),
            ..Answer::default()
        };
        let detail = answer.detail(None);
        assert!(detail.starts_with("500 éé"), "{detail}");
        assert!(detail.len() <= MAX_DETAIL + 4, "{}", detail.len());
        assert_eq!(answer.detail(Some("Shutdown")), "500 Shutdown");
    }
}
