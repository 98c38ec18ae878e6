//! HTTP for operators: `/metrics` in Prometheus' text format or as OpenMetrics with exemplars, `/healthz` (the process runs), `/readyz` (it takes
//! work: registered, not draining).

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::exemplars;

/// Histograms are folded this often, also when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Whether the process takes work. Not at first, and not while anybody holds it back.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
    seen: watch::Receiver<State>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct State {
    set: bool,
    holds: usize,
}

/// Holds the process back until it is dropped: what it is for is not there yet.
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
    pub fn set(&self, ready: bool) {
        self.state.send_modify(|state| state.set = ready);
    }

    /// Whatever is set, the process is not ready while what is returned lives.
    pub fn hold(&self) -> Hold {
        self.state.send_modify(|state| state.holds += 1);
        Hold(self.state.clone())
    }

    pub fn is_ready(&self) -> bool {
        let State { set, holds } = *self.seen.borrow();
        set && holds == 0
    }

    /// Waits until it changed since this handle looked last.
    pub async fn changed(&mut self) {
        // The sender lives in self.
        let _ = self.seen.changed().await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.holds -= 1);
    }
}

/// Serves until it is dropped.
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
    let app = router(metrics, readiness);
    tokio::select! {
        served = async { axum::serve(listener, app).await } => Ok(served?),
        () = tidy => Ok(()),
    }
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
        if readiness.is_ready() {
            (StatusCode::OK, "ready\n").into_response()
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
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
