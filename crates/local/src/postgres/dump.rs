//! Dumps a schema, as an operator's backup does.

use anyhow::Context as _;
use tokio::process::Command;

use super::binary;

/// Returns what `pg_dump` writes of a schema of the database at `url`. Fails if there is no such program, or if it
/// fails.
pub async fn dump_schema(url: &str, schema: &str) -> anyhow::Result<String> {
    let mut command = Command::new(binary("pg_dump")?);
    let schema = format!("--schema={schema}");
    let output = command
        .args(["--dbname", url, &schema])
        .output()
        .await
        .context("run pg_dump")?;
    anyhow::ensure!(
        output.status.success(),
        "pg_dump: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).context("the dump is no text")
}
