//! The connection probe: a new connection to the local Postgres, up to the first answer of the process that was forked
//! for it.
//!
//! The probe asks for TLS (PostgreSQL manual, "Message Formats", SSLRequest). Every answer proves that process, without
//! a user, a password, an access rule or a free slot. If the client then closes the connection, the server logs
//! nothing. So the probe can be repeated for ever.

use std::io::ErrorKind;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::handle::PostgresInner;

/// The length of the message, and its code.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
/// The message of a postmaster that cannot fork is far shorter.
const ANSWER_BYTES_MAX: u64 = 1024;

/// `Ok`: a new process answered. `Err` has the reason why none did.
pub(super) async fn probe_connection(inner: &PostgresInner) -> Result<(), String> {
    let setup = &inner.setup;
    let listen = inner.access.listen(setup);
    let (host, port) = (setup.local_host(&listen), listen.port);
    let Some(directory) = inner.access.directory() else { return probe_address(&host, port).await };
    match UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await {
        Ok(stream) => handshake(stream).await,
        // The socket's file may have been removed, which says nothing about the server.
        Err(error) => {
            let ended = probe_address(&host, port).await;
            ended.map_err(|other| format!("{}: {error}; {host}: {other}", directory.display()))
        }
    }
}

async fn probe_address(host: &str, port: u16) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    if host.starts_with('/') {
        let path = Path::new(host).join(format!(".s.PGSQL.{port}"));
        handshake(UnixStream::connect(path).await.map_err(text)?).await
    } else {
        handshake(TcpStream::connect((host, port)).await.map_err(text)?).await
    }
}

/// Sends the request, and reads the answer.
async fn handshake(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    stream.write_all(&SSL_REQUEST).await.map_err(text)?;
    match stream.read_u8().await {
        Ok(b'S' | b'N') => Ok(()),
        // A postmaster that cannot fork answers in an old protocol: plain text, and a zero byte.
        Ok(b'E') => {
            let mut message = Vec::new();
            stream.take(ANSWER_BYTES_MAX).read_to_end(&mut message).await.map_err(text)?;
            let message = message.split(|byte| *byte == 0).next().unwrap_or_default();
            Err(String::from_utf8_lossy(message).trim().to_owned())
        }
        Ok(other) => Err(format!("an unexpected answer: {other}")),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
            Err("the connection was closed without an answer".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result for a server that gives this answer and closes the connection.
    async fn answered(answer: &[u8]) -> Result<(), String> {
        let (stream, mut server) = tokio::io::duplex(64);
        let server = async move {
            let mut asked = [0; 8];
            server.read_exact(&mut asked).await.expect("a request");
            assert_eq!(asked, SSL_REQUEST);
            server.write_all(answer).await.expect("it is read");
        };
        tokio::join!(handshake(stream), server).0
    }

    #[tokio::test]
    async fn reads_the_first_answer() {
        assert_eq!(answered(b"S").await, Ok(()));
        assert_eq!(answered(b"N").await, Ok(()));
        let no_fork = b"Ecould not fork new process: no memory\n\0";
        assert_eq!(answered(no_fork).await, Err("could not fork new process: no memory".to_owned()));
        assert!(answered(b"").await.is_err_and(|why| why.contains("without an answer")));
        assert!(answered(b"HTTP/1.1").await.is_err());
    }
}
