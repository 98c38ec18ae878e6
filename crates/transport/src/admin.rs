//! Serves HTTP for operators: `/metrics` in Prometheus' text format, or as OpenMetrics with exemplars; `/healthz`,
//! which answers while the process runs; and `/readyz`, which says whether the process takes work ([`Readiness`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use tern_telemetry::exemplars;

use crate::connections::Bounds;
use crate::descriptors;
use crate::listener::{Server, Settings};

/// The time between two runs of the recorder's upkeep, which folds the values of histograms even if nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The time that a new connection may be without a request. Scrapers and probes ask at once.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// The time that a connection may be idle. It is longer than the time between two scrapes, because Prometheus keeps its
/// connections.
const IDLE: Duration = Duration::from_secs(120);
/// The time that a request may take, until its answer is taken. Even the longest page takes less.
const CALL: Duration = Duration::from_secs(30);

/// The state that says whether the process takes work. It takes none until [`Self::set`] says so, and none while a role
/// holds it back. Clones share one state.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
    seen: watch::Receiver<State>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    /// True if the process as a whole is ready, apart from what holds it back.
    set: bool,
    /// The number of [`Hold`]s that exist.
    holds: usize,
    /// The roles that take no work at present, each with the reason.
    held_back: BTreeMap<&'static str, &'static str>,
}

/// A guard that keeps the process from being ready until it is dropped, for a role that cannot work yet.
#[derive(Debug)]
pub struct Hold(Arc<watch::Sender<State>>);

impl Default for Readiness {
    fn default() -> Self {
        let (state, seen) = watch::channel(State::default());
        Self {
            state: Arc::new(state),
            seen,
        }
    }
}

impl Readiness {
    /// Sets whether the process as a whole is ready.
    pub fn set(&self, ready: bool) {
        self.state.send_modify(|state| state.set = ready);
    }

    /// Keeps the process from being ready as long as the returned value lives, whatever [`Self::set`] says.
    pub fn hold(&self) -> Hold {
        self.state.send_modify(|state| state.holds += 1);
        Hold(self.state.clone())
    }

    /// Sets the reason why the role takes no work at present. `None` means that it takes work again.
    pub fn hold_back(&self, role: &'static str, why: Option<&'static str>) {
        self.state.send_if_modified(|state| {
            let before = match why {
                Some(why) => state.held_back.insert(role, why),
                None => state.held_back.remove(role),
            };
            before != why
        });
    }

    /// Returns whether the process takes work.
    pub fn is_ready(&self) -> bool {
        self.why_not().is_none()
    }

    /// Returns the reason why the process takes no work, or `None` if it does.
    pub fn why_not(&self) -> Option<&'static str> {
        let state = self.seen.borrow();
        if !state.set {
            Some("it is starting or stopping")
        } else if state.holds > 0 {
            Some("a role is not there yet")
        } else {
            state.held_back.values().next().copied()
        }
    }

    /// Waits until the state has changed since this handle waited last.
    pub async fn changed(&mut self) {
        // This cannot fail, since `self` keeps the sender.
        let _ = self.seen.changed().await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.holds -= 1);
    }
}

/// Serves the paths on `listener` until the returned future is dropped. It also runs the recorder's upkeep. It returns no
/// error: a connection that fails ends alone.
pub async fn serve(
    listener: TcpListener,
    metrics: PrometheusHandle,
    readiness: Readiness,
) -> anyhow::Result<()> {
    let upkeep = metrics.clone();
    let tidy = async {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tick.tick().await;
            upkeep.run_upkeep();
        }
    };
    let settings = Settings {
        name: "admin",
        bounds: Bounds {
            connections: descriptors::shares().admin,
            strangers_of_address: None,
            first_request: FIRST_REQUEST,
            idle: IDLE,
            call: CALL,
        },
        http: http(),
        tls: None,
        calls: false,
        known_by_request: true,
    };
    let server = Server::new(settings, router(metrics, readiness), TaskTracker::new());
    tokio::select! {
        () = server.accept(&listener) => {}
        () = tidy => {}
    }
    Ok(())
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    http
}

fn router(metrics: PrometheusHandle, readiness: Readiness) -> Router {
    let scrape = move |headers: HeaderMap| async move {
        let accepted = headers
            .get(header::ACCEPT)
            .and_then(|accept| accept.to_str().ok());
        let text = metrics.render();
        if accepted.is_some_and(|accepted| accepted.contains(exemplars::MEDIA_TYPE)) {
            (
                [(header::CONTENT_TYPE, exemplars::CONTENT_TYPE)],
                exemplars::open_metrics(&text),
            )
        } else {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
        }
    };
    let ready = move || async move {
        match readiness.why_not() {
            None => (StatusCode::OK, "ready\n".to_owned()).into_response(),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
        }
    };
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_it_is_said_and_nobody_holds_it_back() {
        let readiness = Readiness::default();
        assert!(!readiness.is_ready());
        let (one, other) = (readiness.hold(), readiness.clone().hold());
        readiness.set(true);
        assert!(!readiness.is_ready());
        drop(one);
        assert!(!readiness.is_ready());
        drop(other);
        assert!(readiness.is_ready());
        readiness.set(false);
        assert!(!readiness.is_ready());
    }
}
