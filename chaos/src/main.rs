//! Fault injection and measurement for Matriarch.
fn main() {}
