//! The addresses on which a gateway may listen.

use crate::support::World;

#[tokio::test]
async fn plain_text_is_refused_where_others_could_listen() {
    use clap::Parser;
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        config: tern_gateway::Config,
    }
    let world = World::start(&[]).await;
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key.pem");
    std::fs::write(&key, tern_identity::token::generate_pem().unwrap()).unwrap();
    let key = key.to_str().unwrap();
    let flags = [
        "gateway",
        "--gateway-listen",
        "0.0.0.0:0",
        "--token-verify-files",
        key,
    ];
    let start = |flags: Vec<&str>| {
        let config = Flags::parse_from(flags).config;
        let ctx = world.ctx.clone();
        async move {
            tern_gateway::server::start(config, ctx, &mut tonic::service::Routes::builder())
                .await
                .map(drop)
        }
    };
    let error = start(flags.to_vec()).await.expect_err("refused");
    assert!(error.to_string().contains("--gateway-plaintext"), "{error}");
    let asked = flags.iter().copied().chain(["--gateway-plaintext"]).collect();
    start(asked).await.expect("asked for");
}
