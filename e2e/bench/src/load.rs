//! One contender under load: CPU per request, latency, memory at 1,000 idle connections, system calls.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::contender::Contender;
use crate::process::{Process, loopback, run};

/// How many idle connections memory is measured at.
const IDLE: usize = 1_000;

/// How a contender is measured.
pub(crate) struct Load {
    /// How long each load lasts.
    pub(crate) length: Duration,
    /// The last round also measures memory and system calls, which one round is enough for.
    pub(crate) last: bool,
}

/// What one kind of load showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// The proxy's CPU time per request in microseconds.
    pub(crate) cpu: f64,
    /// Latency in milliseconds at the median.
    pub(crate) p50: f64,
    /// Latency in milliseconds at the 99th percentile.
    pub(crate) p99: f64,
    /// Requests that were not answered by 200.
    pub(crate) failed: u64,
}

/// What one round showed of one contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// HTTP/1.1 keep-alive.
    pub(crate) http: Traffic,
    /// HTTP/2 with prior knowledge, HTTP/1.1 to the backend.
    pub(crate) h2c: Option<Traffic>,
    /// HTTP/1.1 keep-alive over TLS.
    pub(crate) tls: Option<Traffic>,
    /// Resident bytes at 1,000 idle connections.
    pub(crate) idle: Option<u64>,
    /// System calls per HTTP/1.1 keep-alive request.
    pub(crate) calls: Option<f64>,
}

impl Load {
    /// Starts a contender on core 1, measures it, ends it.
    pub(crate) fn run(&self, contender: &Contender) -> Result<Figures> {
        let process = Process::start(1, &contender.command, contender.http, &contender.log)?;
        let plain = format!("http://127.0.0.1:{}/", contender.http);
        self.wrk(&plain, Duration::from_secs(1))?;
        let http = self.measured(&process, || self.wrk(&plain, self.length))?;
        let h2c = contender.h2c.map(|port| self.measured(&process, || self.h2load(port))).transpose()?;
        let tls = contender
            .tls
            .map(|port| {
                self.measured(&process, || self.wrk(&format!("https://127.0.0.1:{port}/"), self.length))
            })
            .transpose()?;
        let calls = self.last.then(|| self.calls(&process, &plain)).transpose()?;
        drop(process);
        let idle = self.last.then(|| idle_memory(contender)).transpose()?;
        Ok(Figures { http, h2c, tls, idle, calls })
    }

    fn measured(&self, process: &Process, load: impl FnOnce() -> Result<Answer>) -> Result<Traffic> {
        let before = process.usage()?.cpu;
        let answer = load()?;
        let used = process.usage()?.cpu - before;
        let cpu = used.as_secs_f64() * 1e6 / answer.requests as f64;
        Ok(Traffic { cpu, p50: answer.p50, p99: answer.p99, failed: answer.failed })
    }

    /// 32 keep-alive connections from one thread.
    fn wrk(&self, url: &str, length: Duration) -> Result<Answer> {
        let length = format!("-d{}s", length.as_secs());
        let text =
            run(Command::new("taskset").args(["-c", "0", "wrk", "-t1", "-c32", "--latency", &length, url]))?;
        Answer::of_wrk(&text).with_context(|| format!("reading {text}"))
    }

    /// 8 connections of 16 streams each.
    fn h2load(&self, port: u16) -> Result<Answer> {
        let length = format!("--duration={}", self.length.as_secs());
        let url = format!("http://127.0.0.1:{port}/");
        let text =
            run(Command::new("taskset").args(["-c", "0", "h2load", "-c8", "-m16", "-t1", &length, &url]))?;
        Answer::of_h2load(&text).with_context(|| format!("reading {text}"))
    }

    /// Counts system calls with strace while a load runs; time does not count here.
    fn calls(&self, process: &Process, url: &str) -> Result<f64> {
        let mut strace = Command::new("strace")
            .args(["-c", "-f", "-q", "-p", &process.id().to_string()])
            .stderr(Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(500));
        let answer = self.wrk(url, Duration::from_secs(2))?;
        run(Command::new("kill").args(["-INT", &strace.id().to_string()]))?;
        let mut text = String::new();
        strace.stderr.take().context("strace prints to a pipe")?.read_to_string(&mut text)?;
        strace.wait()?;
        Ok(total_calls(&text) as f64 / answer.requests as f64)
    }
}

/// The sum of the fourth column (calls) of what `strace -c` prints, less its own total line.
fn total_calls(text: &str) -> u64 {
    let rows = text.lines().filter(|line| !line.ends_with(" total"));
    rows.filter_map(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok()).sum()
}

/// What a load generator reports.
struct Answer {
    requests: u64,
    failed: u64,
    p50: f64,
    p99: f64,
}

impl Answer {
    fn of_wrk(text: &str) -> Option<Self> {
        let after = |mark: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(mark))?;
            milliseconds(line.split_whitespace().nth(1)?)
        };
        let requests = text.lines().find(|line| line.contains(" requests in "))?;
        let failed =
            text.lines().find(|line| line.contains("Non-2xx")).and_then(|line| line.rsplit(' ').next());
        Some(Self {
            requests: requests.split_whitespace().next()?.parse().ok()?,
            failed: failed.map_or(Some(0), |count| count.parse().ok())?,
            p50: after("50%")?,
            p99: after("99%")?,
        })
    }

    /// h2load prints the mean and the largest time, not percentiles: those stand in.
    fn of_h2load(text: &str) -> Option<Self> {
        let requests = text.lines().find(|line| line.starts_with("requests:"))?;
        let number = |word: &str| {
            let before = requests.split(word).next()?;
            before.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty())?.parse::<u64>().ok()
        };
        let times = text.lines().find(|line| line.starts_with("time for request:"))?;
        let column = |index| milliseconds(times.split_whitespace().nth(index)?);
        Some(Self {
            requests: number(" succeeded")?,
            failed: number(" failed")?,
            p50: column(5)?,
            p99: column(4)?,
        })
    }
}

/// A time such as `1.25ms`, `310us` or `1.02s`.
fn milliseconds(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..split].parse().ok()?;
    match &text[split..] {
        "us" => Some(value / 1e3),
        "ms" => Some(value),
        "s" => Some(value * 1e3),
        _ => None,
    }
}

/// The memory of a fresh process with 1,000 connections that each had one request and then rest.
fn idle_memory(contender: &Contender) -> Result<u64> {
    let process = Process::start(1, &contender.command, contender.http, &contender.log)?;
    let mut connections = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(loopback(contender.http))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut first = [0; 1024];
        let read = stream.read(&mut first)?;
        anyhow::ensure!(first[..read].starts_with(b"HTTP/1.1 200"), "an idle connection's request failed");
        connections.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    Ok(process.usage()?.resident)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_wrk_prints() {
        let text = "  Latency Distribution\n     50%  485.00us\n     75%  500.00us\n     99%    1.20ms\n  401000 requests in 6.00s, 80.00MB read\n  Non-2xx or 3xx responses: 7\nRequests/sec:  66800.10\n";
        let answer = Answer::of_wrk(text).unwrap();
        assert_eq!((answer.requests, answer.failed), (401_000, 7));
        assert!((answer.p50 - 0.485).abs() < 1e-9 && (answer.p99 - 1.2).abs() < 1e-9);
    }

    #[test]
    fn sums_what_strace_counted() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n------ ----------- ----------- --------- --------- ----------------\n 60.00    0.600000           6    100000           sendto\n 40.00    0.400000           4    100010        10 recvfrom\n------ ----------- ----------- --------- --------- ----------------\n100.00    1.000000           5    200010        10 total\n";
        assert_eq!(total_calls(text), 200_010);
    }

    #[test]
    fn reads_what_h2load_prints() {
        let text = "requests: 300 total, 310 started, 300 done, 298 succeeded, 2 failed, 1 errored, 0 timeout\ntime for request:      200us     12.34ms      1.50ms       300us    90.00%\n";
        let answer = Answer::of_h2load(text).unwrap();
        assert_eq!((answer.requests, answer.failed), (298, 2));
        assert!((answer.p50 - 1.5).abs() < 1e-9 && (answer.p99 - 12.34).abs() < 1e-9);
    }
}
