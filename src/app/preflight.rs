//! Whether this machine fits the configuration: programs, data directory, ports. `run` stops at the first fault and
//! does not check ports, because it listens on them later; `check` reports all faults.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{AccessFlags, access, geteuid};

use super::error::RunError;
use crate::agent::data_lacks;
use crate::config::{Address, Config, Fault, POSTGRES_MAJORS};
use crate::model::ReplicaMethod;

/// Checks the requirements of a member; returns the major version of PostgreSQL's programs.
pub(super) fn look(config: &Config) -> Result<u32, RunError> {
    let major = major_of(config, "postgres").map_err(RunError::Programs)?;
    data_major(config, major).map_err(RunError::OtherVersion)?;
    beside_data(config).map_err(|(why, expected)| RunError::BesideData { why, expected })?;
    Ok(major)
}

/// All faults that only this machine shows.
pub(super) fn faults(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    match major_of(config, "postgres") {
        Err(why) => {
            faults.push(fault("postgresql.bin_dir", why, "name the directory of PostgreSQL 13 to 18"))
        }
        Ok(major) => {
            faults.extend(other_programs(config, major));
            if let Err(why) = data_major(config, major) {
                faults.push(fault(
                    "postgresql.data_dir",
                    why,
                    "use the programs of that version, or another directory",
                ));
            }
        }
    }
    faults.extend(data_fault(config));
    // The check is impossible for another user's configuration.
    let is_mine = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.uid() == geteuid().as_raw());
    if is_mine(&config.postgresql.data_dir)
        && let Err((why, expected)) = beside_data(config)
    {
        faults.push(fault("postgresql.data_dir", why, &expected));
    }
    faults
}

fn fault(key: &str, found: String, expected: &str) -> Fault {
    Fault { key: key.to_owned(), ..Fault::general("this machine", found, expected) }
}

/// Ports that another program listens on. The PostgreSQL that already runs on the data directory may have its own.
pub(super) fn ports_in_use(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    let own = running_port(&config.postgresql.data_dir);
    let postgresql = Some(&config.postgresql.listen).filter(|address| own != Some(address.port));
    let listen = [("postgresql.listen", postgresql), ("restapi.listen", Some(&config.restapi.listen))];
    for (key, address) in listen.into_iter().filter_map(|(key, address)| Some((key, address?))) {
        let hosts = address.host.split(',').map(|host| Address { host: host.to_owned(), ..*address });
        for (address, error) in hosts.filter_map(|one| in_use(&one).map(|error| (one, error))) {
            faults.push(fault(
                key,
                format!("{address} cannot be listened on: {error}"),
                "choose a free port",
            ));
        }
    }
    faults
}

/// Scripts that are not on this machine, or not executable. They may come later, so these are warnings.
pub(super) fn warnings(config: &Config) -> Vec<Fault> {
    let is_missing =
        |program: &&String| program.contains('/') && access(Path::new(program), AccessFlags::X_OK).is_err();
    let scripts = config.scripts();
    let missing = scripts.into_iter().filter_map(|(key, words)| Some((key, words.first()?)));
    let warning = |(key, program): (String, &String)| Fault {
        key,
        ..Fault::general(
            "this machine",
            format!("{program} cannot be executed"),
            "name an executable file before the script is needed",
        )
    };
    missing.filter(|(_, program)| is_missing(program)).map(warning).collect()
}

/// The port of the PostgreSQL that runs on a data directory.
fn running_port(data_dir: &Path) -> Option<u16> {
    let text = fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let mut lines = text.lines().map(str::trim);
    let runs = Path::new("/proc").join(lines.next()?).exists();
    let port = lines.nth(2)?.parse().ok()?;
    runs.then_some(port)
}

/// Whether the supervisor can write beside the data directory: its lock, its guard's socket, and the files of a clone.
/// They cannot be inside, where a clone replaces everything.
///
/// # Errors
/// The fault, and the remedy.
fn beside_data(config: &Config) -> Result<(), (String, String)> {
    let data_dir = &config.postgresql.data_dir;
    let parent = data_dir.parent().unwrap_or(Path::new("/"));
    let known = parent.ancestors().find(|path| path.exists()).unwrap_or(parent);
    let Err(error) = access(known, AccessFlags::W_OK | AccessFlags::X_OK) else { return Ok(()) };
    let (user, parent, data_dir) = (geteuid(), known.display(), data_dir.display());
    Err((
        format!(
            "{parent} cannot be written by user {user} ({}), and the supervisor's lock, its guard's socket and what \
                 a clone sets aside lie in it, beside the data directory",
            error.desc()
        ),
        format!(
            "run `chown {user} {parent}`, or move what is in {data_dir} to {data_dir}/data and write that here"
        ),
    ))
}

/// The programs that are needed besides the server, each of which has to be of its major version.
fn other_programs(config: &Config, major: u32) -> Vec<Fault> {
    let copies = config.postgresql.replica_methods.contains(&ReplicaMethod::Basebackup);
    let makes = config.bootstrap.as_ref().is_some_and(|bootstrap| bootstrap.custom.is_none());
    let rewinds = config.postgresql.use_pg_rewind != Some(false);
    let needed =
        [("pg_controldata", true), ("initdb", makes), ("pg_basebackup", copies), ("pg_rewind", rewinds)];
    let trouble = |name: &str| match major_of(config, name) {
        Ok(of) if of == major => None,
        Ok(of) => Some(format!("{name} is of PostgreSQL {of}, and the server is PostgreSQL {major}")),
        Err(why) => Some(why),
    };
    let faults = needed.into_iter().filter(|(_, is_needed)| *is_needed).filter_map(|(name, _)| trouble(name));
    faults.map(|why| fault("postgresql.bin_dir", why, "install all programs of that version there")).collect()
}

/// Content of the data directory on which no PostgreSQL starts.
fn data_fault(config: &Config) -> Option<Fault> {
    let (key, dir) = ("postgresql.data_dir", &config.postgresql.data_dir);
    let shown = dir.display();
    if dir.exists() && !dir.is_dir() {
        return Some(fault(key, format!("{shown} is no directory"), "name a directory"));
    }
    let lacks = data_lacks(config)?;
    let found = format!("{shown} is not empty, and has no {lacks}: it is no data directory of PostgreSQL");
    Some(fault(key, found, "name an empty directory, or one below this"))
}

/// The major version of a program.
///
/// # Errors
/// A sentence with the program and its fault.
fn major_of(config: &Config, program: &str) -> Result<u32, String> {
    let name = config.postgresql.bin_name.get(program).map_or(program, String::as_str);
    let program =
        config.postgresql.bin_dir.as_ref().map_or_else(|| PathBuf::from(name), |dir| dir.join(name));
    let shown = program.display();
    let output = Command::new(&program).arg("--version").output();
    let output =
        output.map_err(|error| format!("{shown} cannot be run ({error}): set postgresql.bin_dir"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split_whitespace().find_map(|word| {
        let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    });
    match number {
        Some(major) if POSTGRES_MAJORS.contains(&major) => Ok(major),
        Some(major) => Err(format!("{shown} is PostgreSQL {major}; versions 13 to 18 are supported")),
        None => Err(format!("{shown} does not say that it is PostgreSQL: `{}`", text.trim())),
    }
}

/// Whether the data directory, if it has a cluster, is of this major version.
///
/// # Errors
/// A sentence with both versions.
fn data_major(config: &Config, major: u32) -> Result<(), String> {
    let file = config.postgresql.data_dir.join("PG_VERSION");
    match fs::read_to_string(&file) {
        Ok(text) if text.trim() == major.to_string() => Ok(()),
        Ok(text) => {
            let dir = config.postgresql.data_dir.display();
            Err(format!(
                "{dir} was made by PostgreSQL {}, but the programs are of version {major}",
                text.trim()
            ))
        }
        Err(_) => Ok(()),
    }
}

fn in_use(address: &Address) -> Option<std::io::Error> {
    if address.port == 0 {
        // It could not be parsed, which is reported already.
        return None;
    }
    let host = if address.host.is_empty() || address.host == "*" { "0.0.0.0" } else { &address.host };
    TcpListener::bind((host, address.port)).err()
}
