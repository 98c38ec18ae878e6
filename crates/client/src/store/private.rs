//! Makes files that only their owner may read, from the moment in which they are made, because a store holds the
//! device's tokens and messages. SQLite gives the files that it makes beside a database the mode of the database.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::path::Path;

/// Makes a directory and its missing parents for the owner alone. An existing directory keeps its mode.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes a file for the owner alone. If the file exists and others may read it, their rights are removed.
pub(super) fn make_file(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mut permissions = file.metadata()?.permissions();
        if permissions.mode() & 0o077 != 0 {
            permissions.set_mode(0o600);
            file.set_permissions(permissions)?;
        }
    }
    drop(file);
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::config::StoreLocation;
    use crate::store::Store;

    #[test]
    fn a_store_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("people/alice/phone.sqlite");
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let open = || Store::open(&StoreLocation::File(file.clone()), true).unwrap();
        let store = open();
        for directory in file.ancestors().skip(1).take(2) {
            assert_eq!(mode(directory), 0o700, "{}", directory.display());
        }
        let made = std::fs::read_dir(file.parent().unwrap()).unwrap();
        let made: Vec<_> = made.map(|entry| entry.unwrap().path()).collect();
        assert!(
            made.len() > 1,
            "with the files that SQLite makes beside it: {made:?}"
        );
        for path in made {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        drop(store);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        drop(open());
        assert_eq!(mode(&file), 0o600, "one of an older version is closed");
    }
}
