//! The protections that keep a guard running on a machine without free memory or processor time.
//!
//! All of it is best effort: a container without privileges gets less, and the guard reports which protections it has.

use std::fmt;

use nix::libc;
use rustix::mm::MlockAllFlags;
use rustix::process::{Resource, Rlimit};

/// Stack that is touched before memory is locked, so that the kill path finds it there.
const STACK_BYTES: usize = 256 * 1024;
/// Above every ordinary process, below the kernel's own threads.
const REAL_TIME_PRIORITY: i32 = 10;

/// The protections that a guard obtained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Its memory is locked.
    pub memory: bool,
    /// The OOM killer spares it.
    pub oom: bool,
    /// It has real-time priority over every ordinary process.
    pub real_time: bool,
    /// Otherwise: it has a better nice value than ordinary processes.
    pub nice: bool,
    /// The kernel kills the postmaster even while the guard is frozen.
    pub dead_man_timer: bool,
    /// In that case the kernel kills only some of the server processes: there were not enough file descriptors.
    pub partial: bool,
}

impl Protection {
    pub(super) fn to_bits(self) -> u8 {
        let bits = [self.memory, self.oom, self.real_time, self.nice, self.dead_man_timer, self.partial];
        bits.iter().enumerate().fold(0, |all, (place, on)| all | (u8::from(*on) << place))
    }

    pub(super) fn from_bits(bits: u8) -> Protection {
        let on = |place: u8| bits & (1 << place) != 0;
        Protection {
            memory: on(0),
            oom: on(1),
            real_time: on(2),
            nice: on(3),
            dead_man_timer: on(4),
            partial: on(5),
        }
    }

    /// Obtains the protections that are available to this process.
    pub(super) fn take() -> Protection {
        let real_time = become_real_time();
        let nice = !real_time && raise_priority();
        let (memory, oom) = (lock_memory(), survive_oom());
        Protection { memory, oom, real_time, nice, dead_man_timer: false, partial: false }
    }

    /// To be called after a fork, when pages are copied on the first write.
    pub(super) fn lock_again(&mut self) {
        self.memory = self.memory && lock_memory();
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.memory, "memory locked"),
            (self.oom, "spared by the OOM killer"),
            (self.real_time, "real-time priority"),
            (self.nice, "better nice value"),
            (self.dead_man_timer && !self.partial, "the kernel stands by"),
            (self.dead_man_timer && self.partial, "the kernel stands by for some of the server processes"),
        ];
        let mut first = true;
        for (_, text) in parts.iter().filter(|(on, _)| *on) {
            write!(f, "{}{text}", if first { "" } else { ", " })?;
            first = false;
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

/// Locks all that is mapped now. Nothing is mapped later, because nothing is allocated.
fn lock_memory() -> bool {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    if limit.current != limit.maximum {
        // The unchanged limit may still be enough.
        let _ = rustix::process::setrlimit(
            Resource::Memlock,
            Rlimit { current: limit.maximum, maximum: limit.maximum },
        );
    }
    std::hint::black_box(&mut [1_u8; STACK_BYTES]);
    rustix::mm::mlockall(MlockAllFlags::CURRENT).is_ok()
}

fn survive_oom() -> bool {
    std::fs::write("/proc/self/oom_score_adj", "-1000").is_ok()
}

fn become_real_time() -> bool {
    let parameters = libc::sched_param { sched_priority: REAL_TIME_PRIORITY };
    // SAFETY: the call reads the structure, which lives until it returns, and touches no other memory of ours.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) == 0 }
}

fn raise_priority() -> bool {
    (-20..0).any(|nice| rustix::process::setpriority_process(None, nice).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protections_survive_their_encoding() {
        for bits in 0..64 {
            assert_eq!(Protection::from_bits(bits).to_bits(), bits);
        }
        let some = Protection { memory: true, nice: true, ..Protection::default() };
        assert_eq!(some.to_string(), "memory locked, better nice value");
        assert_eq!(Protection::default().to_string(), "none");
    }
}
