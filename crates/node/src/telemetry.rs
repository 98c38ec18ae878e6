//! Logs, traces, metrics.

use clap::ValueEnum;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    #[default]
    Human,
    Json,
}

/// What a process tells about itself.
#[derive(clap::Args, Clone, Debug)]
pub struct TelemetryArgs {
    /// Which log lines are written: a level, or filters such as info,tern_chat=debug
    #[arg(long, env = "TERN_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "TERN_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Where traces go by OTLP over gRPC, such as http://collector:4317; left out: nowhere
    #[arg(long, env = "TERN_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}
