//! The lag of each member over the last hour, as far as this supervisor has run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::api::wire;
use crate::model::{ClusterView, MemberName, WallTime};

/// The interval between samples: members publish their positions about as often.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// So many samples are kept: an hour.
pub(super) const SAMPLES_MAX: usize = 360;
/// So many members of a sample are kept.
const MEMBERS_MAX: usize = 32;

/// The lags at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LagSample {
    /// The time.
    pub(super) at: WallTime,
    /// Bytes behind the leader, by what was received; members of which this is not known are missing.
    pub(super) bytes: BTreeMap<MemberName, u64>,
}

/// All samples, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LagHistory(VecDeque<LagSample>);

impl LagHistory {
    /// Adds a sample; without a view one of no member, so that the plot has a gap.
    pub(super) fn add(&mut self, at: WallTime, view: Option<&ClusterView>) {
        let rows = view.map(wire::member_rows).unwrap_or_default();
        let lags = rows.into_iter().filter_map(|row| Some((row.name, row.lag?.furthest.bytes?)));
        self.0.push_back(LagSample { at, bytes: lags.take(MEMBERS_MAX).collect() });
        let surplus = self.0.len().saturating_sub(SAMPLES_MAX);
        self.0.drain(..surplus);
    }

    /// The samples.
    pub(super) fn samples(&self) -> impl DoubleEndedIterator<Item = &LagSample> + Clone {
        self.0.iter()
    }

    /// Each member with any sample.
    pub(super) fn members(&self) -> Vec<&MemberName> {
        let mut names: Vec<_> = self.0.iter().flat_map(|sample| sample.bytes.keys()).collect();
        names.sort();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tests::{name, view};

    #[test]
    fn an_hour_is_kept_and_a_time_without_etcd_is_a_gap() {
        let mut history = LagHistory::default();
        for index in 0..SAMPLES_MAX as i64 {
            history.add(WallTime(index), Some(&view()));
        }
        history.add(WallTime(1000), None);
        let samples: Vec<_> = history.samples().collect();
        assert_eq!((samples.len(), samples[0].at), (SAMPLES_MAX, WallTime(1)));
        assert_eq!(samples[0].bytes, BTreeMap::from([(name("n2"), 100)]), "the leader has no lag");
        assert!(samples[SAMPLES_MAX - 1].bytes.is_empty());
        assert_eq!(history.members(), [&name("n2")]);
    }
}
