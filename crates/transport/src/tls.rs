//! Keeps certificates from files up to date: files that change are read again, so that renewing a certificate (by
//! cert-manager or by an operator) needs no restart.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics;

/// The time between two looks at the files. It is much shorter than the time between the renewal of a certificate and
/// the expiry of the old one.
const LOOK: Duration = Duration::from_secs(5);
/// The number of looks in a row after which files that cannot be read are reported. A file may be missing for a moment
/// while the files are replaced.
const UNREADABLE_LOOKS: u32 = 2;

/// A file and the flag that names it.
#[derive(Debug, Clone)]
pub struct File {
    /// The flag, for error messages.
    pub flag: &'static str,
    /// The path of the file.
    pub path: PathBuf,
}

impl File {
    async fn read(&self) -> anyhow::Result<Vec<u8>> {
        tokio::fs::read(&self.path)
            .await
            .with_context(|| format!("{} {}", self.flag, self.path.display()))
    }
}

/// A value made of the contents of files, such as a TLS configuration, which is made anew when the files change.
/// Clones share it.
#[derive(Debug)]
pub struct Renewed<C>(Arc<ArcSwap<C>>);

impl<C> Clone for Renewed<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Send + Sync + 'static> Renewed<C> {
    /// Reads the files, of which the first has to be the certificate, and makes the value of them with `make`. From
    /// then on, it does so again whenever one of the files has changed. If `make` refuses the new contents, or the files
    /// cannot be read any more, that is logged and counted once, and the value stays as it was. `of` is the name in
    /// metrics and logs.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read, or `make` refuses the contents, at the first time.
    pub async fn follow<F>(of: &'static str, files: Vec<File>, make: F) -> anyhow::Result<Self>
    where
        F: Fn(&[Vec<u8>]) -> anyhow::Result<C> + Send + Sync + 'static,
    {
        let contents = read(&files).await?;
        let made = make(&contents)?;
        say_expiry(of, &contents);
        let renewed = Self(Arc::new(ArcSwap::from_pointee(made)));
        let current = Arc::downgrade(&renewed.0);
        tokio::spawn(keep_up(of, files, contents, make, current));
        Ok(renewed)
    }

    /// Returns the value as it is now.
    pub fn current(&self) -> Arc<C> {
        self.0.load_full()
    }
}

/// Reads the files every [`LOOK`], and replaces the value when they have changed. It ends when the last clone
/// of the value is dropped. `known` is what the files had before.
async fn keep_up<C, F>(
    of: &'static str,
    files: Vec<File>,
    mut known: Vec<Vec<u8>>,
    make: F,
    current: Weak<ArcSwap<C>>,
) where
    C: Send + Sync + 'static,
    F: Fn(&[Vec<u8>]) -> anyhow::Result<C> + Send + Sync + 'static,
{
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unreadable = 0_u32;
    loop {
        looks.tick().await;
        let Some(current) = current.upgrade() else { return };
        let contents = match read(&files).await {
            Ok(contents) => contents,
            Err(error) => {
                unreadable = unreadable.saturating_add(1);
                if unreadable == UNREADABLE_LOOKS {
                    metrics::certificate_read(of, "unreadable");
                    tracing::warn!(
                        of,
                        error = format!("{error:#}"),
                        "a certificate cannot be read: the one in use stays"
                    );
                }
                continue;
            }
        };
        if std::mem::take(&mut unreadable) >= UNREADABLE_LOOKS {
            tracing::info!(of, "a certificate can be read again");
        }
        if contents == known {
            continue;
        }
        match make(&contents) {
            Ok(made) => {
                current.store(Arc::new(made));
                say_expiry(of, &contents);
                metrics::certificate_read(of, "taken");
                tracing::info!(of, "a renewed certificate is in use for new connections");
            }
            Err(error) => {
                metrics::certificate_read(of, "refused");
                tracing::warn!(
                    of,
                    error = format!("{error:#}"),
                    "a renewed certificate is of no use: the one before stays"
                );
            }
        }
        known = contents;
    }
}

async fn read(files: &[File]) -> anyhow::Result<Vec<Vec<u8>>> {
    futures::future::try_join_all(files.iter().map(File::read)).await
}

/// Exports as a metric when the certificate expires. A certificate that cannot be parsed is ignored here, because TLS
/// reports it better.
fn say_expiry(of: &'static str, contents: &[Vec<u8>]) {
    let chain = contents.first().and_then(|pem| certificates(pem).ok());
    let Some(leaf) = chain.as_ref().and_then(|chain| chain.first()) else {
        return;
    };
    if let Ok((_, certificate)) = x509_parser::parse_x509_certificate(leaf) {
        metrics::certificate_expires(of, certificate.validity().not_after.timestamp());
    }
}

/// Parses the certificates of a PEM file: a chain, or authorities. Returns `Err` if there is none.
pub fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(!chain.is_empty(), "no certificate in PEM");
    Ok(chain)
}

/// Parses the private key of a PEM file. Returns `Err` if there is none.
pub fn private_key(pem: &[u8]) -> anyhow::Result<PrivateKeyDer<'static>> {
    Ok(PrivateKeyDer::from_pem_slice(pem)?)
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_of_no_use_changes_nothing_and_what_comes_after_it_counts() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cert");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("first");
        let file = File {
            flag: "--cert",
            path: path.clone(),
        };
        let (seen, mut reads) = mpsc::channel(8);
        let make = move |contents: &[Vec<u8>]| {
            let text = String::from_utf8(contents[0].clone())?;
            seen.try_send(text.clone())?;
            anyhow::ensure!(text != "useless", "of no use");
            Ok(text)
        };
        let renewed = Renewed::follow("edge", vec![file], make)
            .await
            .expect("the first");
        assert_eq!(reads.recv().await.as_deref(), Some("first"));
        write("useless");
        assert_eq!(reads.recv().await.as_deref(), Some("useless"));
        std::fs::remove_file(&path).expect("removed");
        tokio::time::sleep(LOOK * 3).await;
        assert_eq!(*renewed.current(), "first");
        write("second");
        assert_eq!(
            reads.recv().await.as_deref(),
            Some("second"),
            "looked at once each"
        );
        tokio::time::sleep(LOOK).await;
        assert_eq!(*renewed.current(), "second");
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_stay_unreadable_are_reported_once_each_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cert");
        let recorder = PrometheusBuilder::new().build_recorder();
        let _counts = ::metrics::set_default_local_recorder(&recorder);
        let file = File {
            flag: "--cert",
            path: path.clone(),
        };
        let write = || std::fs::write(&path, "first").expect("written");
        write();
        let renewed = Renewed::follow("edge", vec![file], |contents| Ok(contents.to_vec()))
            .await
            .expect("the first");
        for times in 1..=2 {
            std::fs::remove_file(&path).expect("removed");
            tokio::time::sleep(LOOK * 5).await;
            let page = recorder.handle().render();
            let counted = format!("outcome=\"unreadable\"}} {times}");
            assert!(page.contains(&counted), "{page}");
            write();
            tokio::time::sleep(LOOK * 2).await;
        }
        assert_eq!(*renewed.current(), [b"first".to_vec()]);
    }
}
