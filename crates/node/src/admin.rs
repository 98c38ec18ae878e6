//! HTTP for operators: /metrics, /healthz, /readyz.
