//! The operating system: the clock, signals, child processes and durable files.

pub mod clock;
