//! The runtime: one loop that observes, decides and performs, and what the rim may know of it.

mod handle;
mod status;

pub use handle::{Handle, Order, OrderError, Orders, handle};
pub use status::{CloneProgress, Status};
