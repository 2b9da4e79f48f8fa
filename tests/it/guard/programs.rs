//! The program of a guard: the small one beside `matriarch`, or `matriarch` itself where that cannot be used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use matriarch::fence::{Link, LinkSetup};

use crate::support::{Place, Plan};

const SOON: Duration = Duration::from_secs(20);
/// An unoptimized guard has 5 MB, a shipped one 3 MB. All of it must fit into the usual limit of locked memory.
const RESIDENT_KB_MAX: u64 = 8 * 1024;

#[tokio::test]
async fn a_guard_is_the_small_program_and_locks_little_memory() {
    let cluster = Plan::new(1).start().await;
    let guard = cluster.members[0].guard().expect("it runs");
    assert_eq!(program_of(guard).file_name().expect("a file"), "matriarch-guard");
    let status = std::fs::read_to_string(format!("/proc/{guard}/status")).expect("it lives");
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says it");
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    println!("resident {} kB, locked {} kB", kilobytes("VmRSS"), kilobytes("VmLck"));
    assert!(kilobytes("VmRSS") < RESIDENT_KB_MAX, "{status}");
}

/// The small program is missing, cannot be started, or ends without an answer, as one of another release does.
#[test]
fn matriarch_guards_itself_without_a_small_program_of_its_release() {
    let place = Place::new();
    let whole = PathBuf::from(env!("CARGO_BIN_EXE_matriarch"));
    let small = PathBuf::from(env!("CARGO_BIN_EXE_matriarch-guard"));
    let text = place.path().join("text");
    std::fs::write(&text, "no program").expect("our own place is writable");
    let cases = [
        (Some(small.clone()), &small),
        (None, &whole),
        (Some(place.path().join("missing")), &whole),
        (Some(text), &whole),
        (Some("/bin/false".into()), &whole),
    ];
    for (number, (separate, expected)) in cases.into_iter().enumerate() {
        let data_dir = place.folder(&number.to_string()).join("data");
        let setup = LinkSetup { program: whole.clone(), separate, data_dir, watchdog: None };
        let (link, _) = Link::start(setup).expect("a link");
        link.disarm();
        assert!(link.holds(SOON), "case {number}");
        let guard = link.facts().borrow().pid.expect("it has acknowledged an order");
        assert_eq!(
            program_of(guard as u32),
            std::fs::canonicalize(expected).expect("it is built"),
            "case {number}"
        );
        link.leave(SOON);
    }
}

fn program_of(guard: u32) -> PathBuf {
    std::fs::read_link(Path::new("/proc").join(guard.to_string()).join("exe")).expect("it lives")
}
