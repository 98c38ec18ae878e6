//! Finds the server, the user and the device: from flags, or from the files that `tern-dev dev` writes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tern_client::client::stored_credentials;
use tern_client::{BackEnd, ClientConfig, Credentials, StopReason, StoreLocation, Tls};

use super::ChatArgs;

/// Everything that a client of one device needs to start.
pub struct Device {
    /// The settings of the client.
    pub config: ClientConfig,
    /// The back end that finds people by name; `None` without an API key.
    pub back_end: Option<BackEnd>,
    /// The file with the device's store.
    pub store: PathBuf,
    /// The directory where files are saved.
    pub downloads: PathBuf,
}

/// Returns the device that the flags name. On first use it creates the user and links the device, and fails without an
/// API key.
pub async fn device(args: &ChatArgs) -> anyhow::Result<Device> {
    let servers = servers(args)?;
    let tls = tls(args)?;
    let back_end = api_key(args)
        .map(|key| BackEnd::new(&servers, &tls, &key))
        .transpose()?;
    let store = store_file(args);
    if args.relink {
        remove(&store)?;
    }
    let mut config = ClientConfig::new(servers, StoreLocation::File(store.clone())).tls(tls);
    config.client_version = concat!("tern-chat/", env!("CARGO_PKG_VERSION")).to_owned();
    if !store.exists() || stored_credentials(config.store.clone()).await?.is_none() {
        let back_end = back_end.as_ref().context(
            "this device is new, and linking it takes an API key (--api-key); with `tern-dev dev` running it is found by itself",
        )?;
        config.credentials = Some(link(back_end, args).await?);
    }
    Ok(Device {
        config,
        back_end,
        store,
        downloads: args.downloads.clone().unwrap_or_else(downloads),
    })
}

/// Creates the user if there is none of this name, and links a new device.
async fn link(back_end: &BackEnd, args: &ChatArgs) -> anyhow::Result<Credentials> {
    let name = args.name.clone().unwrap_or_else(|| capitalised(&args.user));
    let user = back_end
        .create_user(&args.user, &name)
        .await
        .context("make the user")?;
    let device = args.device.clone().unwrap_or_else(|| "terminal".to_owned());
    let linked = back_end.link_device(user, &device, "cli").await;
    linked.with_context(|| format!("link the device {device:?} of {}", args.user))
}

/// Turns the reason why the client ended into the program's result, which is `Ok` if the user left and otherwise an
/// error that says why. If the device was revoked, its store is erased.
pub fn farewell(reason: &StopReason, store: &Path) -> anyhow::Result<()> {
    match reason {
        StopReason::ByApp => Ok(()),
        StopReason::Replaced => anyhow::bail!("this device was opened elsewhere; that one goes on"),
        StopReason::Revoked => {
            remove(store)?;
            anyhow::bail!("this device was revoked; its messages here are erased")
        }
        StopReason::Suspended => {
            anyhow::bail!("the operator keeps this user out for now; its messages are kept")
        }
        StopReason::SignedOut => {
            anyhow::bail!("the server does not know this device any more; --relink links it anew")
        }
        StopReason::Refused(why) => anyhow::bail!("the server refused this client: {why}"),
        StopReason::StoreFailed(why) => anyhow::bail!("{}: {why}", store.display()),
    }
}

/// Removes the SQLite files of a store, if they are there.
fn remove(store: &Path) -> anyhow::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut file = store.as_os_str().to_owned();
        file.push(suffix);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", PathBuf::from(file).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn servers(args: &ChatArgs) -> anyhow::Result<Vec<String>> {
    if !args.servers.is_empty() {
        return Ok(args.servers.clone());
    }
    let file = args.dir.join("gateways");
    let text = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "no --server given, and {} is not there: is `tern-dev dev` running?",
            file.display()
        )
    })?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn tls(args: &ChatArgs) -> anyhow::Result<Tls> {
    let development = args.dir.join("ca.pem");
    let file = match &args.ca {
        Some(file) => file.clone(),
        // A server that was named by hand has a certificate that this machine trusts, unless --ca says otherwise.
        None if args.servers.is_empty() && development.exists() => development,
        None => return Ok(Tls::System),
    };
    let pem = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(Tls::Roots(pem))
}

fn api_key(args: &ChatArgs) -> Option<String> {
    if args.api_key.is_some() {
        return args.api_key.clone();
    }
    // The key of `tern-dev dev` is only ever sent to `tern-dev dev`, not to a server that was named by hand.
    let own = args.servers.is_empty();
    let key = own
        .then(|| std::fs::read_to_string(args.dir.join("api-key")).ok())
        .flatten()?;
    Some(key.trim().to_owned())
}

/// Returns the directory for the stores. By default it is named after the directory of `tern-dev dev`, so that the
/// devices of one platform are never used with another.
fn data_dir(args: &ChatArgs) -> PathBuf {
    args.data_dir.clone().unwrap_or_else(|| {
        // `.` and `..` are no names to append to.
        let named = args.dir.file_name().is_some();
        let dir = std::fs::canonicalize(&args.dir).ok().filter(|_| !named);
        let dir = dir.unwrap_or_else(|| args.dir.clone());
        let mut beside = dir.components().as_path().as_os_str().to_owned();
        beside.push("-chat");
        beside.into()
    })
}

/// Returns the file for the device's store, as in `alice.db`, or `alice-tv.db` with `--device tv`.
fn store_file(args: &ChatArgs) -> PathBuf {
    let device = args
        .device
        .as_ref()
        .map(|device| format!("-{}", file_name(device)))
        .unwrap_or_default();
    data_dir(args).join(format!("{}{device}.db", file_name(&args.user)))
}

/// Turns a name into a part of a file name: characters that could mean something in a path become `_`.
fn file_name(name: &str) -> String {
    let safe = |c: char| {
        if c.is_alphanumeric() || matches!(c, '.' | '_' | '@') {
            c
        } else {
            '_'
        }
    };
    name.chars()
        .map(safe)
        .collect::<String>()
        .trim_start_matches('.')
        .to_owned()
}

/// Returns the directory for saved files: the one that the desktop's settings name, else `Downloads` in the home
/// directory, else the working directory.
fn downloads() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let said = home.as_ref().and_then(|home| {
        let settings = std::fs::read_to_string(home.join(".config/user-dirs.dirs")).ok()?;
        named_downloads(&settings, home)
    });
    said.or_else(|| Some(home?.join("Downloads")))
        .unwrap_or_else(|| PathBuf::from("."))
}

/// Returns the directory of the line `XDG_DOWNLOAD_DIR="$HOME/Downloads"` of a desktop's settings. `None` if there is
/// no such line or its path is relative.
fn named_downloads(settings: &str, home: &Path) -> Option<PathBuf> {
    let line = settings
        .lines()
        .find_map(|line| line.trim().strip_prefix("XDG_DOWNLOAD_DIR="))?;
    let path = line.trim_matches('"');
    match path.strip_prefix("$HOME") {
        Some(rest) => Some(home.join(rest.trim_start_matches('/'))),
        None => Some(PathBuf::from(path)).filter(|path| path.is_absolute()),
    }
}

/// Returns the name with its first letter in upper case.
pub fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        chat: ChatArgs,
    }

    #[test]
    fn devices_are_kept_beside_the_platform_that_they_are_of() {
        let cases: [(&[&str], &str); 4] = [
            (&["--dir", "a/dev"], "a/dev-chat/bob.db"),
            (&["--dir", "/srv/tern/"], "/srv/tern-chat/bob.db"),
            (&["--dir", "a/dev", "--device", "tv"], "a/dev-chat/bob-tv.db"),
            (&["--dir", "a/dev", "--data-dir", "b"], "b/bob.db"),
        ];
        for (flags, file) in cases {
            let line = ["chat", "--user", "bob"].into_iter().chain(flags.iter().copied());
            let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
            assert_eq!(store_file(&line.chat), PathBuf::from(file), "{flags:?}");
        }
        let mut here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let line = <Line as clap::Parser>::try_parse_from(["chat", "--user", "bob", "--dir", "."]).unwrap();
        here.as_mut_os_string().push("-chat");
        assert_eq!(store_file(&line.chat), here.join("bob.db"));
    }

    #[test]
    fn names_become_files_and_never_paths() {
        for (name, file) in [
            ("alice", "alice"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("a b", "a_b"),
            (".hidden", "hidden"),
        ] {
            assert_eq!(file_name(name), file);
        }
        assert_eq!(capitalised("alice"), "Alice");
    }

    #[test]
    fn downloads_are_where_the_desktop_says() {
        let home = Path::new("/home/alice");
        let cases = [
            ("XDG_DOWNLOAD_DIR=\"$HOME/Loaded\"\n", Some("/home/alice/Loaded")),
            ("# none\n  XDG_DOWNLOAD_DIR=\"/data/in\"", Some("/data/in")),
            ("XDG_DOWNLOAD_DIR=\"relative\"", None),
            ("XDG_MUSIC_DIR=\"$HOME/Music\"", None),
        ];
        for (settings, found) in cases {
            assert_eq!(
                named_downloads(settings, home),
                found.map(PathBuf::from),
                "{settings}"
            );
        }
    }
}
