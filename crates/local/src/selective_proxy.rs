//! Runs a TCP proxy before a node, which a test can cut for some of the nodes that connect to it.
//!
//! While the proxy is cut for a node, nothing passes between the two nodes in either direction, like on a
//! network that drops packets: connections hang, and new ones are accepted and hang too. When the cut is
//! over, they go on where they were.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The kernel's table of connections (proc_net_tcp(5)).
const TABLE: &str = "/proc/net/tcp";

/// The largest number of bytes that are passed on at once.
const CHUNK: usize = 64 << 10;

/// The number of times that the kernel's table is searched for a connection. The kernel gives the table in parts, so a
/// connection may be missing from it if others open and close meanwhile.
const SEARCHES: usize = 5;

/// A function that returns whether the node with this name is cut off.
type Rule = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// A running proxy, which ends when dropped.
pub struct SelectiveProxy {
    address: SocketAddr,
    rule: watch::Sender<Rule>,
    _task: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for SelectiveProxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelectiveProxy")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl SelectiveProxy {
    /// Starts a proxy before the node at `upstream`. It passes everything on until [`Self::cut`] is called.
    pub async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let nothing: Rule = Arc::new(|_| false);
        let (rule, rules) = watch::channel(nothing);
        let task = tokio::spawn(accept(listener, upstream, rules));
        Ok(Self {
            address,
            rule,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Returns the address to which other nodes connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the proxy for the nodes whose names `which` accepts, and mends it for all others. For example, `|_| false`
    /// mends it for all nodes.
    pub fn cut(&self, which: impl Fn(&str) -> bool + Send + Sync + 'static) {
        self.rule.send_replace(Arc::new(which));
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, rules: watch::Receiver<Rule>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, from)) = accepted else { continue };
                connections.spawn(pass(socket, from, upstream, rules.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection, which comes from the address `from`.
async fn pass(socket: TcpStream, from: SocketAddr, upstream: SocketAddr, rules: watch::Receiver<Rule>) {
    // Reading /proc blocks, for long on a busy machine. This thread has other connections to serve meanwhile.
    let owner = tokio::task::spawn_blocking(move || owner_of(from, || std::fs::read_to_string(TABLE).ok()));
    // A connection that nobody can name would pass every cut. It is closed, and the node makes another one.
    let Ok(Some(node)) = owner.await else { return };
    let node: Arc<str> = node.into();
    until_open(&node, &mut rules.clone()).await;
    let Ok(node_behind) = TcpStream::connect(upstream).await else {
        return;
    };
    let _small_packets = (socket.set_nodelay(true), node_behind.set_nodelay(true));
    let (from_node, to_node) = socket.into_split();
    let (from_behind, to_behind) = node_behind.into_split();
    tokio::join!(
        copy(from_node, to_behind, &node, rules.clone()),
        copy(from_behind, to_node, &node, rules.clone()),
    );
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    node: &str,
    mut rules: watch::Receiver<Rule>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await;
        until_open(node, &mut rules).await;
        match read {
            Ok(count) if count > 0 && to.write_all(&chunk[..count]).await.is_ok() => {}
            _ => break,
        }
    }
    let _closed = to.shutdown().await;
}

/// Waits until the proxy is not cut for this node.
async fn until_open(node: &str, rules: &mut watch::Receiver<Rule>) {
    let _gone = rules.wait_for(|cut| !cut(node)).await;
}

/// Returns the name of the node whose process has this end of a connection on this machine; it is empty if the process
/// is no node's. `table` reads the kernel's table of connections. `None` if the connection is not found there, because
/// it is closed.
fn owner_of(address: SocketAddr, mut table: impl FnMut() -> Option<String>) -> Option<String> {
    let inode = (0..SEARCHES).find_map(|_| inode_of(address, &table()?).map(str::to_owned))?;
    Some(node_with(&inode).unwrap_or_default())
}

/// Returns the name of the node whose process has the socket with this inode, or `None` if it is no node's. It looks
/// only at the processes that this process has started. Looking at the open files of all processes would take longer on
/// a busy machine than nodes wait for each other.
fn node_with(inode: &str) -> Option<String> {
    let link = format!("socket:[{inode}]");
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let process = processes
        .map(|entry| entry.path())
        .filter(|process| is_child(process))
        .find(|process| has(process, &link))?;
    let environment = std::fs::read(process.join("environ")).ok()?;
    let name = environment
        .split(|byte| *byte == 0)
        .find_map(|variable| variable.strip_prefix(b"TERN_NODE_NAME="))?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Returns whether this process has started that one. In the process's `stat` the parent's id is the second field after
/// the name, which is in parentheses.
fn is_child(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let parent = fields.split_whitespace().nth(1);
    parent.and_then(|id| id.parse().ok()) == Some(std::process::id())
}

/// Returns whether one of the process's open files is `link`.
fn has(process: &Path, link: &str) -> bool {
    let files = std::fs::read_dir(process.join("fd"))
        .into_iter()
        .flatten()
        .flatten();
    files
        .filter_map(|file| std::fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str() == link)
}

/// Returns the inode of the socket at a local address, from the kernel's table of connections. The table's second
/// column is the local address, its tenth the inode.
fn inode_of(address: SocketAddr, table: &str) -> Option<&str> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let ip = u32::from_ne_bytes(address.ip().octets());
    let local = format!("{ip:08X}:{:04X}", address.port());
    table.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(1) == Some(&&*local)).then(|| columns.get(9).copied())?
    })
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;
    use crate::Process;

    #[test]
    fn the_kernels_table_names_the_socket_at_an_address() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0
   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 20 4 30 10 -1";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(inode_of(at(50_000), table), Some("4712"));
        assert_eq!(inode_of(at(50_001), table), None);
    }

    #[test]
    fn a_connection_that_the_table_lacks_is_searched_for_again_and_has_no_owner_in_the_end() {
        let row =
            "   1: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 0 1";
        let (address, mut reads) = (SocketAddr::from(([127, 0, 0, 1], 50_000)), 0);
        let mut owner = |there_from: usize| {
            reads = 0;
            owner_of(address, || {
                reads += 1;
                Some(if reads < there_from {
                    String::new()
                } else {
                    row.to_owned()
                })
            })
        };
        assert_eq!(owner(SEARCHES), Some(String::new()), "no node has inode 0");
        assert_eq!(owner(SEARCHES + 1), None);
    }

    #[tokio::test]
    async fn while_it_is_cut_nothing_passes_and_afterwards_everything_does() {
        let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = SelectiveProxy::start(behind.local_addr().unwrap()).await.unwrap();
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        let (mut server, _) = behind.accept().await.unwrap();
        client.write_all(b"one").await.unwrap();
        let mut word = [0; 3];
        server.read_exact(&mut word).await.unwrap();
        proxy.cut(|_| true);
        client.write_all(b"two").await.unwrap();
        server.write_all(b"too").await.unwrap();
        let mut new = TcpStream::connect(proxy.address()).await.unwrap();
        new.write_all(b"new").await.unwrap();
        let mut answer = [0; 3];
        let passes = tokio::select! {
            read = server.read_exact(&mut word) => format!("{read:?}"),
            read = client.read_exact(&mut answer) => format!("{read:?}"),
            accepted = behind.accept() => format!("{accepted:?}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(300)) => String::new(),
        };
        assert_eq!(passes, "");
        proxy.cut(|_| false);
        server.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"two");
        client.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"too");
        let (mut server, _) = behind.accept().await.unwrap();
        server.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"new");
    }

    #[tokio::test]
    async fn a_connection_is_cut_by_the_name_of_the_node_that_made_it() {
        let behind = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = SelectiveProxy::start(behind.local_addr().unwrap()).await.unwrap();
        proxy.cut(|node| node == "chat-7");
        let dir = tempfile::tempdir().unwrap();
        let connect = |name: &str| {
            let port = proxy.address().port();
            let mut command = Command::new("bash");
            command
                .args([
                    "-c",
                    &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo $TERN_NODE_NAME >&3; read <&3"),
                ])
                .env("TERN_NODE_NAME", name);
            Process::spawn(name, command, &dir.path().join(name)).unwrap()
        };
        let next = async || {
            let (mut server, _) = behind.accept().await.unwrap();
            let mut name = [0; 7];
            server.read_exact(&mut name).await.unwrap();
            (String::from_utf8_lossy(&name).trim_end().to_owned(), server)
        };
        let _cut = connect("chat-7");
        let _passes = connect("chat-8");
        let (name, _open) = next().await;
        assert_eq!(name, "chat-8");
        proxy.cut(|_| false);
        assert_eq!(next().await.0, "chat-7");
    }
}
