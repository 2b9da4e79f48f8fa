//! Registers of one row each: is there an order of the writes and reads in which every read sees the last write, and
//! which no two operations leave that followed one another in time?
//!
//! The search is the one of stateright's linearizability tester, with a memory of where it has been and without copies
//! of what it has found, so that it can take hundreds of operations; a test holds the two against each other.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A register is done with when this many newer ones have been seen: no operation takes as long.
const OPEN_MAX: i64 = 20;
/// States that a search may visit.
const VISITS_MAX: usize = 2_000_000;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// The value written; a read when there is none.
    write: Option<i64>,
    /// The value read.
    read: Option<i64>,
    from: u64,
    /// When it was answered; never, for a write of which nobody told.
    to: Option<u64>,
}

/// What a search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Found,
    None,
    Undecided,
}

/// All registers of a run; finished ones are only counted.
#[derive(Debug, Default)]
pub(crate) struct Registers {
    open: BTreeMap<i64, Vec<Operation>>,
    /// Checked.
    pub(crate) checked: u64,
    /// Without an order.
    pub(crate) broken: u64,
    /// Given up.
    pub(crate) undecided: u64,
}

impl Registers {
    /// Takes in an operation: what was written and read, and when. Says what is wrong with finished registers.
    pub(crate) fn see(
        &mut self,
        id: i64,
        (write, read): (Option<i64>, Option<i64>),
        (from, to): (u64, Option<u64>),
    ) -> Vec<String> {
        if write.is_some() || to.is_some() {
            self.open.entry(id).or_default().push(Operation { write, read, from, to });
        }
        let mut told = Vec::new();
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() + OPEN_MAX < id) {
            let (id, operations) = entry.remove_entry();
            told.extend(self.check(id, &operations));
        }
        told
    }

    /// Checks those that are still open.
    pub(crate) fn finish(&mut self) -> Vec<String> {
        let open = std::mem::take(&mut self.open);
        open.iter().filter_map(|(id, operations)| self.check(*id, operations)).collect()
    }

    fn check(&mut self, id: i64, operations: &[Operation]) -> Option<String> {
        self.checked += 1;
        match order(operations) {
            Order::Found => None,
            Order::None => {
                self.broken += 1;
                let (from, to) = span(operations);
                Some(format!("register {id}, used from {from} to {to} us, has no order"))
            }
            Order::Undecided => {
                self.undecided += 1;
                None
            }
        }
    }
}

fn span(operations: &[Operation]) -> (u64, u64) {
    let from = operations.iter().map(|operation| operation.from).min();
    let to = operations.iter().filter_map(|operation| operation.to).max();
    (from.unwrap_or_default(), to.unwrap_or_default())
}

/// Where a search is: which operations are ordered, and the value after them.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Position {
    done: Vec<u64>,
    value: Option<i64>,
}

impl Position {
    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] & (1 << (index % 64)) != 0
    }

    fn after(&self, index: usize, value: Option<i64>) -> Position {
        let mut next = Position { done: self.done.clone(), value };
        next.done[index / 64] |= 1 << (index % 64);
        next
    }
}

/// Looks for an order, depth first.
fn order(operations: &[Operation]) -> Order {
    let mut operations: Vec<Operation> = needed(operations);
    operations.sort_by_key(|operation| operation.from);
    let start = Position { done: vec![0; operations.len() / 64 + 1], value: None };
    let mut seen = HashSet::from([start.clone()]);
    let mut stack = vec![start];
    while let Some(position) = stack.pop() {
        let left = || operations.iter().enumerate().filter(|(index, _)| !position.is_done(*index));
        // Whoever comes next began before any of the others ended.
        let Some(by) = left().filter_map(|(_, operation)| operation.to).min() else { return Order::Found };
        for (index, operation) in left().take_while(|(_, operation)| operation.from <= by) {
            let next = match operation.write {
                Some(value) => position.after(index, Some(value)),
                None if operation.read == position.value => position.after(index, position.value),
                None => continue,
            };
            if seen.insert(next.clone()) {
                stack.push(next);
            }
        }
        if seen.len() > VISITS_MAX {
            return Order::Undecided;
        }
    }
    Order::None
}

/// A write of which nobody told and whose value nobody read may as well never have happened.
fn needed(operations: &[Operation]) -> Vec<Operation> {
    let read: BTreeSet<i64> = operations.iter().filter_map(|operation| operation.read).collect();
    let needed = |operation: &&Operation| {
        operation.to.is_some() || operation.write.is_some_and(|value| read.contains(&value))
    };
    operations.iter().filter(needed).copied().collect()
}

#[cfg(test)]
mod tests {
    use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
    use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

    use super::*;
    use crate::rng::Rng;

    /// What stateright says of the same operations, each in a thread of its own.
    fn tester_says(operations: &[Operation]) -> bool {
        let mut tester = LinearizabilityTester::new(Register(None));
        let mut steps: Vec<(u64, bool, usize)> = Vec::new();
        for (thread, operation) in operations.iter().enumerate() {
            steps.push((operation.from, false, thread));
            steps.extend(operation.to.map(|to| (to, true, thread)));
        }
        steps.sort();
        for (_, is_return, thread) in steps {
            let operation = operations[thread];
            let done = match (is_return, operation.write) {
                (false, Some(value)) => tester.on_invoke(thread, RegisterOp::Write(Some(value))),
                (false, None) => tester.on_invoke(thread, RegisterOp::Read),
                (true, Some(_)) => tester.on_return(thread, RegisterRet::WriteOk),
                (true, None) => tester.on_return(thread, RegisterRet::ReadOk(operation.read)),
            };
            done.expect("a thread does one thing at a time");
        }
        tester.is_consistent()
    }

    #[test]
    fn the_search_agrees_with_the_tester_of_stateright() {
        let mut rng = Rng::new(7);
        let mut found = [0, 0];
        for _ in 0..3000 {
            let count = 2 + rng.below(5) as i64;
            let mut moments: Vec<u64> = (0..2 * count as u64).collect();
            rng.shuffle(&mut moments);
            let operations: Vec<Operation> = (0..count)
                .map(|number| {
                    let pair = [moments[2 * number as usize], moments[2 * number as usize + 1]];
                    let (from, to) = (pair[0].min(pair[1]), Some(pair[0].max(pair[1])));
                    let value = rng.below(count as u64) as i64;
                    match rng.below(5) {
                        0 | 1 => Operation { write: Some(number), read: None, from, to },
                        2 => Operation { write: Some(number), read: None, from, to: None },
                        3 => Operation { write: None, read: None, from, to },
                        _ => Operation { write: None, read: Some(value), from, to },
                    }
                })
                .collect();
            let ours = order(&operations) == Order::Found;
            assert_eq!(ours, tester_says(&operations), "{operations:?}");
            found[usize::from(ours)] += 1;
        }
        assert!(found.iter().all(|count| *count > 100), "both answers were tried: {found:?}");
    }

    #[test]
    fn hundreds_of_operations_are_ordered() {
        let operations: Vec<Operation> = (0..600)
            .map(|number| {
                let (from, to) = (number as u64 * 10, Some(number as u64 * 10 + 35));
                let write = (number % 2 == 0).then_some(number);
                let read = (number % 2 == 1).then_some(number - 1);
                Operation { write, read, from, to }
            })
            .collect();
        assert_eq!(order(&operations), Order::Found);
    }
}
