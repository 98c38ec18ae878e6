//! Serves S3 in the process that [`super::S3`] starts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use s3s::Body;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;

use super::BUCKET;
use super::checked::Checked;

/// The headers without which a web page may not use a signed URL.
const CORS: [(&str, &str); 5] = [
    ("access-control-allow-origin", "*"),
    ("access-control-allow-methods", "GET, PUT, HEAD"),
    ("access-control-allow-headers", "*"),
    ("access-control-expose-headers", "*"),
    ("access-control-max-age", "3600"),
];

/// Serves the objects below `dir` until the process ends. Fails if it cannot listen or cannot make the directory.
pub async fn run(dir: &Path, listen: SocketAddr, access_key: &str, secret_key: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    serve(listener, service(dir, access_key, secret_key)?).await
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, service: S3Service) -> ! {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        // With Nagle's algorithm, answers would wait for the client's acknowledgements.
        let _ = socket.set_nodelay(true);
        let service = service.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(service.clone(), request));
            // A client that goes away is no fault of the server.
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), answer)
                .await;
        });
    }
}

/// Makes the service for the objects below `dir`, with its one bucket.
pub fn service(dir: &Path, access_key: &str, secret_key: &str) -> anyhow::Result<S3Service> {
    let objects = dir.join("objects");
    std::fs::create_dir_all(objects.join(BUCKET)).with_context(|| format!("create {}", dir.display()))?;
    let mut builder = S3ServiceBuilder::new(Checked::new(&objects, &dir.join("checksums"))?);
    builder.set_auth(SimpleAuth::from_single(access_key, secret_key.to_owned()));
    Ok(builder.build())
}

async fn answer(service: S3Service, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut answer = if request.method() == Method::OPTIONS {
        Response::new(Body::empty())
    } else {
        match service.call(request.map(Body::from)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(?error, "a request failed");
                let mut failed = Response::new(Body::empty());
                *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                failed
            }
        }
    };
    for (name, value) in CORS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(answer)
}
