//! The only access to the terminal: data goes to stdout, messages go to stderr, and questions need a terminal.

use std::io::{self, BufRead, IsTerminal, Write};

use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::called::CalledAs;
use super::error::CliError;
use super::exit::Exit;

/// The terminal, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    can_ask: bool,
    can_redraw: bool,
    messages: MessagesTo,
}

/// Where messages and questions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessagesTo {
    Stderr,
    /// As patronictl does: scripts read them there.
    Stdout,
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
        Ui { can_ask, can_redraw: io::stdout().is_terminal(), messages: MessagesTo::Stderr }
    }

    /// As [`Ui::new`]. As patronictl it takes answers from any standard input, and writes messages to stdout.
    pub fn of(called: CalledAs) -> Ui {
        match called {
            CalledAs::Patronictl => Ui { can_ask: true, messages: MessagesTo::Stdout, ..Ui::new() },
            CalledAs::Matriarch | CalledAs::Patroni | CalledAs::Kubectl => Ui::new(),
        }
    }

    /// Prints data. A reader that went away (`| head`) is no error.
    pub fn data(&self, text: &str) {
        let mut out = anstream::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Prints a message for the user.
    pub fn say(&self, text: &str) {
        match self.messages {
            MessagesTo::Stderr => self.fail(text),
            MessagesTo::Stdout => self.data(&format!("{text}\n")),
        }
    }

    /// Prints an error.
    pub fn fail(&self, text: &str) {
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

    /// Whether standard input is a terminal.
    pub fn reads_terminal(&self) -> bool {
        io::stdin().is_terminal()
    }

    /// Whether input, output and messages are a terminal, which a program elsewhere can have.
    pub fn is_conversation(&self) -> bool {
        self.can_ask && self.can_redraw
    }

    /// Columns and rows of the terminal; 80 and 24 if it does not say.
    pub fn size(&self) -> (u16, u16) {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0);
        size.map_or((80, 24), |size| (size.ws_col, size.ws_row))
    }

    /// Passes every key on as it is typed, until the result is dropped.
    pub fn raw(&self) -> Result<RawTerminal, CliError> {
        let before = tcgetattr(io::stdin()).map_err(io::Error::from)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).map_err(io::Error::from)?;
        Ok(RawTerminal(before))
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
        match self.messages {
            MessagesTo::Stderr => {
                let mut err = anstream::stderr().lock();
                write!(err, "{question}").and_then(|()| err.flush())?;
            }
            MessagesTo::Stdout => self.data(question),
        }
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(CliError::failed("cancelled: end of input").exit(Exit::Interrupted));
        }
        Ok(line.trim().to_owned())
    }

    /// As [`Ui::ask`]; the terminal does not show the answer.
    pub fn ask_secret(&self, question: &str) -> Result<String, CliError> {
        let stdin = io::stdin();
        let Ok(shown) = tcgetattr(&stdin) else { return self.ask(question) };
        let mut hidden = shown.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSANOW, &hidden).map_err(io::Error::from)?;
        let answer = self.ask(question);
        tcsetattr(&stdin, SetArg::TCSANOW, &shown).map_err(io::Error::from)?;
        self.say("");
        answer
    }
}

/// A terminal whose keys are passed on.
#[derive(Debug)]
pub struct RawTerminal(Termios);

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

impl Default for Ui {
    fn default() -> Ui {
        Ui::new()
    }
}
