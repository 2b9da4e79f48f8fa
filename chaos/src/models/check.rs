//! Visiting a world, and the report of it.

use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// How large a world is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// For a build without optimization: seconds.
    Small,
    /// As large as a minute allows, in a build with it.
    Full,
}

/// What was found in one world.
pub(super) struct Report {
    world: &'static str,
    mutation: Option<String>,
    states: usize,
    depth: usize,
    took: Duration,
    promises: Vec<Promise>,
}

struct Promise {
    what: &'static str,
    held: Held,
}

enum Held {
    Always,
    /// It happens, first after this many steps.
    Happens(usize),
    Never,
    /// After this many steps, which are these.
    Broken(usize, String),
}

/// Visits every state of `world`, or with a mutation as many as it takes to break a promise.
pub(super) fn visit<W, M>(name: &'static str, mutation: Option<M>, world: W) -> Report
where
    W: Model + Send + Sync + 'static,
    W::State: Clone + fmt::Display + Hash + PartialEq + Send + Sync + 'static,
    W::Action: Clone + fmt::Debug + PartialEq,
    M: ValueEnum,
{
    let began = Instant::now();
    let mutation = mutation.and_then(|it| it.to_possible_value()).map(|it| it.get_name().to_owned());
    let until = if mutation.is_some() { HasDiscoveries::AnyFailures } else { HasDiscoveries::All };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let found = world.checker().threads(threads).finish_when(until).spawn_bfs().join();
    let mut discoveries = found.discoveries();
    let mut promises = Vec::new();
    for property in found.model().properties() {
        let path = discoveries.remove(property.name);
        let held = match (property.expectation, path) {
            (Expectation::Sometimes, None) => Held::Never,
            (Expectation::Sometimes, Some(path)) => Held::Happens(path.into_actions().len()),
            (Expectation::Always | Expectation::Eventually, None) => Held::Always,
            (Expectation::Always | Expectation::Eventually, Some(path)) => {
                Held::Broken(path.clone().into_actions().len(), tell(path))
            }
        };
        promises.push(Promise { what: property.name, held });
    }
    let (states, depth) = (found.unique_state_count(), found.max_depth());
    Report { world: name, mutation, states, depth, took: began.elapsed(), promises }
}

fn tell<S: fmt::Display + Clone + PartialEq, A: fmt::Debug + Clone + PartialEq>(path: Path<S, A>) -> String {
    let mut text = String::new();
    for (state, action) in path.into_vec() {
        text.push_str(&format!("\n      {state}"));
        if let Some(action) = action {
            text.push_str(&format!("\n    {action:?}"));
        }
    }
    text
}

impl Report {
    /// Whole, every promise holds; broken, at least one does not.
    pub(super) fn is_as_expected(&self) -> bool {
        let broken = self.promises.iter().any(|promise| matches!(promise.held, Held::Broken(..)));
        let never = self.promises.iter().any(|promise| matches!(promise.held, Held::Never));
        match self.mutation {
            Some(_) => broken,
            None => !broken && !never,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { world, mutation, states, depth, took, promises } = self;
        let broken = mutation.as_ref().map(|mutation| format!(" with {mutation}")).unwrap_or_default();
        write!(f, "{world}{broken}: {states} states, depth {depth}, {:.1} s", took.as_secs_f64())?;
        for Promise { what, held } in promises {
            match held {
                Held::Always => write!(f, "\n  always     {what}")?,
                Held::Happens(steps) => write!(f, "\n  happens    {what} (after {steps} steps)")?,
                Held::Never if mutation.is_some() => write!(f, "\n  not seen   {what}")?,
                Held::Never => write!(f, "\n  NEVER      {what}")?,
                Held::Broken(steps, path) => write!(f, "\n  BROKEN     {what} (after {steps} steps){path}")?,
            }
        }
        Ok(())
    }
}
