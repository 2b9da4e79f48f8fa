//! The web page of a member, at `/ui`: topology, lag, journal, and the operations that REST has.
//!
//! ```text
//! routes ──► page ──► state, members, lag_plot, journal, forms    what is known in, HTML out: pure
//!   │  │                     ▲
//!   │  └───► facts ──────────┘    the published status, the journal, lag_history
//!   │          ▲
//!   │       events    the same parts again, whenever one has changed
//!   └──► token, access as REST's ──► switchover, operate, config
//! ```
//!
//! It works without JavaScript; with it, the parts are replaced as they change. Everything comes from this program:
//! the policy in [`HEADERS`] lets a browser load nothing else, and no script or style within a page. Whatever a page
//! shows (names, tags, reasons come from etcd) is text: `maud` escapes it.
//!
//! The pages are made beside the loop, where gRPC calls run, so that they delay no health check. Deliberately absent:
//! anything that PostgreSQL or another member would be asked for.

mod events;
mod facts;
mod forms;
mod journal;
mod lag_history;
mod lag_plot;
mod members;
mod page;
mod routes;
mod state;
mod token;

pub(super) use self::events::{is_stream, stream};
pub(super) use self::facts::UiFacts;
pub(super) use self::routes::{get, post};

/// The headers of every answer here. The referrer is kept for this origin: without it a browser would hide the origin
/// of a form.
const HEADERS: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

#[cfg(test)]
mod tests;
