//! Runs benchmarks of pure code in two ways: timed by criterion, or repeated so that their instructions can be
//! counted.
//!
//! A benchmark is a list of [`Operation`]s handed to [`run`]. Under `cargo bench` each one is timed. When the
//! environment variable `TERN_REPEAT` is `<operation> <times>`, [`run`] repeats that one operation that many times and
//! does nothing else: `scripts/check-instructions` does this under valgrind with two different counts, and the
//! difference between them is the operation alone. When it is empty, [`run`] prints the name and the number
//! of items of each operation.

use criterion::{Criterion, Throughput};

/// The name of the environment variable that says which operation is repeated, and how often.
const REPEAT: &str = "TERN_REPEAT";

/// A named piece of work that takes the same effort each time it is done.
pub struct Operation {
    name: &'static str,
    items: u64,
    run: Box<dyn FnMut()>,
}

impl Operation {
    /// Names `run`, which processes `items` items each time it is called.
    pub fn new(name: &'static str, items: u64, run: impl FnMut() + 'static) -> Self {
        Self {
            name,
            items,
            run: Box::new(run),
        }
    }
}

/// Does everything that a benchmark's `main` has to do: times, lists or repeats `operations`, as `TERN_REPEAT` says.
///
/// # Panics
///
/// Panics when `TERN_REPEAT` is set and names no operation, or has no number after the name.
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
