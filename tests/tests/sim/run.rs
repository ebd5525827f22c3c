//! Runs worlds: one, or many on all processors, and says what broke.
//!
//! A panic in a world is its end, whether an invariant of the simulation or an assertion of the product found it. Nothing is printed of
//! a world but the first that breaks.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};

use super::plan::Planted;
use super::seen::Seen;
use super::world::World;

/// How a world ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) hash: u64,
    pub(crate) events: usize,
    pub(crate) seen: Seen,
    /// What broke, and the newest events.
    pub(crate) broken: Option<String>,
}

/// A world that broke.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) seed: u64,
    pub(crate) text: String,
}

/// How many worlds ended.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) seen: Seen,
    pub(crate) broken: Option<Broken>,
}

thread_local! {
    /// A world runs on this thread: its panics are not printed.
    static IN_WORLD: Cell<bool> = const { Cell::new(false) };
    static WHERE: Cell<Option<(&'static str, u32)>> = const { Cell::new(None) };
}

/// Keeps the place of a panic in a world, and prints all others as usual.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IN_WORLD.get() {
                return usual(panic);
            }
            let place = panic.location().map(|place| (place.file().to_owned(), place.line()));
            // A world ends at most once per thread and run: what is leaked is bounded by the worlds that break.
            WHERE.set(place.map(|(file, line)| (&*file.leak(), line)));
        }));
    });
}

/// Runs the world of `seed` to its end.
pub(crate) fn run_one(seed: u64, planted: Option<Planted>) -> Ended {
    alone(|| run_world(World::new(seed, planted, false)).0)
}

/// Each world has a thread of its own: what the product keeps per thread (compression) must not come from the world before.
fn alone<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let world = scope.spawn(run);
        world.join().expect("a world ends in an outcome, whatever breaks in it")
    })
}

fn run_world(mut world: World) -> (Ended, World) {
    hook();
    IN_WORLD.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    IN_WORLD.set(false);
    let broken = outcome.err().map(|panic| {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let (file, line) = WHERE.take().unwrap_or(("?", 0));
        let what = what.unwrap_or_else(|| "a panic without a text".to_owned());
        format!("{what}\n  at {file}:{line}\n  {:?}\n{}", world.plan, world.trace.text())
    });
    let ended = Ended {
        hash: world.trace.hash(),
        events: world.trace.count(),
        seen: world.seen,
        broken,
    };
    (ended, world)
}

/// Runs many worlds on all processors, until one breaks.
pub(crate) fn run_many(seeds: Range<u64>, planted: Option<Planted>) -> Summary {
    let threads = number("FELLBECK_SIM_THREADS")
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |count| count.get() as u64));
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Summary {
        seen: Seen::default(),
        broken: None,
    });
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let ended = run_one(seed, planted);
                    let mut sum = sum.lock().expect("no thread panics outside of a world");
                    sum.seen.add(&ended.seen);
                    if let Some(text) = ended.broken {
                        stop.store(true, Ordering::Relaxed);
                        if sum.broken.as_ref().is_none_or(|known| seed < known.seed) {
                            sum.broken = Some(Broken { seed, text });
                        }
                    }
                    let done = seed + 1 - seeds.start;
                    if done.is_multiple_of(100_000) {
                        println!("{done} worlds: {:?}", sum.seen);
                    }
                }
            });
        }
    });
    sum.into_inner().expect("no thread panics outside of a world")
}

/// Runs one world and tells all of it.
pub(crate) fn show(seed: u64) {
    let (ended, text) = alone(|| {
        let (ended, world) = run_world(World::new(seed, None, true));
        (ended, format!("{:?}\n{}", world.plan, world.trace.text()))
    });
    println!("{text}");
    println!(
        "world {seed}: {} events, hash {:016x}, {:?}",
        ended.events, ended.hash, ended.seen
    );
    if let Some(text) = ended.broken {
        panic!("world {seed}: {}", text.lines().next().unwrap_or_default());
    }
}

/// A number of the environment.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
