//! `chaos simulate`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;

use super::false_alarm::{self, Calm};
use super::mutation::Mutation;
use super::run::{Ended, Request, run};
use crate::invariant::false_alarm::Alarms;

/// No leader that stands still for less than half a second is to be replaced.
const STALLS_BELOW_MS: u64 = 500;

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
    /// Stories without a fault, in synchronous clusters with `failover: recruit`. Short stalls, a lossy network and
    /// load are no reason to replace a leader.
    #[arg(long)]
    false_alarms: bool,
    /// With `--false-alarms`: how long stalls last at most, in milliseconds.
    #[arg(long, requires = "false_alarms", default_value_t = STALLS_BELOW_MS)]
    stalls_below: u64,
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
    alarms: Alarms,
    /// The longest wait of a commit, and its seed.
    longest_wait: (Duration, u64),
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
                    let ended = arguments.tell(seed, false, true);
                    add(&mut total.lock().unwrap_or_else(PoisonError::into_inner), seed, ended, arguments);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{}", if arguments.false_alarms { total.of_false_alarms() } else { total.of_stories() });
    Ok(if total.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Total {
    fn of_stories(&self) -> String {
        format!(
            "{} seeds, {:.1} simulated hours, {} steps, {} commits promised, {} written off, {} promotions, {} leaders \
             replaced early, {} broken",
            self.seeds,
            self.seconds as f64 / 3600.0,
            self.steps,
            self.promises,
            self.written_off,
            self.promotions,
            self.deposals,
            self.broken.len()
        )
    }

    fn of_false_alarms(&self) -> String {
        let (longest, seed) = self.longest_wait;
        format!(
            "{} seeds, {:.1} simulated hours, {} commits; {}; the longest wait of a commit: {:.2} s (seed {seed}); {} broken",
            self.seeds,
            self.seconds as f64 / 3600.0,
            self.promises,
            self.alarms,
            longest.as_secs_f64(),
            self.broken.len(),
        )
    }
}

impl Arguments {
    fn tell(&self, seed: u64, trace: bool, quiet: bool) -> Ended {
        let request = Request { seed, mutation: self.mutation, trace, quiet, only: self.only.clone() };
        let calm = Calm { stalls_below: Duration::from_millis(self.stalls_below), lasts: None };
        if self.false_alarms { false_alarm::tell(&request, calm) } else { run(&request) }
    }
}

fn add(total: &mut Total, seed: u64, ended: Ended, arguments: &Arguments) {
    total.seeds += 1;
    total.seconds += ended.at.0 / 1_000_000_000;
    total.steps += ended.steps;
    total.promises += ended.promises as u64;
    total.written_off += ended.written_off as u64;
    total.promotions += ended.promotions;
    total.deposals += ended.deposals;
    total.alarms.add(&ended.alarms);
    total.longest_wait = total.longest_wait.max((ended.longest_wait, seed));
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
    let calm = match arguments.false_alarms {
        true => format!(" --false-alarms --stalls-below {}", arguments.stalls_below),
        false => String::new(),
    };
    format!("cargo run --release -p chaos -- simulate{calm} --seed {seed}{mutation}{only}")
}

fn one(arguments: &Arguments, seed: u64) -> ExitCode {
    let ended = arguments.tell(seed, arguments.trace, false);
    println!(
        "seed {seed}: {} simulated, {} steps, {} commits promised, {} written off, {} promotions, story {:016x}",
        ended.at, ended.steps, ended.promises, ended.written_off, ended.promotions, ended.digest
    );
    if arguments.false_alarms {
        println!("{}; the longest wait of a commit: {:.2} s", ended.alarms, ended.longest_wait.as_secs_f64());
    }
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
