//! etcd.

/// How to reach etcd.
#[derive(clap::Args, Clone, Debug)]
pub struct EtcdArgs {
    /// Endpoints of etcd, comma separated
    #[arg(
        long,
        env = "TERN_ETCD_ENDPOINTS",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:2379"
    )]
    pub etcd_endpoints: Vec<String>,
    /// Prefix of all keys
    #[arg(long, env = "TERN_ETCD_PREFIX", default_value = "/tern/v1")]
    pub etcd_prefix: String,
}
