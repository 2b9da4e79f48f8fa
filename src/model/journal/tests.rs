use super::*;
use crate::model::Reason;

fn name(text: &str) -> MemberName {
    MemberName::new(text).expect("a valid name")
}

fn began(members: usize, sentence: &str) -> JournalRecord {
    let considered = |number: usize| Considered {
        name: name(&format!("member-{number}")),
        timeline: Some(Timeline(1)),
        position: Some(Lsn(1000)),
        verdict: CandidateVerdict::Unfit(Ineligible::Silent { trouble: Some(sentence.to_owned()) }),
    };
    let entry = TermBegan {
        kind: ChangeKind::Failover,
        rule: Reason::HealthiestMember.rule(),
        because: Reason::HealthiestMember.to_string(),
        from: None,
        request: None,
        seen: Vec::new(),
        considered: (0..members).map(considered).collect(),
        more_considered: 0,
        steps: (0..12).map(|number| JournalStep::new(WallTime(number), sentence)).collect(),
        timeline: Some(Timeline(2)),
        position: Lsn(1000),
        loss: LossBound::Asynchronous { missing: 12, limit: 1_048_576 },
        versions: (0..members)
            .map(|number| (name(&format!("member-{number}")), "4.1.5".to_owned()))
            .collect(),
    };
    let entry = JournalEntry::Began(Box::new(entry));
    JournalRecord { term: Term(4711), by: name("m2"), at: WallTime(1_795_384_347_031), entry }
}

#[test]
fn a_record_reads_as_it_was_written() {
    let record = began(2, "no answer");
    let read: JournalRecord = serde_json::from_str(&record.text()).expect("its own text");
    assert_eq!(read, record);
}

/// Sixty members whose error texts are long.
#[test]
fn a_long_record_is_shortened_and_says_so() {
    let text = began(60, &"é".repeat(1000)).text();
    assert!(text.len() <= RECORD_BYTES_MAX, "{}", text.len());
    let read: JournalRecord = serde_json::from_str(&text).expect("valid");
    let JournalEntry::Began(read) = read.entry else { panic!("another entry") };
    assert_eq!(read.considered.len() + read.more_considered, 60);
    assert_eq!(read.rule, "HealthiestMember");
}

#[test]
fn names_are_in_the_order_of_the_terms() {
    let key = |term| JournalRecord { term: Term(term), ..began(0, "") }.key();
    assert!(key(9) < key(10) && key(10) < key(i64::MAX));
    assert_eq!(key(4711), "0000000000000004711/began");
}
