//! Benchmarks of pure parts, that measure time by criterion and can be held to a count of instructions.
//!
//! A benchmark is a list of [`Operation`]s handed to [`run`]. By `cargo bench` each is timed. With [`REPEAT`] set to
//! `<operation> <times>` that one is repeated so often and nothing else is done: `scripts/check-instructions` does this
//! twice under valgrind and takes the difference, which leaves only the operation. With [`REPEAT`] empty the names and
//! items are listed.

use criterion::{Criterion, Throughput};

/// The environment variable that says what to repeat.
pub const REPEAT: &str = "TERN_REPEAT";

/// Something that is done over and over, each time with the same effort.
pub struct Operation {
    name: &'static str,
    items: u64,
    run: Box<dyn FnMut()>,
}

impl Operation {
    /// `run` deals with so many items each time.
    pub fn new(name: &'static str, items: u64, run: impl FnMut() + 'static) -> Self {
        Self {
            name,
            items,
            run: Box::new(run),
        }
    }
}

/// The whole of a benchmark's `main`.
///
/// # Panics
///
/// When [`REPEAT`] is set to something else than it should be.
pub fn run(operations: Vec<Operation>) {
    match std::env::var(REPEAT) {
        Err(_) => time(operations),
        Ok(asked) if asked.is_empty() => list(&operations),
        Ok(asked) => repeat(operations, &asked),
    }
}

fn time(operations: Vec<Operation>) {
    let mut criterion = Criterion::default().configure_from_args();
    for mut operation in operations {
        let mut group = criterion.benchmark_group(operation.name);
        group.throughput(Throughput::Elements(operation.items));
        group.bench_function("time", |bencher| bencher.iter(&mut operation.run));
        group.finish();
    }
    criterion.final_summary();
}

#[allow(clippy::print_stdout, reason = "the script reads it")]
fn list(operations: &[Operation]) {
    for operation in operations {
        println!("{} {}", operation.name, operation.items);
    }
}

fn repeat(operations: Vec<Operation>, asked: &str) {
    let wanted = asked.split_once(' ').and_then(|(name, times)| {
        let times: u32 = times.parse().ok()?;
        let operation = operations.into_iter().find(|operation| operation.name == name)?;
        Some((operation, times))
    });
    let Some((mut operation, times)) = wanted else {
        panic!("{REPEAT}: there is no such operation, or no number: {asked}");
    };
    for _ in 0..times {
        (operation.run)();
    }
}
