//! Files on SeaweedFS, an independent S3 server.

use tern_local::weed::{self, Weed};

use crate::MIB;
use crate::studio::Studio;

#[tokio::test]
#[allow(
    clippy::print_stderr,
    reason = "who reads the test's output is told what it left out"
)]
async fn files_small_and_large_go_through_seaweedfs() {
    let Some(program) = weed::program() else {
        eprintln!("left out: SeaweedFS is not installed (`make tools`)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let weed = Weed::start(&program, dir.path()).await.unwrap();
    let studio = Studio::on(weed.access.clone(), None, tempfile::tempdir().unwrap()).await;
    let [alice, bob] = studio.world.users(["alice", "bob"]).await;
    let (hers, his) = (studio.person(&alice).await, studio.person(&bob).await);
    for length in [0, 1000, 20 * MIB] {
        let file = studio.file(&format!("{length}.bin"), length);
        let uploaded = hers.upload(&file).await.unwrap();
        hers.client.send_files(bob.id, "", vec![uploaded]).await.unwrap();
        let (entry, body) = his.receives().await;
        let to = studio.files.path().join(format!("{length}.saved"));
        let read = his.download(entry.chat, &body.files[0], &to).await.unwrap();
        assert_eq!(read, std::fs::read(&file).unwrap());
    }
    studio.world.end().await;
}
