//! A trace collector, which takes what nodes export by OTLP and keeps it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use tern_local::until;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::bounds::BOUND;

/// A running collector, which ends when dropped.
pub struct Collector {
    url: String,
    spans: Spans,
    server: JoinHandle<()>,
}

/// One exported span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The name of the node that exported it.
    pub node: String,
    /// The span's name.
    pub name: String,
    /// The id of the trace, 16 bytes.
    pub trace_id: Vec<u8>,
    /// The span's own id, 8 bytes.
    pub span_id: Vec<u8>,
    /// The parent's span id; empty if there is none.
    pub parent_id: Vec<u8>,
    /// The span's numeric attributes, by name.
    pub fields: HashMap<String, i64>,
}

#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Starts a collector on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let spans = Spans::default();
        let serving = Server::builder()
            .add_service(TraceServiceServer::new(spans.clone()))
            .serve_with_incoming(TcpIncoming::from(listener));
        let server = tokio::spawn(async move { serving.await.expect("the collector serves") });
        Self { url, spans, server }
    }

    /// Returns the collector's URL, for `--otlp-endpoint`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the spans of a trace that have arrived so far.
    pub fn trace(&self, id: [u8; 16]) -> Vec<Span> {
        self.spans(|span| span.trace_id == id)
    }

    /// Returns the spans that have arrived so far and that `which` accepts.
    pub fn spans(&self, which: impl Fn(&Span) -> bool) -> Vec<Span> {
        let spans = self.spans.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| which(span)).cloned().collect()
    }

    /// Waits until a trace has a span of each of these names, and returns all its spans. The test names the
    /// spans instead of counting them, because nodes export their spans in any order.
    pub async fn until(&self, id: [u8; 16], names: &[&str]) -> Vec<Span> {
        let what = format!("spans named {names:?}");
        let there = || {
            let trace = self.trace(id);
            names
                .iter()
                .all(|name| trace.iter().any(|span| span.name == *name))
        };
        let came = until::holds(&what, BOUND, || async { Ok(there()) }).await;
        came.unwrap_or_else(|error| panic!("{error:#}: {:#?}", self.trace(id)));
        self.trace(id)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|it| it.attributes).unwrap_or_default();
            let node = text(&attributes, "service.instance.id");
            let exported = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(exported.map(|span| Span {
                node: node.clone(),
                name: span.name,
                trace_id: span.trace_id,
                span_id: span.span_id,
                parent_id: span.parent_span_id,
                fields: numbers(&span.attributes),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let of_key = attributes.iter().find(|attribute| attribute.key == key);
    match of_key.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn numbers(attributes: &[KeyValue]) -> HashMap<String, i64> {
    let number = |attribute: &KeyValue| {
        let number = match attribute.value.as_ref()?.value.as_ref()? {
            Value::IntValue(number) => Some(*number),
            // Unsigned numbers are exported as text.
            Value::StringValue(text) => text.parse().ok(),
            _ => None,
        };
        Some((attribute.key.clone(), number?))
    };
    attributes.iter().filter_map(number).collect()
}
