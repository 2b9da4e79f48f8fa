//! The clients of a health check, each a thread with a blocking socket: on one processor, while the supervisor that is
//! measured has another for itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

/// Where the measured supervisor runs, and where the clients do.
const SUPERVISOR: usize = 0;
const CLIENTS: usize = 1;
/// How many clients ask at once.
const THREADS: usize = 8;
/// How many there are to keep a schedule: one that waits for an answer is late for its next request.
const SCHEDULE_THREADS: usize = 32;
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// How clients ask.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// Again as soon as there is an answer, with a new connection for each request, as load balancers do.
    NewConnections,
    /// Again as soon as there is an answer, on one connection.
    KeptConnections,
    /// So often a second, whether or not earlier requests are answered. A request counts from its time on.
    Schedule(u32),
}

/// What was answered.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How long each answer took, sorted.
    pub(super) took: Vec<Duration>,
    /// Requests without an answer.
    pub(super) unanswered: usize,
    /// From the first request to the last answer.
    pub(super) lasted: Duration,
}

impl Taken {
    /// All but this share of a thousand took no longer.
    pub(super) fn milliseconds(&self, per_mille: usize) -> f64 {
        let index = self.took.len().saturating_sub(1) * per_mille / 1000;
        self.took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    }
}

/// Clients that ask until they are told to stop.
pub(super) struct Clients {
    began: Instant,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Taken>>>,
}

/// Gives this process and all its threads the supervisor's processor.
pub(super) fn pin_supervisor(pid: i32) -> Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        pin(Pid::from_raw(thread), SUPERVISOR)?;
    }
    Ok(())
}

fn pin(thread: Pid, processor: usize) -> Result<()> {
    let mut processors = CpuSet::new();
    processors.set(processor)?;
    sched_setaffinity(thread, &processors).context("choose a processor")
}

impl Clients {
    /// Begins to ask `path` of this address.
    pub(super) fn start(address: SocketAddr, path: &str, load: Load) -> Clients {
        let (began, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let count = if matches!(load, Load::Schedule(_)) { SCHEDULE_THREADS } else { THREADS };
        let client = |number| {
            let client = Client { address, began, stop: stop.clone(), number };
            let path = path.to_owned();
            std::thread::spawn(move || {
                pin(Pid::from_raw(0), CLIENTS)?;
                client.run(&path, load)
            })
        };
        let threads = (0..count).map(client).collect();
        Clients { began, stop, threads }
    }

    /// Lets them end, and collects what they have.
    pub(super) fn end(self) -> Result<Taken> {
        self.stop.store(true, Ordering::Relaxed);
        let lasted = self.began.elapsed();
        let mut all = Taken { lasted, ..Taken::default() };
        for thread in self.threads {
            let one = thread.join().ok().context("a client panicked")??;
            all.took.extend(one.took);
            all.unanswered += one.unanswered;
        }
        ensure!(!all.took.is_empty(), "there was no answer");
        all.took.sort_unstable();
        Ok(all)
    }
}

struct Client {
    address: SocketAddr,
    began: Instant,
    stop: Arc<AtomicBool>,
    number: usize,
}

impl Client {
    fn run(&self, path: &str, load: Load) -> Result<Taken> {
        match load {
            Load::NewConnections => Ok(self.ask_again(|| once(self.address, path))),
            Load::KeptConnections => {
                let mut kept = Kept::connect(self.address, path)?;
                Ok(self.ask_again(|| kept.ask()))
            }
            Load::Schedule(a_second) => Ok(self.keep_schedule(path, a_second)),
        }
    }

    fn ask_again(&self, mut ask: impl FnMut() -> std::io::Result<()>) -> Taken {
        let mut taken = Taken::default();
        while !self.stop.load(Ordering::Relaxed) {
            taken.note(Instant::now(), ask());
        }
        taken
    }

    /// Every so many-th request is this client's.
    fn keep_schedule(&self, path: &str, a_second: u32) -> Taken {
        let mut taken = Taken::default();
        for request in (self.number..).step_by(SCHEDULE_THREADS) {
            let due = self.began + Duration::from_secs_f64(request as f64 / f64::from(a_second));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            taken.note(due, once(self.address, path));
        }
        taken
    }
}

impl Taken {
    fn note(&mut self, since: Instant, answer: std::io::Result<()>) {
        match answer {
            Ok(()) => self.took.push(since.elapsed()),
            Err(_) => self.unanswered += 1,
        }
    }
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWERS_WITHIN)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    Ok(stream)
}

/// As HAProxy asks: a request, an answer to its end, and the end of the connection.
fn once(address: SocketAddr, path: &str) -> std::io::Result<()> {
    let mut stream = connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: member\r\n\r\n").as_bytes())?;
    let mut answer = Vec::with_capacity(8 << 10);
    stream.read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

/// A connection for many requests.
struct Kept {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Kept {
    fn connect(address: SocketAddr, path: &str) -> std::io::Result<Kept> {
        let stream = connect(address)?;
        stream.set_nodelay(true)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: member\r\n\r\n").into_bytes();
        Ok(Kept { stream, request, buffer: vec![0; 64 << 10] })
    }

    fn ask(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.request)?;
        let mut read = 0;
        loop {
            match self.stream.read(&mut self.buffer[read..])? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                more => read += more,
            }
            if length(&self.buffer[..read]).is_some_and(|length| length <= read) {
                return Ok(());
            }
        }
    }
}

/// How long an answer is, when its head is complete.
fn length(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let text = std::str::from_utf8(&answer[..head]).ok()?.to_ascii_lowercase();
    let body =
        text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    Some(head + 4 + body.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_body() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!((length(text), length(&text[..20])), (Some(text.len()), None));
        assert_eq!(length(b"HTTP/1.1 503 Away\r\n\r\n"), Some(21));
    }

    #[test]
    fn a_late_answer_counts_from_its_time() {
        let taken = Taken { took: (1..=1000).map(Duration::from_millis).collect(), ..Taken::default() };
        assert_eq!((taken.milliseconds(500), taken.milliseconds(990)), (500.0, 990.0));
    }
}
