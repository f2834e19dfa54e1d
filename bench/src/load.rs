//! Reads over a fixed number of persistent connections: as fast as the responses arrive (a closed loop), or at a set
//! rate regardless of the responses (an open loop).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::{Connection, Request};
use crate::{Result, now};

/// The number of connections that read concurrently.
pub(crate) const READERS: usize = 32;

/// The result of running a load.
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    /// The latency of each request in microseconds, ascending.
    latencies: Vec<u32>,
}

impl Outcome {
    pub(crate) fn requests(&self) -> f64 {
        self.latencies.len() as f64
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.requests() / self.elapsed.as_secs_f64()
    }

    /// Returns the latency at a quantile, in milliseconds. `share` is 0.5 for the median.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.latencies.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

/// When a connection sends its next request.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as the response to the previous request arrives.
    Full,
    /// This many requests per second from all connections together, at even intervals. If a request has to wait for the
    /// previous response, its latency counts from when it was due, so that a stall isn't hidden by sending less.
    PerSecond(f64),
}

/// Reads for `window` over [`READERS`] connections. A response other than 200 ends the measurement.
pub(crate) async fn read(
    address: SocketAddr,
    request: &Arc<Request>,
    pace: Pace,
    window: Duration,
) -> Result<Outcome> {
    let mut connections = Vec::new();
    for _ in 0..READERS {
        connections.push(Connection::open(address).await?);
    }
    let began = now();
    let until = began + window;
    let mut readers = JoinSet::new();
    for (at, connection) in connections.into_iter().enumerate() {
        let due = match pace {
            Pace::Full => None,
            Pace::PerSecond(rate) => {
                let step = READERS as f64 / rate;
                let first = began + Duration::from_secs_f64(at as f64 / rate);
                Some((first, Duration::from_secs_f64(step)))
            }
        };
        readers.spawn(read_until(connection, Arc::clone(request), due, until));
    }
    let mut latencies = Vec::new();
    while let Some(read) = readers.join_next().await {
        latencies.append(&mut read??);
    }
    let elapsed = now() - began;
    latencies.sort_unstable();
    Ok(Outcome { elapsed, latencies })
}

/// Reads until `until`. `due` is the time of the first request and the interval between requests.
async fn read_until(
    mut connection: Connection,
    request: Arc<Request>,
    mut due: Option<(Instant, Duration)>,
    until: Instant,
) -> Result<Vec<u32>> {
    let mut latencies = Vec::new();
    let mut began = now();
    loop {
        if let Some((at, step)) = &mut due {
            if began < *at {
                tokio::time::sleep_until((*at).into()).await;
                // The timer fires up to a millisecond late. The server doesn't cause that delay.
                began = now();
            } else {
                began = *at;
            }
            *at += *step;
        }
        if began >= until {
            return Ok(latencies);
        }
        let answer = connection.exchange(&request).await?;
        if answer.status != 200 {
            return Err(format!("a read returned {}", answer.status).into());
        }
        let ended = now();
        latencies.push(u32::try_from((ended - began).as_micros())?);
        began = ended;
    }
}
