//! A server in a separate process, and what the kernel reports about it (proc(5)).

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Result;

/// `USER_HZ`, the unit of the times in `/proc/PID/stat`: 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running server, which is stopped when this value is dropped.
pub(crate) struct Process {
    child: Child,
    /// The address on which it listens.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts a server, on the named cores if any, with its log in a file, and waits until it prints the address on
    /// which it listens: a line with `"listening": "http://ADDRESS"`.
    pub(crate) fn start(
        cores: Option<&str>,
        program: &Path,
        arguments: &[String],
        log: &Path,
    ) -> Result<Self> {
        let mut command = command(cores, program);
        command.args(arguments).stdout(Stdio::piped()).stderr(File::create(log)?);
        let mut child = command.spawn()?;
        let address = child.stdout.take().ok_or("no output")?;
        let address = BufReader::new(address).lines().find_map(|line| {
            let line = line.ok()?;
            let (_, rest) = line.split_once("\"listening\": \"http://")?;
            rest.split('"').next()?.parse().ok()
        });
        match address {
            Some(address) => Ok(Self { child, address }),
            None => {
                child.kill()?;
                child.wait()?;
                Err(format!("{} did not start: {}", program.display(), end_of(log)).into())
            }
        }
    }

    /// Returns the processor time used so far by all its threads, in its own code and in the kernel, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The program's name, in parentheses, may hold anything; the state is the third field.
        let (_, fields) = stat.rsplit_once(')').ok_or("no stat")?;
        let ticks = |number: usize| -> Result<f64> {
            Ok(fields.split_whitespace().nth(number - 3).ok_or("no stat")?.parse()?)
        };
        Ok((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
    }

    /// Returns the resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).ok_or("no status")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended by itself. Either way, nothing is left to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "the servers that are measured are processes")]
fn command(cores: Option<&str>, program: &Path) -> Command {
    match cores {
        Some(cores) => {
            let mut command = Command::new("taskset");
            command.args(["-c", cores]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn end_of(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().next_back().unwrap_or("it said nothing").to_owned()
}
