//! The arguments of `kubectl matriarch`: where the cluster is, and a command that runs in one of its pods.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory, FromArgMatches};

use super::args::Cli;

/// Commands for the machine on which they are given.
const NOT_IN_PODS: [&str; 6] = ["run", "guard", "demo", "generate-config", "completions", "man"];

/// Options of kubectl, and those that find the pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Where the cluster is")]
pub struct KubectlArgs {
    /// Namespace of the cluster; default: that of the context.
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; default: the current one.
    #[arg(long, global = true, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Kubeconfig; default: KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Cluster, if there are several in the namespace: the label `cluster-name` of its pods.
    #[arg(long, global = true, value_name = "CLUSTER")]
    pub scope: Option<String>,
    /// Labels of the members' pods.
    #[arg(
        short = 'l',
        long,
        global = true,
        value_name = "LABELS",
        default_value = "app.kubernetes.io/name=matriarch"
    )]
    pub selector: String,
    /// Pod in which the command runs; default: the leader's, else one that is ready, else one that runs.
    #[arg(long, global = true, value_name = "POD")]
    pub pod: Option<String>,
}

/// A command for a pod.
#[derive(Debug, PartialEq, Eq)]
pub struct KubectlCall {
    /// Where the pod is.
    pub args: KubectlArgs,
    /// The command's words, without the program's name and without kubectl's options.
    pub words: Vec<String>,
}

/// Parses a command line. The command is judged here, so that help and usage errors need no pod.
///
/// # Errors
/// A usage error; help and version arrive here, too.
pub fn parse(words: Vec<OsString>) -> Result<KubectlCall, clap::Error> {
    let matches = KubectlArgs::augment_args(command()).try_get_matches_from(&words)?;
    let args = KubectlArgs::from_arg_matches(&matches)?;
    let refuse = |kind, text: String| Err(command().error(kind, text));
    if let Some(name) = matches.subcommand_name().filter(|name| NOT_IN_PODS.contains(name)) {
        let text = format!("`{name}` concerns the machine on which it runs: use `matriarch {name}` there");
        return refuse(ErrorKind::InvalidSubcommand, text);
    }
    let rest = without_options(words);
    // An option that was not taken out, as in `-kn NAMESPACE`, is unknown to the pod's program.
    command().try_get_matches_from(&rest)?;
    match rest.into_iter().skip(1).map(OsString::into_string).collect() {
        Ok(words) => Ok(KubectlCall { args, words }),
        Err(word) => refuse(ErrorKind::InvalidUtf8, format!("{word:?} is not UTF-8")),
    }
}

fn command() -> Command {
    let hide = |command: Command, name| command.mut_subcommand(name, |sub| sub.hide(true));
    let command = Cli::command().name("kubectl-matriarch").bin_name("kubectl matriarch");
    NOT_IN_PODS.into_iter().fold(command, hide)
}

/// A command line without the options of [`KubectlArgs`].
fn without_options(words: Vec<OsString>) -> Vec<OsString> {
    let options = KubectlArgs::augment_args(Command::new("options"));
    let long: Vec<String> =
        options.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    let short: Vec<String> =
        options.get_arguments().filter_map(|arg| Some(format!("-{}", arg.get_short()?))).collect();
    let (mut rest, mut words) = (Vec::new(), words.into_iter());
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        let (name, value) = text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
        if text == "--" {
            rest.push(word);
            rest.extend(words);
            break;
        } else if long.iter().any(|long| long == name) {
            if value.is_none() {
                words.next();
            }
        } else if short.iter().any(|short| *short == text) {
            words.next();
        } else if !short.iter().any(|short| text.starts_with(short)) {
            rest.push(word);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<KubectlCall, String> {
        let words = line.split(' ').map(OsString::from).collect();
        parse(words).map_err(|error| error.to_string())
    }

    #[test]
    fn the_arguments_are_consistent() {
        KubectlArgs::augment_args(command()).debug_assert();
    }

    #[test]
    fn kubectls_options_are_taken_out_wherever_they_stand() {
        for line in [
            "kubectl-matriarch -n shop --context kind switchover pg --candidate pg-1 --force",
            "/opt/kubectl-matriarch switchover pg --namespace=shop --candidate pg-1 --context=kind --force",
            "kubectl-matriarch switchover -nshop pg --candidate pg-1 --force --context kind",
        ] {
            let call = parsed(line).expect("it parses");
            assert_eq!(call.words, ["switchover", "pg", "--candidate", "pg-1", "--force"], "{line}");
            assert_eq!(call.args.namespace.as_deref(), Some("shop"), "{line}");
            assert_eq!(call.args.context.as_deref(), Some("kind"), "{line}");
            assert_eq!(call.args.selector, "app.kubernetes.io/name=matriarch", "{line}");
        }
        let call = parsed("kubectl-matriarch -l app=db --scope a --pod a-1 --kubeconfig f loss -o json")
            .expect("it parses");
        assert_eq!(call.words, ["loss", "-o", "json"]);
        assert_eq!(
            (&*call.args.selector, call.args.scope.as_deref(), call.args.pod.as_deref()),
            ("app=db", Some("a"), Some("a-1"))
        );
        assert_eq!(call.args.kubeconfig, Some(PathBuf::from("f")));
    }

    #[test]
    fn wrong_lines_are_refused_here() {
        for (line, why) in [
            ("kubectl-matriarch lsit", "unrecognized subcommand"),
            ("kubectl-matriarch list --nmaespace shop", "unexpected argument"),
            ("kubectl-matriarch list -kn shop", "unexpected argument '-n'"),
            ("kubectl-matriarch list -n", "a value is required"),
            ("kubectl-matriarch demo", "concerns the machine on which it runs"),
        ] {
            let refused = parsed(line).expect_err(line);
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }

    #[test]
    fn help_shows_kubectls_options_and_no_command_for_machines() {
        let help = parsed("kubectl-matriarch --help").expect_err("help is no call");
        assert!(help.contains("Usage: kubectl matriarch") && help.contains("--kubeconfig"), "{help}");
        assert!(help.contains("switchover") && !help.contains("  demo "), "{help}");
        let help = parsed("kubectl-matriarch switchover --help").expect_err("help is no call");
        assert!(help.contains("--candidate") && help.contains("--namespace"), "{help}");
    }
}
