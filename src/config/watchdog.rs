//! `watchdog`: whether the machine is reset when supervisor and guard are both frozen.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::{ConfigFindings, Section};
use super::units;

/// `watchdog`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchdogConfig {
    /// Whether it is used.
    pub mode: WatchdogMode,
    /// Its device.
    pub device: PathBuf,
    /// Its driver.
    pub driver: WatchdogDriver,
    /// It resets the machine this long before the lease ends; `None`: after half of the TTL.
    pub safety_margin: Option<Duration>,
}

/// `watchdog.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogMode {
    /// Never.
    Off,
    /// If there is one.
    Automatic,
    /// Always: without one this member never leads.
    Required,
}

/// `watchdog.driver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogDriver {
    /// Linux's watchdog interface.
    Default,
    /// A fifo that records all operations.
    Testing,
}

pub(super) fn read(top: &mut Section<'_>, findings: &mut ConfigFindings) -> WatchdogConfig {
    let mut section = top.section("watchdog", findings);
    let mode = match section.text("mode", findings).as_deref() {
        None | Some("auto" | "automatic") => WatchdogMode::Automatic,
        Some("off" | "disable" | "disabled" | "false") => WatchdogMode::Off,
        Some("require" | "required") => WatchdogMode::Required,
        Some(_) => {
            if let Some(node) = section.get("mode") {
                section.fault("mode", node, "write off, automatic or required", findings);
            }
            WatchdogMode::Automatic
        }
    };
    let driver = match section.text("driver", findings).as_deref() {
        None | Some("default") => WatchdogDriver::Default,
        Some("testing") => WatchdogDriver::Testing,
        Some(_) => {
            if let Some(node) = section.get("driver") {
                section.fault("driver", node, "write default or testing", findings);
            }
            WatchdogDriver::Default
        }
    };
    let margin = section.text("safety_margin", findings);
    let safety_margin = match margin.as_deref().map(units::integer) {
        None => Some(Duration::from_secs(5)),
        Some(Some(-1)) => None,
        Some(seconds) => {
            let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
            if let (None, Some(node)) = (seconds, section.get("safety_margin")) {
                section.fault(
                    "safety_margin",
                    node,
                    "write a number of seconds, or -1 for half of ttl",
                    findings,
                );
            }
            seconds.map(Duration::from_secs)
        }
    };
    let device = section.text("device", findings).unwrap_or_else(|| "/dev/watchdog".to_owned()).into();
    section.finish(findings);
    WatchdogConfig { mode, device, driver, safety_margin }
}
