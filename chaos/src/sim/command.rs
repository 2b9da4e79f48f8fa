//! `chaos simulate`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::Args;

use super::mutation::Mutation;
use super::run::{Ended, Request, run};

/// What to simulate.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// The seeds, as in 0..1000.
    #[arg(long, value_parser = range, default_value = "0..1000")]
    seeds: (u64, u64),
    /// One seed, with its trace if a promise breaks.
    #[arg(long)]
    seed: Option<u64>,
    /// Break the product in this way.
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
    /// Look at this promise alone.
    #[arg(long)]
    only: Option<String>,
    /// Stop after that long, however many seeds are left.
    #[arg(long)]
    minutes: Option<u64>,
    /// Every line of the story, to standard error.
    #[arg(long)]
    trace: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (low, high) = text.split_once("..").ok_or("a range is written 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok((number(low)?, number(high)?))
}

/// The sum of many runs.
#[derive(Default)]
struct Total {
    seeds: u64,
    seconds: u64,
    steps: u64,
    promises: u64,
    written_off: u64,
    promotions: u64,
    deposals: usize,
    broken: Vec<(u64, &'static str, String)>,
}

pub(crate) fn simulate(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(seed) = arguments.seed {
        return Ok(one(arguments, seed));
    }
    let (first, last) = arguments.seeds;
    let (next, total) = (AtomicU64::new(first), Mutex::new(Total::default()));
    let began = std::time::Instant::now();
    let in_time = || arguments.minutes.is_none_or(|minutes| began.elapsed().as_secs() < minutes * 60);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if last <= seed || !in_time() {
                        return;
                    }
                    let request = Request {
                        seed,
                        mutation: arguments.mutation,
                        trace: false,
                        quiet: true,
                        only: arguments.only.clone(),
                    };
                    let ended = run(&request);
                    add(&mut total.lock().unwrap_or_else(PoisonError::into_inner), seed, ended, arguments);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "{} seeds, {:.1} simulated hours, {} steps, {} commits promised, {} written off, {} promotions, {} leaders \
         replaced early, {} broken",
        total.seeds,
        total.seconds as f64 / 3600.0,
        total.steps,
        total.promises,
        total.written_off,
        total.promotions,
        total.deposals,
        total.broken.len()
    );
    Ok(if total.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn add(total: &mut Total, seed: u64, ended: Ended, arguments: &Arguments) {
    total.seeds += 1;
    total.seconds += ended.at.0 / 1_000_000_000;
    total.steps += ended.steps;
    total.promises += ended.promises as u64;
    total.written_off += ended.written_off as u64;
    total.promotions += ended.promotions;
    total.deposals += ended.deposals;
    if let Some((invariant, text)) = ended.broken {
        println!("seed {seed}: {invariant} at {}: {text}\n  {}", ended.at, again(arguments, seed));
        total.broken.push((seed, invariant, text));
    }
}

/// The one command that tells this story again.
fn again(arguments: &Arguments, seed: u64) -> String {
    use clap::ValueEnum;
    let mutation = arguments.mutation.and_then(|mutation| mutation.to_possible_value());
    let mutation = mutation.map(|value| format!(" --mutation {}", value.get_name())).unwrap_or_default();
    let only = arguments.only.as_ref().map(|only| format!(" --only {only}")).unwrap_or_default();
    format!("cargo run --release -p chaos -- simulate --seed {seed}{mutation}{only}")
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let request = Request {
        seed,
        mutation: arguments.mutation,
        trace: arguments.trace,
        quiet: false,
        only: arguments.only.clone(),
    };
    let ended = run(&request);
    println!(
        "seed {seed}: {} simulated, {} steps, {} commits promised, {} written off, {} promotions, story {:016x}",
        ended.at, ended.steps, ended.promises, ended.written_off, ended.promotions, ended.digest
    );
    match ended.broken {
        None => ExitCode::SUCCESS,
        Some((invariant, text)) => {
            for line in ended.tail.iter().filter(|_| !arguments.trace) {
                println!("  {line}");
            }
            println!("{invariant}: {text}\n{}", again(arguments, seed));
            ExitCode::FAILURE
        }
    }
}
