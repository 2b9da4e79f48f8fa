//! The arguments of `patronictl` and `patroni`, for links of these names to the program.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgGroup, CommandFactory, FromArgMatches, Parser};

use super::args::{Cli, Command};
use super::called::CalledAs;
use super::check::CheckArgs;
use super::context::Global;
use super::generate_config::GenerateConfigArgs;
use super::output::Format;
use super::run::RunArgs;
use super::version::VersionArgs;

/// Commands that patronictl does not have.
const ONLY_OURS: [&str; 10] = [
    "run",
    "check",
    "generate-config",
    "operations",
    "observe",
    "why",
    "explain",
    "demo",
    "completions",
    "man",
];

/// Parses a command line in the syntax of `called`.
///
/// # Errors
/// A usage error; help and version arrive here, too.
pub fn parse(called: CalledAs, words: Vec<OsString>) -> Result<Cli, clap::Error> {
    match called {
        CalledAs::Matriarch | CalledAs::Kubectl => Cli::try_parse_from(words),
        CalledAs::Patronictl => {
            let hide = |command: clap::Command, name| command.mut_subcommand(name, |sub| sub.hide(true));
            let command = ONLY_OURS.into_iter().fold(Cli::command().name("patronictl"), hide);
            Cli::from_arg_matches(&command.try_get_matches_from(words)?)
        }
        CalledAs::Patroni => Ok(PatroniArgs::try_parse_from(words)?.into_cli()),
    }
}

/// Run a member: supervise the PostgreSQL on this machine
#[derive(Debug, Parser)]
#[command(name = "patroni", disable_version_flag = true)]
#[command(group = ArgGroup::new("instead"))]
struct PatroniArgs {
    /// The configuration file: to read, or to write with `--generate-…`.
    configfile: Option<PathBuf>,
    /// Check the configuration instead of running.
    #[arg(long, group = "instead")]
    validate_config: bool,
    /// Accept ports in use.
    #[arg(short, long, requires = "validate_config")]
    ignore_listen_port: bool,
    /// Print a valid configuration with what the environment adds, passwords included.
    #[arg(short, long, requires = "validate_config")]
    print: bool,
    /// Write the configuration of a running PostgreSQL instead of running.
    #[arg(long, group = "instead")]
    generate_config: bool,
    /// That PostgreSQL: a connection string of a superuser.
    #[arg(long, requires = "generate_config")]
    dsn: Option<String>,
    /// Write a sample configuration instead of running.
    #[arg(long, group = "instead")]
    generate_sample_config: bool,
    /// Print the version of Patroni that this program is compatible with.
    #[arg(long, group = "instead")]
    version: bool,
}

impl PatroniArgs {
    fn into_cli(self) -> Cli {
        let file = self.configfile;
        let command = if self.version {
            Command::Version(VersionArgs::default())
        } else if self.validate_config {
            let PatroniArgs { ignore_listen_port, print, .. } = self;
            Command::Check(CheckArgs { file, strict: false, ignore_listen_port, ignore_etcd: false, print })
        } else if self.generate_config || self.generate_sample_config {
            let sample = self.generate_sample_config;
            Command::GenerateConfig(GenerateConfigArgs { file, dsn: self.dsn, sample })
        } else {
            Command::Run(RunArgs { file })
        };
        let global = Global { config_file: None, dcs_url: None, insecure: false, output: Format::Table };
        Cli { global, command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<String, String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let cli = parse(CalledAs::read(&words), words).map_err(|error| error.to_string())?;
        Ok(format!("{:?} {:?}", cli.global, cli.command))
    }

    #[test]
    fn the_arguments_of_both_programs_are_consistent() {
        Cli::command().debug_assert();
        PatroniArgs::command().debug_assert();
    }

    #[test]
    fn patronictl_lines_are_taken_as_they_are() {
        for line in [
            "patronictl -c f list c1 c2 -f yml -e -t -W",
            "/usr/bin/patronictl -k -d etcd3://h/n topology -w 0.5",
            "patronictl --dcs h:2379 dsn -r standby-leader",
            "patronictl dsn c -m m1",
            "patronictl -c f query c -c sql -d db -U u --password -r replica -W",
            "patronictl query --file f --format json --delimiter , --member m1 -w 1",
            "patronictl remove c -f json",
            "patronictl flush c m1 m2 restart -r any --force",
            "patronictl flush c switchover",
            "patronictl switchover c --primary m1 --candidate m2 --scheduled now --force",
            "patronictl restart c m1 --any --pending --pg-version 15.2 --timeout 10 --scheduled now --force",
            "patronictl reload c m1 -r primary",
            "patronictl reinit c m1 --from-leader --wait",
            "patronictl reinit c",
            "patronictl edit-config -q -s a=1 -s b=2 -p c=1 --pg d=2 --force",
            "patronictl edit-config c --replace f --apply - -s a=1",
            "patronictl pause c --wait",
            "patronictl version c m1",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
        }
        let query = parsed("patronictl -c f query -c sql -d db").expect("it parses");
        assert!(query.contains(r#"config_file: Some("f"), dcs_url: None"#), "{query}");
        assert!(query.contains(r#"command: Some("sql"), file: None, dbname: Some("db")"#), "{query}");
        assert!(query.contains("output: Tsv"), "{query}");
        let query = parsed("matriarch query --config-file f -o json -c sql").expect("it parses");
        assert!(query.contains(r#"config_file: Some("f")"#) && query.contains("output: Json"), "{query}");
        assert!(parsed("patronictl dsn -r leader -m m1").is_err());
        assert!(parsed("patronictl query").is_err());
        assert!(parsed("patronictl query -c a -f b").is_err());
    }

    #[test]
    fn patroni_lines_become_commands() {
        let cases = [
            ("/opt/bin/patroni f.yml", "Run(RunArgs { file: Some(\"f.yml\") })"),
            ("patroni", "Run(RunArgs { file: None })"),
            (
                "patroni --validate-config f.yml -i -p",
                "Check(CheckArgs { file: Some(\"f.yml\"), strict: false, \
                 ignore_listen_port: true, ignore_etcd: false, print: true })",
            ),
            (
                "patroni --generate-config f.yml --dsn host=a",
                "GenerateConfig(GenerateConfigArgs { file: Some(\"f.yml\"), dsn: Some(\"host=a\"), sample: false })",
            ),
            (
                "patroni --generate-sample-config",
                "GenerateConfig(GenerateConfigArgs { file: None, dsn: None, sample: true })",
            ),
            ("patroni --version", "Version(VersionArgs { cluster: None, members: [] })"),
        ];
        for (line, command) in cases {
            assert!(parsed(line).is_ok_and(|text| text.ends_with(command)), "{line}: {:?}", parsed(line));
        }
        assert!(parsed("patroni --validate-config --generate-config f").is_err());
        assert!(parsed("patroni --dsn host=a f").is_err());
    }
}
