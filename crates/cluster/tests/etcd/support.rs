//! Starts an etcd server for one test, and a proxy in front of it.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tern_cluster::etcd::{Cluster, EtcdArgs};

/// The longest time that the tests wait for anything. Nothing takes this long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd server in a process of its own. It is killed when this is dropped.
pub struct Etcd {
    server: Child,
    pub url: String,
    peer: String,
    data: tempfile::TempDir,
}

impl Etcd {
    /// Starts a server on free ports.
    pub async fn start() -> Self {
        let (client, peer) = (free_port(), free_port());
        let url = format!("http://127.0.0.1:{client}");
        let peer = format!("http://127.0.0.1:{peer}");
        let data = tempfile::tempdir().unwrap();
        let etcd = Self {
            server: spawn(&url, &peer, data.path()),
            url,
            peer,
            data,
        };
        etcd.answers().await;
        etcd
    }

    /// Kills the server, and starts one with empty data at the same address.
    pub async fn lose_all(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.data = tempfile::tempdir().unwrap();
        self.server = spawn(&self.url, &self.peer, self.data.path());
        self.answers().await;
    }

    /// Waits for the first answer. When it comes, the server is up.
    async fn answers(&self) {
        tokio::time::timeout(PATIENCE, self.cluster("/none"))
            .await
            .expect("etcd starts");
    }

    pub fn args(&self, prefix: &str) -> EtcdArgs {
        EtcdArgs {
            etcd_endpoints: vec![self.url.clone()],
            etcd_prefix: prefix.to_owned(),
        }
    }

    pub async fn cluster(&self, prefix: &str) -> Cluster {
        Cluster::connect(&self.args(prefix)).await.unwrap()
    }

    pub async fn client(&self) -> Client {
        Client::connect([&self.url], None).await.unwrap()
    }

    /// Suspends the server's process.
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets the server's process go on.
    pub fn go_on(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.server.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn spawn(url: &str, peer: &str, data: &Path) -> Child {
    Command::new("etcd")
        .arg("--data-dir")
        .arg(data)
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .args(["--logger", "zap", "--log-level", "error"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is installed")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// A proxy in front of etcd that can be cut.
pub struct Proxy {
    pub url: String,
    open: tokio::sync::watch::Sender<bool>,
    _task: tokio_util::task::AbortOnDropHandle<()>,
}

impl Proxy {
    pub async fn start(to: &str) -> Self {
        let to = to.trim_start_matches("http://").to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, state) = tokio::sync::watch::channel(true);
        let task = tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (to, mut state) = (to.clone(), state.clone());
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Self {
            url,
            open,
            _task: tokio_util::task::AbortOnDropHandle::new(task),
        }
    }

    /// Ends every connection, and accepts no new one.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    /// Accepts connections again.
    pub fn mend(&self) {
        self.open.send_replace(true);
    }
}
