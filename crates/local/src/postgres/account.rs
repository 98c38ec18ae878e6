//! The account under which a server runs, because Postgres refuses to run as root.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;

/// The account under which the server runs.
pub(super) enum Account {
    /// The account of this process.
    Ourselves,
    /// The account `postgres`, because this process runs as root.
    Other(Uid, Gid),
}

impl Account {
    pub(super) fn find() -> anyhow::Result<Self> {
        if !Uid::effective().is_root() {
            return Ok(Self::Ourselves);
        }
        let user = User::from_name("postgres")?;
        let user =
            user.context("Postgres does not run as root, and there is no user postgres: install PostgreSQL")?;
        Ok(Self::Other(user.uid, user.gid))
    }

    /// Returns a command that runs the program under this account. A change of the user clears the signal that a process
    /// has asked for at its parent's death, so setpriv asks for it again if the program is to end with this one.
    pub(super) fn command(&self, program: &Path, dies_with_us: bool) -> Command {
        let Self::Other(uid, gid) = self else {
            return Command::new(program);
        };
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={gid}"))
            .arg("--clear-groups");
        if dies_with_us {
            command.arg("--pdeathsig=QUIT");
        }
        command.arg("--").arg(program);
        // The server does not start in a directory that it cannot read.
        command.current_dir("/");
        command
    }

    /// Returns the data directory for `dir`. If the account is not our own, the directory is made, belongs to the
    /// account, and lies where the account can reach it.
    pub(super) fn place(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let Self::Other(uid, gid) = self else {
            let data = dir.join("postgres");
            return Ok(data);
        };
        let data = if reachable(&dir) {
            dir.join("postgres")
        } else {
            let mut hasher = DefaultHasher::new();
            dir.hash(&mut hasher);
            PathBuf::from(format!("/var/tmp/tern-postgres-{:016x}", hasher.finish()))
        };
        if let Ok(there) = fs::symlink_metadata(&data) {
            let ours = there.is_dir() && [*uid, Uid::effective()].contains(&Uid::from_raw(there.uid()));
            anyhow::ensure!(ours, "{} belongs to somebody else", data.display());
        } else {
            let made = fs::DirBuilder::new().mode(0o700).create(&data);
            made.with_context(|| format!("create {}", data.display()))?;
        }
        chown(&data, Some(uid.as_raw()), Some(gid.as_raw()))?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        Ok(data)
    }
}

/// Returns whether every user may pass through all directories on the path.
fn reachable(dir: &Path) -> bool {
    dir.ancestors()
        .all(|step| fs::metadata(step).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0))
}
