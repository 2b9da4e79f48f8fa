//! The only access to the terminal: data goes to stdout, messages go to stderr, and questions need a terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use super::error::CliError;
use super::exit::Exit;

/// The terminal, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    can_ask: bool,
    can_redraw: bool,
}

/// How to get the user's consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Ask first.
    Ask,
    /// `--force`: the user has decided.
    Forced,
}

impl Consent {
    /// From the flag `--force`.
    pub fn from_force(force: bool) -> Consent {
        if force { Consent::Forced } else { Consent::Ask }
    }
}

impl Ui {
    /// Examines the standard streams.
    pub fn new() -> Ui {
        let can_ask = io::stdin().is_terminal() && io::stderr().is_terminal();
        Ui { can_ask, can_redraw: io::stdout().is_terminal() }
    }

    /// Prints data. A reader that went away (`| head`) is no error.
    pub fn data(&self, text: &str) {
        let mut out = anstream::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Prints a message for the user.
    pub fn say(&self, text: &str) {
        let _ = writeln!(anstream::stderr().lock(), "{text}");
    }

    /// Replaces the content of a terminal with `text`; otherwise prints it below.
    pub fn redraw(&self, text: &str) {
        if self.can_redraw {
            self.data(&format!("\x1b[H\x1b[2J{text}"));
        } else {
            self.data(text);
        }
    }

    /// Whether the output is a terminal that can be redrawn.
    pub fn is_live(&self) -> bool {
        self.can_redraw
    }

    /// Whether the user can answer.
    pub fn can_ask(&self) -> bool {
        self.can_ask
    }

    /// Asks for consent to `what`. `Err` when there is no terminal or the answer is no.
    pub fn consent(&self, what: &str, consent: Consent) -> Result<(), CliError> {
        if consent == Consent::Forced {
            return Ok(());
        }
        if !self.can_ask {
            return Err(CliError::failed(format!(
                "{what}: confirmation is required, and there is no terminal"
            ))
            .hint("add --force to skip the confirmation"));
        }
        let answer = self.ask(&format!("{what} [y/N]: "))?;
        if matches!(answer.to_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        Err(CliError::failed("cancelled"))
    }

    /// Asks a question and reads one line.
    pub fn ask(&self, question: &str) -> Result<String, CliError> {
        let mut err = anstream::stderr().lock();
        write!(err, "{question}").and_then(|()| err.flush())?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(CliError::failed("cancelled: end of input").exit(Exit::Interrupted));
        }
        Ok(line.trim().to_owned())
    }
}

impl Default for Ui {
    fn default() -> Ui {
        Ui::new()
    }
}
