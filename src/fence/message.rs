//! What supervisor and guard say to each other: one message, one datagram, of a fixed size.
//!
//! Both may be of different versions, because a guard outlives an upgrade. The first 24 bytes of a message, and the
//! orders `Ask` and `Dismiss`, never change their meaning; all else is understood between equal versions only.

use std::time::Duration;

use super::protection::Protection;
use super::watchdog::WatchdogTrouble;
use crate::model::Moment;
use crate::os::file_id::FileId;
use crate::os::prey::Prey;
use crate::os::process::ProcessId;
use crate::os::text::{PATH_BYTES_MAX, PathText};

/// Of this protocol.
pub(super) const VERSION: u8 = 3;
/// The first byte of every message.
const MAGIC: u8 = b'M';
/// What is understood across versions.
const HEAD_BYTES: usize = 24;
/// The length of every order: a guard of any version takes orders of this length only.
pub(super) const ORDER_BYTES: usize = 48 + 2 * PATH_BYTES_MAX;
/// Where the two paths of an order begin, and the longest that the first may be: that of the program.
const PROGRAM_AT: usize = 80;
const PROGRAM_BYTES_MAX: usize = DIRECTORY_AT - PROGRAM_AT;
const DIRECTORY_AT: usize = ORDER_BYTES - PATH_BYTES_MAX;
/// The length of every answer.
pub(super) const ANSWER_BYTES: usize = 48;

/// When Postgres is stopped, and when it is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// SIGQUIT to the postmaster: it ends its backends and itself at once.
    pub stop_at: Moment,
    /// SIGKILL to every process that is left.
    pub kill_at: Moment,
}

/// What a guard is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "the guard asks for no memory, so nothing is boxed")]
pub(super) enum Command {
    /// Nothing: tell what you hold.
    Ask,
    /// Kill `prey` at these deadlines, in place of all earlier ones; the watchdog resets the machine then, however late
    /// this order arrives, unless another comes (`None`: it does not).
    Arm { deadlines: Deadlines, prey: Prey, watchdog_at: Option<Moment> },
    /// Nothing is to be killed.
    Disarm,
    /// Forget everything and end.
    Dismiss,
}

/// One order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// Counts the orders of one supervisor; the answer repeats it.
    pub(super) sequence: u32,
    pub(super) command: Command,
}

/// What a guard is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// It waits for a deadline.
    Armed,
    /// The deadline has passed: it kills.
    Firing,
    /// It has killed, and nothing is left.
    Over,
}

/// What became of the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogFacts {
    /// It is not used, or not needed now.
    #[default]
    Off,
    /// It resets the machine that long after the last order.
    Active(Duration),
    /// It is wanted and cannot be used.
    Failed(WatchdogTrouble),
}

/// What a guard says to every order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) version: u8,
    pub(super) sequence: u32,
    pub(super) phase: Phase,
    pub(super) deadlines: Deadlines,
    /// The guard's own process.
    pub(super) guard: i32,
    /// The postmaster it is after, and its start.
    pub(super) postmaster: i32,
    pub(super) started_ticks: u64,
    pub(super) protection: Protection,
    pub(super) watchdog: WatchdogFacts,
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

impl Order {
    pub(super) fn encode(&self) -> [u8; ORDER_BYTES] {
        let mut bytes = [0; ORDER_BYTES];
        let kind = match &self.command {
            Command::Ask => 1,
            Command::Arm { .. } => 2,
            Command::Disarm => 3,
            Command::Dismiss => 4,
        };
        let Command::Arm { deadlines, prey, watchdog_at } = &self.command else {
            put_head(&mut bytes, kind, self.sequence, Deadlines::default());
            return bytes;
        };
        put_head(&mut bytes, kind, self.sequence, *deadlines);
        put(&mut bytes, 24, prey.pid.to_le_bytes());
        put(&mut bytes, 32, prey.started_ticks.to_le_bytes());
        put(&mut bytes, 48, prey.place.device.to_le_bytes());
        put(&mut bytes, 56, prey.place.inode.to_le_bytes());
        // Zero: no watchdog.
        put(&mut bytes, 64, watchdog_at.unwrap_or_default().as_nanos().to_le_bytes());
        // A program with a longer path is known by its name only.
        let program = prey.program.as_bytes();
        let program = if program.len() <= PROGRAM_BYTES_MAX { program } else { &[] };
        for (at, length_at, path) in
            [(PROGRAM_AT, 40, program), (DIRECTORY_AT, 44, prey.directory.as_bytes())]
        {
            put(&mut bytes, length_at, (path.len() as u32).to_le_bytes());
            bytes[at..at + path.len()].copy_from_slice(path);
        }
        bytes
    }

    /// `None` for what this version does not understand.
    pub(super) fn decode(bytes: &[u8]) -> Option<Order> {
        let (version, kind, sequence, deadlines) = head(bytes)?;
        let command = match kind {
            1 => Command::Ask,
            2 if version == VERSION => Order::decode_arm(bytes, deadlines)?,
            3 if version == VERSION => Command::Disarm,
            4 => Command::Dismiss,
            _unknown => return None,
        };
        Some(Order { sequence, command })
    }

    fn decode_arm(bytes: &[u8], deadlines: Deadlines) -> Option<Command> {
        let path = |at: usize, length_at: usize| {
            let length = u32::from_le_bytes(get(bytes, length_at)?) as usize;
            PathText::new(bytes.get(at..at.checked_add(length)?)?)
        };
        let prey = Prey {
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
        Some(Command::Arm { deadlines, prey, watchdog_at })
    }
}

impl Answer {
    /// The postmaster it is after; `None` when it did not say, or did not know.
    pub(super) fn postmaster(&self) -> Option<ProcessId> {
        (self.postmaster != 0 && self.started_ticks != 0)
            .then_some(ProcessId { pid: self.postmaster, started_ticks: self.started_ticks })
    }

    pub(super) fn encode(&self) -> [u8; ANSWER_BYTES] {
        let mut bytes = [0; ANSWER_BYTES];
        let phase = match self.phase {
            Phase::Idle => 0,
            Phase::Armed => 1,
            Phase::Firing => 2,
            Phase::Over => 3,
        };
        put_head(&mut bytes, phase, self.sequence, self.deadlines);
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
    pub(super) fn decode(bytes: &[u8]) -> Option<Answer> {
        let (version, kind, sequence, deadlines) = head(bytes)?;
        let phase = match kind {
            0 => Phase::Idle,
            1 => Phase::Armed,
            2 => Phase::Firing,
            3 => Phase::Over,
            _unknown => return None,
        };
        let answer = Answer { version, sequence, phase, deadlines, ..Answer::default() };
        if version != VERSION {
            return Some(answer);
        }
        let [protection, state, code, _] = get(bytes, 32)?;
        let number = u32::from_le_bytes(get(bytes, 36)?);
        let watchdog = match state {
            0 => WatchdogFacts::Off,
            1 => WatchdogFacts::Active(Duration::from_secs(number.into())),
            _failed => WatchdogFacts::Failed(WatchdogTrouble::from_code(code, number)),
        };
        Some(Answer {
            guard: i32::from_le_bytes(get(bytes, 24)?),
            postmaster: i32::from_le_bytes(get(bytes, 28)?),
            started_ticks: u64::from_le_bytes(get(bytes, 40)?),
            protection: Protection::from_bits(protection),
            watchdog,
            ..answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prey() -> Prey {
        let text = |path: &str| PathText::new(path.as_bytes()).expect("short");
        Prey {
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

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let watchdog_at = Some(Moment::from_millis(7));
        let arm = Command::Arm { deadlines: deadlines(), prey: prey(), watchdog_at };
        for command in [Command::Ask, arm, Command::Disarm, Command::Dismiss] {
            let order = Order { sequence: 9, command };
            assert_eq!(Order::decode(&order.encode()), Some(order));
        }
    }

    #[test]
    fn answers_arrive_as_they_were_sent() {
        let troubles = [WatchdogTrouble::Open(13), WatchdogTrouble::Timeout(60), WatchdogTrouble::Write(5)];
        let failed = troubles.map(WatchdogFacts::Failed);
        let active = WatchdogFacts::Active(Duration::from_secs(15));
        for watchdog in failed.into_iter().chain([active, WatchdogFacts::Off]) {
            for phase in [Phase::Idle, Phase::Armed, Phase::Firing, Phase::Over] {
                let protection = Protection { memory: true, real_time: true, ..Protection::default() };
                let answer = Answer {
                    version: VERSION,
                    sequence: 3,
                    phase,
                    deadlines: deadlines(),
                    guard: 5,
                    postmaster: 6,
                    started_ticks: u64::MAX,
                    protection,
                    watchdog,
                };
                assert_eq!(Answer::decode(&answer.encode()), Some(answer));
            }
        }
    }

    #[test]
    fn of_another_version_the_head_is_understood_and_no_order_but_two() {
        let other = |mut bytes: Vec<u8>| {
            bytes[1] = VERSION + 1;
            bytes
        };
        let answer = Answer { phase: Phase::Armed, deadlines: deadlines(), guard: 5, ..Answer::default() };
        let read = Answer::decode(&other(answer.encode()[..HEAD_BYTES].to_vec())).expect("a head");
        assert_eq!((read.phase, read.deadlines, read.guard), (Phase::Armed, deadlines(), 0));
        let arm = Command::Arm { deadlines: deadlines(), prey: prey(), watchdog_at: None };
        let understood =
            |command| Order::decode(&other(Order { sequence: 1, command }.encode().to_vec())).is_some();
        assert!(understood(Command::Ask) && understood(Command::Dismiss));
        assert!(!understood(arm) && !understood(Command::Disarm));
    }

    #[test]
    fn nonsense_is_no_order() {
        let order = Order {
            sequence: 1,
            command: Command::Arm { deadlines: deadlines(), prey: prey(), watchdog_at: None },
        };
        let mut bytes = order.encode();
        for cut in [0, 1, 23, 47, 60] {
            assert_eq!(Order::decode(&bytes[..cut]), None);
        }
        put(&mut bytes, 40, u32::MAX.to_le_bytes());
        assert_eq!(Order::decode(&bytes), None);
    }
}
