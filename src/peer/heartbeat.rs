//! Heartbeats as they are sent: encoded, with the code of their session.

use std::time::Duration;

use matriarch_proto::{Message, v1};

use super::mac::{MacKey, MacLabel};
use crate::model::{Heartbeat, Lsn, Term};

/// The heartbeat with its code.
pub(super) fn sealed(heartbeat: &Heartbeat, key: &MacKey) -> v1::HeartbeatsResponse {
    let message = v1::Heartbeat {
        term: heartbeat.term.0,
        number: heartbeat.number,
        flushed_lsn: heartbeat.flushed.0,
        proof_age_ms: u64::try_from(heartbeat.proof_age.as_millis()).ok(),
        sync_revision: heartbeat.sync_revision,
    };
    let encoded = message.encode_to_vec();
    let mac = key.mac(MacLabel::Heartbeat, &[&encoded]).to_vec();
    v1::HeartbeatsResponse { heartbeat: encoded, mac }
}

/// The heartbeat in a message, if its code is right.
pub(super) fn opened(response: &v1::HeartbeatsResponse, key: &MacKey) -> Option<Heartbeat> {
    let v1::HeartbeatsResponse { heartbeat, mac } = response;
    if !key.confirms(MacLabel::Heartbeat, &[heartbeat], mac) {
        return None;
    }
    let message = v1::Heartbeat::decode(heartbeat.as_slice()).ok()?;
    Some(Heartbeat {
        term: Term(message.term),
        number: message.number,
        flushed: Lsn(message.flushed_lsn),
        proof_age: message.proof_age_ms.map_or(Duration::MAX, Duration::from_millis),
        sync_revision: message.sync_revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_arrives_as_it_was_sent_or_not_at_all() {
        let key = MacKey::of_password("p", "s");
        for proof_age in [Duration::from_millis(120), Duration::MAX] {
            let heartbeat =
                Heartbeat { term: Term(7), number: 3, flushed: Lsn(0x300_0060), proof_age, sync_revision: 9 };
            let mut sent = sealed(&heartbeat, &key);
            assert_eq!(opened(&sent, &key), Some(heartbeat));
            assert_eq!(opened(&sent, &MacKey::of_password("q", "s")), None);
            sent.heartbeat[1] += 1;
            assert_eq!(opened(&sent, &key), None);
        }
    }
}
