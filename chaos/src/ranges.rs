//! Sets of row numbers as ranges: a run of hours writes millions, nearly all of them consecutive.

use std::collections::BTreeMap;

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// First number of each range, and its last. Ranges neither touch nor overlap.
    ranges: BTreeMap<i64, i64>,
}

impl Ranges {
    /// Adds all numbers from `first` to `last`.
    pub(crate) fn insert(&mut self, first: i64, last: i64) {
        let (mut first, mut last) = (first, last);
        // Those that touch it from below, at most one, and those that begin within it or right behind it.
        if let Some((&low, &high)) = self.ranges.range(..first).next_back()
            && high >= first - 1
        {
            self.ranges.remove(&low);
            (first, last) = (low, last.max(high));
        }
        while let Some((&low, &high)) = self.ranges.range(first..=last.saturating_add(1)).next() {
            self.ranges.remove(&low);
            last = last.max(high);
        }
        self.ranges.insert(first, last);
    }

    /// Whether the number is in it.
    pub(crate) fn contains(&self, number: i64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, last)| *last >= number)
    }

    /// How many numbers.
    pub(crate) fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| (last - first + 1) as u64).sum()
    }

    /// Each range: first and last.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, i64)> {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// What is in this and not in the other.
    pub(crate) fn without(&self, other: &Ranges) -> Ranges {
        let mut left = Ranges::default();
        for (first, last) in self.iter() {
            let mut next = first;
            let before = other.ranges.range(..first).next_back();
            for (&low, &high) in before.into_iter().chain(other.ranges.range(first..=last)) {
                if low > next {
                    left.insert(next, low - 1);
                }
                next = next.max(high.saturating_add(1));
            }
            if next <= last {
                left.insert(next, last);
            }
        }
        left
    }

    /// Adds all of the other.
    pub(crate) fn add(&mut self, other: &Ranges) {
        for (first, last) in other.iter() {
            self.insert(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(i64, i64)]) -> Ranges {
        let mut set = Ranges::default();
        for (first, last) in ranges {
            set.insert(*first, *last);
        }
        set
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let set = set(&[(1, 1), (3, 3), (2, 2), (10, 20), (15, 30), (8, 9)]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [(1, 3), (8, 30)]);
        assert_eq!(set.len(), 26);
        assert!(set.contains(3) && !set.contains(4) && set.contains(30));
    }

    #[test]
    fn a_difference_is_what_a_plain_set_would_give() {
        let plain = |set: &Ranges| (0..100).filter(|number| set.contains(*number)).collect::<Vec<i64>>();
        let cases = [
            (set(&[(1, 50)]), set(&[(0, 3), (10, 12), (49, 99)])),
            (set(&[(1, 5), (20, 30)]), set(&[(5, 20)])),
            (set(&[(1, 5)]), set(&[])),
            (set(&[(7, 7), (9, 9)]), set(&[(0, 99)])),
        ];
        for (left, right) in cases {
            let expected: Vec<i64> =
                plain(&left).into_iter().filter(|number| !right.contains(*number)).collect();
            assert_eq!(plain(&left.without(&right)), expected);
        }
    }
}
