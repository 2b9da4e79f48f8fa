//! `pg_hba.conf` and `pg_ident.conf`: the operator's rules, the supervisor's own rules before them, and the client
//! lockout.
//!
//! If the supervisor does not own a file, it inserts marked lines before the first line and changes nothing else. The
//! original content is kept beside it, as `<file>.before-matriarch`.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::files::{FIRST_LINE, hba_file, ident_file};
use super::handle::PostgresInner;
use super::{Error, Parameters, Setup, config_copies, files, session};
use crate::os::durable;
use crate::os::error_chain::ErrorChain;

/// The suffix of a file's copy from before the first change.
const ORIGINAL: &str = ".before-matriarch";
/// The end of every line of the supervisor in a file of the operator.
const MARK: &str = " # Matriarch's own line";
/// The rules that lock clients out. A rule for all databases does not cover replication.
const LOCKOUT: [&str; 2] = ["local all all reject", "host all all all reject"];

/// Writes both files. A file with configured lines is written as a whole; otherwise only the marked lines are put at
/// its top.
pub(super) fn write(inner: &PostgresInner, parameters: &Parameters) -> Result<(), Error> {
    let setup = &inner.setup;
    config_copies::restore_missing(setup)?;
    let user = session::os_user();
    let (hba, ident) = (file_in_use(setup, parameters, "hba_file"), ident_in_use(setup, parameters));
    let own_rules = own_rules(setup, user.is_some());
    let own_map = user.map(|user| format!("{0} {1} {0}", session::ROLE, quoted(&user)));
    let lockout_before = |lines: &[String]| {
        if inner.are_clients_locked_out() { lockout_rules(inner, lines) } else { Vec::new() }
    };
    let configured = parameters.pg_hba.as_ref().filter(|_| hba == hba_file(setup));
    let first = (hba == hba_file(setup) && !hba.exists()).then_some(&parameters.first_pg_hba);
    match configured.or(first) {
        Some(lines) => write_whole(setup, &hba, own_rules.iter().chain(&lockout_before(lines)), lines)?,
        None => {
            let theirs = rules_in(&fs::read(&hba).unwrap_or_default());
            try_prepend(setup, &hba, own_rules.iter().chain(&lockout_before(&theirs)));
        }
    }
    match parameters.pg_ident.as_ref().filter(|_| ident == ident_file(setup)) {
        Some(lines) => write_whole(setup, &ident, own_map.iter(), lines)?,
        None => try_prepend(setup, &ident, own_map.iter()),
    }
    Ok(())
}

/// For a new cluster, before the operator may add rules: replaces those of initdb by the configured rules, or by the
/// default ones.
pub(super) fn begin(inner: &PostgresInner, parameters: &Parameters) -> Result<(), Error> {
    let made = inner.setup.data_dir.join("pg_hba.conf");
    if made == hba_file(&inner.setup) {
        std::fs::remove_file(&made).map_err(Error::file("remove", &made))?;
    }
    write(inner, parameters)
}

/// Adds the operator's rules for a new cluster to a file that a script has made, after those that are there.
pub(super) fn append(inner: &PostgresInner, rules: &[String]) -> Result<(), Error> {
    let path = file_in_use(&inner.setup, &inner.parameters(), "hba_file");
    let mut text = fs::read(&path).map_err(Error::file("read", &path))?;
    let known = rules_in(&text);
    let new: Vec<&String> = rules.iter().filter(|rule| !known.contains(rule)).collect();
    if new.is_empty() {
        return Ok(());
    }
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    new.iter().for_each(|rule| text.extend(format!("{rule}\n").into_bytes()));
    let mode = files::mode(&inner.setup, &path);
    durable::write(&path, &text, mode, inner.setup.uid_gid).map_err(Error::file("write", &path))
}

/// The own role logs in by peer authentication only. No other rule, such as one for a directory service, ever applies
/// to this superuser without a password. If this program's user has no name, the configured superuser is the only way
/// in.
fn own_rules(setup: &Setup, user_has_name: bool) -> Vec<String> {
    let role = session::ROLE;
    let local = if user_has_name { format!("peer map={role}") } else { "reject".to_owned() };
    let mut rules = vec![
        format!("local all {role} {local}"),
        format!("local replication {role} reject"),
        format!("host all {role} all reject"),
        format!("host replication {role} all reject"),
    ];
    if !user_has_name {
        let superuser = quoted(&setup.superuser.username);
        // `md5` accepts SCRAM if the password is stored so.
        let rules_by_kind = ["local all", "host all"].into_iter().zip(["", " samehost"]);
        rules.extend(rules_by_kind.map(|(place, from)| format!("{place} {superuser}{from} md5")));
    }
    rules
}

/// The lines of the operator's file. From PostgreSQL 14 on a backslash at the end of a line joins it with the next one.
fn rules_in(file: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(file).replace("\r\n", "\n").replace("\\\n", " ");
    text.lines().map(str::to_owned).collect()
}

fn ident_in_use(setup: &Setup, parameters: &Parameters) -> PathBuf {
    file_in_use(setup, parameters, "ident_file")
}

fn file_in_use(setup: &Setup, parameters: &Parameters, parameter: &str) -> PathBuf {
    let default = if parameter == "hba_file" { hba_file(setup) } else { ident_file(setup) };
    // A relative path counts from the data directory.
    parameters.parameters.get(parameter).map_or(default, |path| setup.data_dir.join(path))
}

/// The `own` lines, then `lines`.
fn write_whole<'a>(
    setup: &Setup,
    path: &Path,
    own: impl Iterator<Item = &'a String>,
    lines: &[String],
) -> Result<(), Error> {
    keep_original(setup, path)?;
    let mut text = format!("{FIRST_LINE}\n# It will be overwritten by Matriarch!\n");
    for line in own.map(|line| format!("{line}{MARK}")).chain(lines.iter().cloned()) {
        let _ = writeln!(text, "{line}");
    }
    files::write(setup, path, &text)
}

/// A file written by hand is copied before it is replaced.
fn keep_original(setup: &Setup, path: &Path) -> Result<(), Error> {
    let original = match fs::read(path) {
        Ok(original) => original,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let copy = super::control::beside(path, ORIGINAL);
    if original.starts_with(FIRST_LINE.as_bytes()) || copy.exists() {
        return Ok(());
    }
    durable::write(&copy, &original, files::mode(setup, &copy), setup.uid_gid)
        .map_err(Error::file("write", &copy))
}

/// If a file cannot be written, the other ways in remain.
fn try_prepend<'a>(setup: &Setup, path: &Path, lines: impl Iterator<Item = &'a String>) {
    if let Err(error) = prepend(setup, path, lines) {
        let error = error.chain();
        tracing::warn!(error, "could not write the supervisor's own lines to an access file");
    }
}

/// Puts the marked `lines` at the top of the file.
fn prepend<'a>(setup: &Setup, path: &Path, lines: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let lines: Vec<String> = lines.map(|line| format!("{line}{MARK}\n")).collect();
    // A link stays a link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let before = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if lines.is_empty() { Ok(()) } else { files::write(setup, path, &lines.concat()) };
        }
        Err(error) => return Err(Error::file("read", path)(error)),
    };
    let after = with_marked(&before, &lines);
    if after == before {
        return Ok(());
    }
    let metadata = fs::metadata(path).map_err(Error::file("look at", path))?;
    let (mode, owner) = (metadata.mode() & 0o7777, Some((metadata.uid(), metadata.gid())));
    let copy = super::control::beside(path, ORIGINAL);
    if !copy.exists() {
        durable::write(&copy, &before, mode, owner).map_err(Error::file("write", &copy))?;
    }
    durable::write(path, &after, mode, owner).map_err(Error::file("write", path))
}

/// The content without marked lines, with the new marked lines at the top.
fn with_marked(before: &[u8], lines: &[String]) -> Vec<u8> {
    let unmarked = before.split_inclusive(|byte| *byte == b'\n').filter(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        !line.ends_with(MARK.as_bytes())
    });
    [lines.concat().into_bytes(), unmarked.collect::<Vec<_>>().concat()].concat()
}

/// The rules of the client lockout, to be put before `others`. In front of them come those of `others` that must still
/// apply. One group lets a standby read the history and rewind, since the lockout may wait for that standby. The other
/// lets the superuser in: while its own role does not exist, the supervisor may have no other way to end the lockout.
fn lockout_rules(inner: &PostgresInner, others: &[String]) -> Vec<String> {
    let setup = &inner.setup;
    let superuser = quoted(&setup.superuser.username);
    let rewinder = quoted(&setup.rewind_credentials().username);
    let kinds: &[&str] = if inner.access.is_by_own_role() { &["local"] } else { &["local", "host"] };
    let for_superuser =
        others.iter().filter_map(|line| kinds.iter().find_map(|kind| rule_of(line, kind, &superuser)));
    let rewinding = others.iter().filter_map(|line| rule_of(line, "host", &rewinder));
    for_superuser.chain(rewinding).chain(LOCKOUT.map(str::to_owned)).collect()
}

/// A rule for connections of a `kind`, narrowed to `user`, a quoted name; `None` if it does not apply to that user.
fn rule_of(line: &str, kind: &str, user: &str) -> Option<String> {
    let mut fields: Vec<&str> = line.split_whitespace().collect();
    let named = fields.get(2).is_some_and(|named| *named == "all" || quoted(named.trim_matches('"')) == user);
    if !fields.first()?.starts_with(kind) || !named || line.ends_with(MARK) {
        return None;
    }
    fields[2] = user;
    Some(fields.join(" "))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// True if the file was left gated.
pub(super) fn read_client_lockout(setup: &Setup, parameters: &Parameters) -> bool {
    let bytes = fs::read(file_in_use(setup, parameters, "hba_file")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    LOCKOUT.iter().all(|rule| text.lines().any(|line| line.strip_suffix(MARK) == Some(rule)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::Postgres;

    #[test]
    fn foreign_bytes_stay_unchanged() {
        let theirs = b"# \xff\r\nlocal all all peer\nhost all all all md5";
        let lines = [format!("local all x peer{MARK}\n")];
        let once = with_marked(theirs, &lines);
        assert!(once.starts_with(b"local all x peer") && once.ends_with(theirs));
        assert_eq!(with_marked(&once, &lines), once, "it is done once");
        assert_eq!(with_marked(&once, &[]), theirs, "and can be undone");
    }

    fn named(username: &str) -> super::super::RoleCredentials {
        super::super::RoleCredentials { username: username.to_owned(), ..Default::default() }
    }

    /// After a migration from Patroni the supervisor's own role does not exist yet; without a user name it never will.
    #[test]
    fn the_lockout_admits_the_superuser_and_a_rewind() {
        let setup = Setup { superuser: named("pg"), rewind: Some(named("rw")), ..Setup::default() };
        let member = Postgres::new(setup, Parameters::default());
        let theirs =
            b"# \xff\r\nlocal all all md5\r\nhost shop app all md5\nhost all all \\\n 10.0.0.0/8 md5";
        let closed = lockout_rules(&member.inner, &rules_in(theirs));
        let mine =
            ["local all \"pg\" md5", "host all \"pg\" 10.0.0.0/8 md5", "host all \"rw\" 10.0.0.0/8 md5"];
        assert_eq!(closed[..3], mine);
        assert_eq!(closed[3..], LOCKOUT);
    }

    /// Where a directory service or a certificate provides the name of a user, no user can have this name.
    #[test]
    fn no_other_user_can_log_in_as_the_own_role() {
        for user_has_name in [true, false] {
            let rules = own_rules(&Setup::default(), user_has_name);
            for place in ["local all", "local replication", "host all", "host replication"] {
                let of_place = |rule: &&String| rule.starts_with(&format!("{place} {}", session::ROLE));
                let rule = rules.iter().find(of_place).unwrap_or_else(|| panic!("{place}"));
                let is_own = place == "local all" && user_has_name;
                let expected = if is_own { "peer map=matriarch_supervisor" } else { "reject" };
                assert!(rule.ends_with(expected), "{rule}");
            }
        }
    }

    /// The operator's rules alone apply to the operator's roles: no line of the supervisor concerns them, while its own
    /// role can log in.
    #[test]
    fn no_own_line_concerns_a_role_of_the_operator() {
        let rules = own_rules(&Setup { superuser: named("postgres"), ..Setup::default() }, true);
        let is_own = |rule: &String| rule.split_whitespace().nth(2) == Some(session::ROLE);
        assert!(rules.iter().all(is_own), "{rules:?}");
    }

    #[test]
    fn replaced_lines_are_kept() {
        let place = std::env::temp_dir().join(format!("access-rules-{}", std::process::id()));
        fs::create_dir_all(&place).expect("a place");
        let (setup, file) = (Setup::default(), place.join("pg_hba.conf"));
        fs::write(&file, b"# \xff by hand").expect("written");
        for rule in ["local all all peer", "local all all reject"] {
            write_whole(&setup, &file, [].iter(), &[rule.to_owned()]).expect("written");
            assert_eq!(
                fs::read(place.join("pg_hba.conf.before-matriarch")).expect("kept"),
                b"# \xff by hand"
            );
        }
        fs::remove_dir_all(&place).expect("removed");
    }
}
