//! Knocking: a new connection to the local Postgres, as far as the first answer of the process that was forked for it.
//!
//! It needs no password and no free slot: "too many connections" or a refused login is an answer, too. And it costs a
//! fraction of a login, so that it can be repeated for ever.

use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::Setup;
use super::conninfo::database;
use super::handle::Inner;

/// An answer to a first message is far shorter.
const ANSWER_BYTES_MAX: usize = 8192;

/// `Ok`: somebody answered. `Err` says what happened instead.
pub(super) async fn knock(inner: &Inner) -> Result<(), String> {
    let setup = &inner.setup;
    let Some(directory) = inner.access.directory() else { return knock_at_address(setup).await };
    match UnixStream::connect(directory.join(format!(".s.PGSQL.{}", setup.port))).await {
        Ok(stream) => greet(setup, stream).await,
        // Somebody may have removed the socket, which says nothing of the server.
        Err(error) => {
            let ended = knock_at_address(setup).await;
            ended.map_err(|other| format!("{}: {error}; {}: {other}", directory.display(), setup.local_host))
        }
    }
}

async fn knock_at_address(setup: &Setup) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let host = setup.local_host.as_str();
    if host.starts_with('/') {
        let path = Path::new(host).join(format!(".s.PGSQL.{}", setup.port));
        greet(setup, UnixStream::connect(path).await.map_err(text)?).await
    } else {
        greet(setup, TcpStream::connect((host, setup.port)).await.map_err(text)?).await
    }
}

/// Sends a startup message and reads the first answer. Then says goodbye in good order, so that nothing is logged.
async fn greet(setup: &Setup, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(&startup_message(&setup.superuser.username, database(setup))).await.map_err(text)?;
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    let told = loop {
        match stream.read(&mut part).await.map_err(text)? {
            0 => return Err("the connection was closed without an answer".to_owned()),
            read => answer.extend_from_slice(&part[..read]),
        }
        if let Some(told) = read_answer(&answer) {
            break told;
        }
        if ANSWER_BYTES_MAX < answer.len() {
            return Err("the answer is none of PostgreSQL".to_owned());
        }
    };
    if told == Ok(Told::Welcome) {
        let _ = stream.write_all(&[b'X', 0, 0, 0, 4]).await;
    }
    let _ = stream.shutdown().await;
    while stream.read(&mut part).await.is_ok_and(|read| 0 < read) {}
    told.map(drop)
}

fn startup_message(user: &str, database: &str) -> Vec<u8> {
    let mut body = 0x0003_0000_u32.to_be_bytes().to_vec();
    for text in ["user", user, "database", database, "application_name", "Matriarch probe"] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = body.len() as u32 + 4;
    [length.to_be_bytes().to_vec(), body].concat()
}

/// What the first message says. Both prove a new process that answers.
#[derive(Debug, PartialEq)]
enum Told {
    /// No password is needed: the session has begun.
    Welcome,
    /// A password is wanted, or the process had its reasons to refuse.
    Refused,
}

/// Reads the first message; `None` while it is not complete. `Err` is what the postmaster says when it cannot fork, or
/// the new process when it cannot begin.
fn read_answer(bytes: &[u8]) -> Option<Result<Told, String>> {
    let length = u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize;
    let body = |length: usize| bytes.get(5..length.checked_add(1)?);
    match bytes[0] {
        b'R' => {
            let welcome = body(length)?.first_chunk() == Some(&[0; 4]);
            Some(Ok(if welcome { Told::Welcome } else { Told::Refused }))
        }
        // A postmaster that cannot fork says so in the protocol of old: plain text, no length.
        b'E' if ANSWER_BYTES_MAX < length => {
            let end = bytes.iter().position(|byte| *byte == 0)?;
            Some(Err(String::from_utf8_lossy(&bytes[1..end]).trim().to_owned()))
        }
        b'E' => Some(read_refusal(body(length)?)),
        other => Some(Err(format!("an unexpected answer: {other}"))),
    }
}

/// Too many connections, a refused login, not accepting connections now: somebody is there. Anything else is trouble.
fn read_refusal(body: &[u8]) -> Result<Told, String> {
    let field = |kind: u8| {
        let fields = body
            .split(|byte| *byte == 0)
            .filter(|field| field.first() == Some(&kind))
            .map(|field| &field[1..]);
        fields.map(|text| String::from_utf8_lossy(text).into_owned()).next().unwrap_or_default()
    };
    let code = field(b'C');
    let is_answer = code.starts_with("28") || ["53300", "57P03", "3D000"].contains(&code.as_str());
    if is_answer { Ok(Told::Refused) } else { Err(field(b'M')) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[test]
    fn reads_the_first_answer() {
        assert_eq!(read_answer(&message(b'R', &[0, 0, 0, 0])), Some(Ok(Told::Welcome)));
        assert_eq!(read_answer(&message(b'R', &[0, 0, 0, 10, b'S', 0, 0])), Some(Ok(Told::Refused)));
        assert_eq!(read_answer(&message(b'R', &[0, 0, 0, 10, b'S'])[..7]), None);
        let error = |code: &str| message(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mso what\0\0").as_bytes());
        for code in ["53300", "28P01", "28000", "57P03"] {
            assert_eq!(read_answer(&error(code)), Some(Ok(Told::Refused)), "{code}");
        }
        assert_eq!(read_answer(&error("58030")), Some(Err("so what".to_owned())));
        let no_fork = b"Ecould not fork new process for connection: no memory\n\0";
        let text = "could not fork new process for connection: no memory".to_owned();
        assert_eq!(read_answer(no_fork), Some(Err(text)));
    }
}
