//! The messages between supervisor and guard: each is one datagram of a fixed size.
//!
//! The two sides may have different versions, because a guard outlives an upgrade. The first 24 bytes of a message, and
//! the orders `Ask` and `Dismiss`, never change their meaning. Everything else is understood between equal versions
//! only.

use std::time::Duration;

use super::protection::Protection;
use super::watchdog::WatchdogTrouble;
use crate::core::guard::{self, ArmedDeadlines, Deadlines, GuardAnswer, GuardPhase, WatchdogState};
use crate::model::Moment;
use crate::os::file_id::FileId;
use crate::os::postgres_processes::PostgresProcesses;
use crate::os::process::ProcessId;
use crate::os::text::{PATH_BYTES_MAX, PathText};

/// The version of this protocol.
pub(super) const VERSION: u8 = 3;
/// The first byte of every message.
const MAGIC: u8 = b'M';
/// The part that is understood across versions.
const HEAD_BYTES: usize = 24;
/// The length of every order: a guard of any version takes orders of this length only.
pub(super) const MESSAGE_BYTES: usize = 48 + 2 * PATH_BYTES_MAX;
/// Where the two paths of an order begin, and the longest that the first may be: that of the program.
const PROGRAM_AT: usize = 80;
const PROGRAM_BYTES_MAX: usize = DIRECTORY_AT - PROGRAM_AT;
const DIRECTORY_AT: usize = MESSAGE_BYTES - PATH_BYTES_MAX;
/// The length of every answer.
pub(super) const REPORT_BYTES: usize = 48;

/// An order to a guard.
pub(super) type PostgresOrder = guard::GuardOrder<PostgresProcesses>;

/// One order, numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The number of the order; the answer repeats it.
    pub(super) sequence: u32,
    pub(super) order: PostgresOrder,
}

/// The state of the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogFacts {
    /// It is not used, or not needed now.
    #[default]
    Off,
    /// It resets the machine this long after the last order.
    Active(Duration),
    /// It is needed and cannot be used.
    Failed(WatchdogTrouble),
}

/// A guard's answer to every order, with facts about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct GuardReport {
    pub(super) version: u8,
    /// The answer of the protocol.
    pub(super) answer: GuardAnswer,
    /// The guard's own process id.
    pub(super) guard: i32,
    /// The target's postmaster, and its start time.
    pub(super) postmaster: i32,
    pub(super) started_ticks: u64,
    pub(super) protection: Protection,
    pub(super) watchdog: WatchdogFacts,
}

impl WatchdogFacts {
    /// The state without the details.
    pub fn state(self) -> WatchdogState {
        match self {
            WatchdogFacts::Off => WatchdogState::Off,
            WatchdogFacts::Active(_) => WatchdogState::Active,
            WatchdogFacts::Failed(_) => WatchdogState::Failed,
        }
    }
}

fn put<const N: usize>(to: &mut [u8], at: usize, bytes: [u8; N]) {
    to[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn put_head(to: &mut [u8], kind: u8, sequence: u32, deadlines: Deadlines) {
    put(to, 0, [MAGIC, VERSION, kind, 0]);
    put(to, 4, sequence.to_le_bytes());
    put(to, 8, deadlines.stop_at.as_nanos().to_le_bytes());
    put(to, 16, deadlines.kill_at.as_nanos().to_le_bytes());
}

/// Version, kind, sequence and deadlines.
fn head(from: &[u8]) -> Option<(u8, u8, u32, Deadlines)> {
    let [magic, version, kind, _] = get(from, 0)?;
    let deadlines = Deadlines {
        stop_at: Moment::from_nanos(u64::from_le_bytes(get(from, 8)?)),
        kill_at: Moment::from_nanos(u64::from_le_bytes(get(from, 16)?)),
    };
    (magic == MAGIC && HEAD_BYTES <= from.len()).then_some((
        version,
        kind,
        u32::from_le_bytes(get(from, 4)?),
        deadlines,
    ))
}

impl Message {
    pub(super) fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let kind = match &self.order {
            PostgresOrder::Ask => 1,
            PostgresOrder::Arm(_) => 2,
            PostgresOrder::Disarm => 3,
            PostgresOrder::Dismiss => 4,
        };
        let PostgresOrder::Arm(ArmedDeadlines { deadlines, target: processes, watchdog_at }) = &self.order
        else {
            put_head(&mut bytes, kind, self.sequence, Deadlines::default());
            return bytes;
        };
        put_head(&mut bytes, kind, self.sequence, *deadlines);
        put(&mut bytes, 24, processes.pid.to_le_bytes());
        put(&mut bytes, 32, processes.started_ticks.to_le_bytes());
        put(&mut bytes, 48, processes.place.device.to_le_bytes());
        put(&mut bytes, 56, processes.place.inode.to_le_bytes());
        // Zero: no watchdog.
        put(&mut bytes, 64, watchdog_at.unwrap_or_default().as_nanos().to_le_bytes());
        // A program with a longer path is recognized by its name only.
        let program = processes.program.as_bytes();
        let program = if program.len() <= PROGRAM_BYTES_MAX { program } else { &[] };
        for (at, length_at, path) in
            [(PROGRAM_AT, 40, program), (DIRECTORY_AT, 44, processes.directory.as_bytes())]
        {
            put(&mut bytes, length_at, (path.len() as u32).to_le_bytes());
            bytes[at..at + path.len()].copy_from_slice(path);
        }
        bytes
    }

    /// `None` for a message that this version does not understand.
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        let (version, kind, sequence, deadlines) = head(bytes)?;
        let order = match kind {
            1 => PostgresOrder::Ask,
            2 if version == VERSION => PostgresOrder::Arm(Message::decode_armed(bytes, deadlines)?),
            3 if version == VERSION => PostgresOrder::Disarm,
            4 => PostgresOrder::Dismiss,
            _unknown => return None,
        };
        Some(Message { sequence, order })
    }

    fn decode_armed(bytes: &[u8], deadlines: Deadlines) -> Option<ArmedDeadlines<PostgresProcesses>> {
        let path = |at: usize, length_at: usize| {
            let length = u32::from_le_bytes(get(bytes, length_at)?) as usize;
            PathText::new(bytes.get(at..at.checked_add(length)?)?)
        };
        let processes = PostgresProcesses {
            pid: i32::from_le_bytes(get(bytes, 24)?),
            started_ticks: u64::from_le_bytes(get(bytes, 32)?),
            program: path(PROGRAM_AT, 40)?,
            directory: path(DIRECTORY_AT, 44)?,
            place: FileId {
                device: u64::from_le_bytes(get(bytes, 48)?),
                inode: u64::from_le_bytes(get(bytes, 56)?),
            },
        };
        let watchdog_at = Moment::from_nanos(u64::from_le_bytes(get(bytes, 64)?));
        let watchdog_at = Some(watchdog_at).filter(|at| *at != Moment::default());
        Some(ArmedDeadlines { deadlines, target: processes, watchdog_at })
    }
}

impl GuardReport {
    /// The target's postmaster; `None` when the guard did not report it, or did not know it.
    pub(super) fn postmaster(&self) -> Option<ProcessId> {
        (self.postmaster != 0 && self.started_ticks != 0)
            .then_some(ProcessId { pid: self.postmaster, started_ticks: self.started_ticks })
    }

    pub(super) fn encode(&self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        let phase = match self.answer.phase {
            GuardPhase::Idle => 0,
            GuardPhase::Armed => 1,
            GuardPhase::Firing => 2,
            GuardPhase::Over => 3,
        };
        put_head(&mut bytes, phase, self.answer.sequence, self.answer.deadlines);
        put(&mut bytes, 24, self.guard.to_le_bytes());
        put(&mut bytes, 28, self.postmaster.to_le_bytes());
        let (state, number, code) = match self.watchdog {
            WatchdogFacts::Off => (0, 0, 0),
            WatchdogFacts::Active(after) => (1, after.as_secs() as u32, 0),
            WatchdogFacts::Failed(trouble) => {
                let (code, number) = trouble.to_code();
                (2, number, code)
            }
        };
        put(&mut bytes, 32, [self.protection.to_bits(), state, code, 0]);
        put(&mut bytes, 36, number.to_le_bytes());
        put(&mut bytes, 40, self.started_ticks.to_le_bytes());
        bytes
    }

    /// Of another version only the head is read.
    pub(super) fn decode(bytes: &[u8]) -> Option<GuardReport> {
        let (version, kind, sequence, deadlines) = head(bytes)?;
        let phase = match kind {
            0 => GuardPhase::Idle,
            1 => GuardPhase::Armed,
            2 => GuardPhase::Firing,
            3 => GuardPhase::Over,
            _unknown => return None,
        };
        let report = GuardReport {
            version,
            answer: GuardAnswer { sequence, phase, deadlines },
            ..GuardReport::default()
        };
        if version != VERSION {
            return Some(report);
        }
        let [protection, state, code, _] = get(bytes, 32)?;
        let number = u32::from_le_bytes(get(bytes, 36)?);
        let watchdog = match state {
            0 => WatchdogFacts::Off,
            1 => WatchdogFacts::Active(Duration::from_secs(number.into())),
            _failed => WatchdogFacts::Failed(WatchdogTrouble::from_code(code, number)),
        };
        Some(GuardReport {
            guard: i32::from_le_bytes(get(bytes, 24)?),
            postmaster: i32::from_le_bytes(get(bytes, 28)?),
            started_ticks: u64::from_le_bytes(get(bytes, 40)?),
            protection: Protection::from_bits(protection),
            watchdog,
            ..report
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processes() -> PostgresProcesses {
        let text = |path: &str| PathText::new(path.as_bytes()).expect("short");
        PostgresProcesses {
            pid: 42,
            started_ticks: 7,
            program: text("/bin/postgres"),
            directory: text(&"d".repeat(PATH_BYTES_MAX)),
            place: FileId { device: 8, inode: 9 },
        }
    }

    fn deadlines() -> Deadlines {
        Deadlines { stop_at: Moment::from_millis(1), kill_at: Moment::from_nanos(u64::MAX) }
    }

    fn arm(watchdog_at: Option<Moment>) -> PostgresOrder {
        PostgresOrder::Arm(ArmedDeadlines { deadlines: deadlines(), target: processes(), watchdog_at })
    }

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let arm = arm(Some(Moment::from_millis(7)));
        for order in [PostgresOrder::Ask, arm, PostgresOrder::Disarm, PostgresOrder::Dismiss] {
            let message = Message { sequence: 9, order };
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
    }

    #[test]
    fn answers_arrive_as_they_were_sent() {
        let troubles = [WatchdogTrouble::Open(13), WatchdogTrouble::Timeout(60), WatchdogTrouble::Write(5)];
        let failed = troubles.map(WatchdogFacts::Failed);
        let active = WatchdogFacts::Active(Duration::from_secs(15));
        for watchdog in failed.into_iter().chain([active, WatchdogFacts::Off]) {
            for phase in [GuardPhase::Idle, GuardPhase::Armed, GuardPhase::Firing, GuardPhase::Over] {
                let protection = Protection { memory: true, real_time: true, ..Protection::default() };
                let report = GuardReport {
                    version: VERSION,
                    answer: GuardAnswer { sequence: 3, phase, deadlines: deadlines() },
                    guard: 5,
                    postmaster: 6,
                    started_ticks: u64::MAX,
                    protection,
                    watchdog,
                };
                assert_eq!(GuardReport::decode(&report.encode()), Some(report));
            }
        }
    }

    #[test]
    fn of_another_version_only_the_head_and_two_orders_are_understood() {
        let other = |mut bytes: Vec<u8>| {
            bytes[1] = VERSION + 1;
            bytes
        };
        let answer = GuardAnswer { sequence: 4, phase: GuardPhase::Armed, deadlines: deadlines() };
        let report = GuardReport { answer, guard: 5, ..GuardReport::default() };
        let read = GuardReport::decode(&other(report.encode()[..HEAD_BYTES].to_vec())).expect("a head");
        assert_eq!((read.answer, read.guard), (answer, 0));
        let understood =
            |order| Message::decode(&other(Message { sequence: 1, order }.encode().to_vec())).is_some();
        assert!(understood(PostgresOrder::Ask) && understood(PostgresOrder::Dismiss));
        assert!(!understood(arm(None)) && !understood(PostgresOrder::Disarm));
    }

    #[test]
    fn invalid_bytes_are_no_order() {
        let mut bytes = Message { sequence: 1, order: arm(None) }.encode();
        for cut in [0, 1, 23, 47, 60] {
            assert_eq!(Message::decode(&bytes[..cut]), None);
        }
        put(&mut bytes, 40, u32::MAX.to_le_bytes());
        assert_eq!(Message::decode(&bytes), None);
    }
}
