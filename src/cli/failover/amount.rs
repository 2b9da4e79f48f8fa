//! How much a failover loses at most, as an operator repeats it.

use std::fmt;
use std::str::FromStr;

use crate::api::wire;
use crate::model::{ClusterView, MemberName, SyncMode};

/// WAL that others had acknowledged and the next leader lacks. The later is the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FailoverLoss {
    /// It has every acknowledged commit.
    None,
    /// So much of what is published, in bytes, and what the last leader wrote after that.
    Bytes(u64),
    /// One of the two positions is not published.
    Unknown,
}

impl FailoverLoss {
    /// Of a failover to `candidate`, by the keys in etcd.
    pub(super) fn of(view: &ClusterView, candidate: &MemberName) -> FailoverLoss {
        let synchronous = wire::sync_settings(view).mode != SyncMode::Off && view.unsettled().is_none();
        let holds_all = view.sync_record().filter(|_| synchronous).is_some_and(|record| {
            record.is_leader(candidate) || (record.is_voter(candidate) && record.quorum == 0)
        });
        if holds_all {
            return FailoverLoss::None;
        }
        let record = view.members.get(candidate).map(|member| &member.record);
        let position = record.and_then(|record| record.xlog_location.max(record.receive_lsn));
        match view.known_end().zip(position) {
            Some((end, position)) => FailoverLoss::Bytes(end.bytes_since(position)),
            None => FailoverLoss::Unknown,
        }
    }

    /// For people.
    pub(super) fn sentence(self) -> String {
        match self {
            FailoverLoss::None => "none".to_owned(),
            FailoverLoss::Bytes(bytes) => {
                format!("{bytes} (bytes of published WAL, and what the last leader wrote after that)")
            }
            FailoverLoss::Unknown => {
                "unknown (no position of the leader or of the candidate is published)".to_owned()
            }
        }
    }
}

impl fmt::Display for FailoverLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FailoverLoss::None => f.write_str("none"),
            FailoverLoss::Bytes(bytes) => write!(f, "{bytes}"),
            FailoverLoss::Unknown => f.write_str("unknown"),
        }
    }
}

impl FromStr for FailoverLoss {
    type Err = String;

    fn from_str(text: &str) -> Result<FailoverLoss, String> {
        match text {
            "none" => Ok(FailoverLoss::None),
            "unknown" => Ok(FailoverLoss::Unknown),
            bytes => bytes
                .parse()
                .map(FailoverLoss::Bytes)
                .map_err(|_| format!("`{text}` is no loss: write none, a number of bytes, or unknown")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rows::tests::{sample, synchronous};
    use crate::model::{ClusterStatus, Lsn};

    #[test]
    fn says_what_the_candidate_lacks() {
        let m2 = MemberName::new("m2").expect("a name");
        assert_eq!(FailoverLoss::of(&synchronous("true", 0), &m2), FailoverLoss::None);
        let mut view = sample();
        view.status = Some(ClusterStatus { optime: Some(Lsn(5000)), ..ClusterStatus::default() });
        for member in view.members.values_mut() {
            (member.record.xlog_location, member.record.receive_lsn) = (Some(Lsn(4000)), None);
        }
        assert_eq!(FailoverLoss::of(&view, &m2), FailoverLoss::Bytes(1000));
        view.status = None;
        assert_eq!(FailoverLoss::of(&view, &m2), FailoverLoss::Unknown);
    }

    #[test]
    fn what_is_accepted_covers_as_much_and_less() {
        let parse = |text: &str| text.parse::<FailoverLoss>();
        assert!(parse("none") < parse("0") && parse("9") < parse("10") && parse("10") < parse("unknown"));
        assert!(parse("some").expect_err("no loss").contains("write none, a number of bytes, or unknown"));
    }
}
