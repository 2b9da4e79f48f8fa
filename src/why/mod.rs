//! Why the leadership changed: the records of the journal, joined, and told in sentences. `matriarch why` and the web
//! page of a member show the same ones.
//!
//! ```text
//! records ──► change ──► cause, advice ──► account: headline, answers, course, other members
//! ```
//!
//! Deliberately absent: any layout, and where the records come from.

mod account;
mod advice;
mod cause;
mod change;

pub use account::{Account, COURSE_HEADING, CourseLine, OtherMembers, readable};
pub use advice::advice;
pub use cause::{cause, headline, nobody_leads};
pub use change::{LeaderChange, changes};
