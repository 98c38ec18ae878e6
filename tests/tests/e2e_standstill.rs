//! How long conversations stand still when something dies. The times are measured on real processes and printed. The
//! only bound is one against hanging, because machines differ. `cargo nextest run -p tern-tests --test e2e_standstill
//! --no-capture` prints them.

use std::time::{Duration, Instant};

use futures::future::join_all;
use tern_local::Builder;
use tern_tests::world::FAILOVER_GRACE;
use tern_tests::{Phone, World};
use tern_types::ChatId;
use tokio::sync::watch;

/// The number of conversations. With so many, every chat node and every presence node has some.
const PAIRS: usize = 16;
/// The time for which conversations go on before and after the event that is measured.
const CALM: Duration = Duration::from_secs(2);
/// The time within which a message has to arrive. A failover that waits for a lease takes less, also on a busy machine.
const NEVER: Duration = Duration::from_secs(60);

fn patient(builder: Builder) -> Builder {
    builder.env(FAILOVER_GRACE.0, FAILOVER_GRACE.1)
}

struct Pair {
    chat: ChatId,
    hers: Phone,
    his: Phone,
}

async fn pairs(world: &World) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let [alice, bob] = world.users(["alice", "bob"]).await;
        let (hers, his) = (world.phone(&alice).await, world.phone(&bob).await);
        hers.say(bob.id, "first").await;
        let chat = ChatId::direct(alice.id, bob.id);
        his.has_text(chat, "first").await;
        pairs.push(Pair { chat, hers, his });
    }
    pairs
}

impl Pair {
    /// Sends one message after the other until `stop` is true, each when the one before has arrived. Returns the
    /// longest time that one of them took.
    async fn talk(&self, stop: &watch::Receiver<bool>) -> Duration {
        let mut longest = Duration::ZERO;
        for number in 0.. {
            let (text, said) = (format!("{number}"), Instant::now());
            self.hers.send(self.chat, text.as_bytes()).await;
            self.his.has_text(self.chat, &text).await;
            longest = longest.max(said.elapsed());
            if *stop.borrow() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        longest
    }
}

#[allow(clippy::print_stderr, reason = "the figure is what the test is for")]
fn say(figure: &str) {
    eprintln!("{figure}");
}

/// Returns the longest time that a message took over all conversations, while `happens` ran.
async fn standstill(what: &str, pairs: &[Pair], happens: impl Future<Output = ()>) -> Duration {
    let (stop, stopped) = watch::channel(false);
    let talking = join_all(pairs.iter().map(|pair| pair.talk(&stopped)));
    let events = async {
        tokio::time::sleep(CALM).await;
        happens.await;
        tokio::time::sleep(CALM).await;
        stop.send_replace(true);
    };
    let (longest, ()) = tokio::join!(talking, events);
    let mut longest: Vec<f64> = longest.into_iter().map(|time| time.as_secs_f64()).collect();
    longest.sort_unstable_by(f64::total_cmp);
    let (half, worst) = (longest[longest.len() / 2], longest[longest.len() - 1]);
    say(&format!(
        "{what}: longest wait {worst:.2} s, of half the conversations {half:.2} s"
    ));
    let worst = Duration::from_secs_f64(worst);
    assert!(worst < NEVER, "{what}: {worst:?}");
    worst
}

#[tokio::test]
async fn chats_of_killed_chat_nodes() {
    let mut world = World::with(|builder| patient(builder).chats(3)).await;
    let pairs = pairs(&world).await;
    standstill("one of three chat nodes killed", &pairs, async {
        world.platform.kill("chat-0").await.unwrap();
    })
    .await;
    world.platform.restart("chat-0").await.unwrap();
    world.platform.linked().await.unwrap();
    standstill("two of three chat nodes killed", &pairs, async {
        let (one, other) = (world.platform.kill("chat-0"), world.platform.kill("chat-1"));
        let (one, other) = tokio::join!(one, other);
        one.and(other).unwrap();
    })
    .await;
    drop(pairs);
    world.end().await;
}

#[tokio::test]
async fn people_of_killed_presence_nodes() {
    let mut world = World::with(|builder| patient(builder).presences(2)).await;
    let pairs = pairs(&world).await;
    standstill("one of two presence nodes killed", &pairs, async {
        world.platform.kill("presence-0").await.unwrap();
    })
    .await;
    world.platform.restart("presence-0").await.unwrap();
    world.platform.linked().await.unwrap();
    let platform = &mut world.platform;
    let both = async {
        for node in ["presence-0", "presence-1"] {
            platform.kill(node).await.unwrap();
        }
        for node in ["presence-0", "presence-1"] {
            platform.restart(node).await.unwrap();
        }
    };
    // The future is large and awaited once, so it is boxed.
    Box::pin(standstill(
        "both presence nodes killed and started again",
        &pairs,
        both,
    ))
    .await;
    drop(pairs);
    world.end().await;
}

#[tokio::test]
async fn everything_after_postgres_was_away() {
    let mut world = World::with_own_servers(patient).await;
    let pairs = pairs(&world).await;
    let mut away = Duration::ZERO;
    let postgres = world.platform.private_servers().unwrap().0;
    let longest = standstill("postgres away for 15 s", &pairs, async {
        let began = Instant::now();
        postgres.crash().await.unwrap();
        tokio::time::sleep(Duration::from_secs(15)).await;
        postgres.restart().await.unwrap();
        away = began.elapsed();
    })
    .await;
    let after = longest.saturating_sub(away);
    say(&format!(
        "postgres away for {away:.2?}: {after:.2?} longer than that"
    ));
    drop(pairs);
    world.end().await;
}
