//! `completions` and `man`.

use std::collections::BTreeSet;
use std::process::Command;

use super::{PROGRAM, has, output_of, text_of};
use crate::support::Place;

/// What `--help` shows, without `help` itself.
fn commands() -> BTreeSet<String> {
    let help = text_of(Command::new(PROGRAM).arg("--help"));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

/// What a real bash offers behind `words`, of which the last is being typed.
fn bash_offers(script: &str, words: &str) -> BTreeSet<String> {
    let ask = "COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
        function=$(complete -p matriarch | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        \"$function\" matriarch \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
        printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-euc", &format!("{script}\n{ask}"), "bash", words]);
    text_of(&mut bash).lines().map(|line| line.trim().to_owned()).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    let script = text_of(Command::new(PROGRAM).args(["completions", "bash"]));
    assert_eq!(bash_offers(&script, "matriarch swi"), BTreeSet::from(["switchover".to_owned()]));
    let options = bash_offers(&script, "matriarch switchover --");
    assert!(options.contains("--candidate") && options.contains("--force"), "{options:?}");
    let formats = bash_offers(&script, "matriarch list --output j");
    assert_eq!(formats, BTreeSet::from(["json".to_owned()]));
}

#[test]
fn zsh_and_fish_read_their_scripts() {
    let place = Place::new();
    for shell in ["zsh", "fish"] {
        let script = text_of(Command::new(PROGRAM).args(["completions", shell]));
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
        if has(shell) {
            let file = place.path().join(shell);
            std::fs::write(&file, script).expect("our own place is writable");
            text_of(Command::new(shell).arg("-n").arg(&file));
        }
    }
    let unknown = output_of(Command::new(PROGRAM).args(["completions", "tcsh"]));
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

/// Each command that `--help` shows has a page, no other has one, and groff has nothing to say against any.
#[test]
fn each_command_has_a_manual_page() {
    let place = Place::new();
    let folder = place.path().join("new/man1");
    text_of(Command::new(PROGRAM).arg("man").arg("--out").arg(&folder));
    let entries = std::fs::read_dir(&folder).expect("it was made").flatten();
    let pages: BTreeSet<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let mut expected: BTreeSet<String> =
        commands().iter().map(|command| format!("matriarch-{command}.1")).collect();
    expected.insert("matriarch.1".to_owned());
    assert_eq!(pages, expected);
    for page in &pages {
        let file = folder.join(page);
        let text = std::fs::read_to_string(&file).expect("it was written");
        assert!(text.contains(".SH SYNOPSIS") && text.contains(".SH OPTIONS"), "{page}: {text}");
        if has("groff") {
            let output = output_of(Command::new("groff").args(["-man", "-ww", "-Tutf8", "-Kutf8"]).arg(file));
            assert!(output.status.success() && output.stderr.is_empty(), "{page}: {output:?}");
        }
    }
}

#[test]
fn manual_pages_that_cannot_be_written_are_an_error() {
    let place = Place::new();
    let file = place.path().join("file");
    std::fs::write(&file, "").expect("our own place is writable");
    let output = output_of(Command::new(PROGRAM).arg("man").arg("--out").arg(&file));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("failed to write to"), "{said}");
}
