//! Messages between a primary and a worker of the crate's, as fast as they go: for `cargo xtask bench messages`.
//!
//! Says and prints what `testing/baselines/messages.js` does, which may be its worker. The arguments are how long a
//! message is in bytes, how long each of its four measurements takes in milliseconds, and perhaps that script.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::time::{Duration, Instant};

use allcores::{Builder, Cluster, Event, Message, Role, Worker, WorkerHandle};
use allcores_testing::stats::quantile;
use serde::{Deserialize, Serialize};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WARM_UP: Duration = Duration::from_millis(250);

const IN_FLIGHT: u64 = 16;

/// All that is said.
#[derive(Serialize, Deserialize)]
struct Note {
    kind: Kind,
    n: u64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// The worker's first word.
    Here,
    /// To be counted from now on.
    Begin,
    Data,
    /// No more of it.
    End,
    /// So much has come, in so many seconds.
    Counted,
    /// To be sent back.
    Echo,
    /// Data of so many bytes is to be sent for so many milliseconds.
    Send,
}

impl Note {
    fn new(kind: Kind, n: u64, text: impl Into<String>) -> Self {
        Self { kind, n, text: text.into() }
    }

    /// Data that is so many bytes long as JSON.
    fn data(bytes: u64) -> Self {
        let empty = serde_json::to_string(&Self::new(Kind::Data, 0, "")).expect("it can be written");
        Self::new(
            Kind::Data,
            0,
            "x".repeat(usize::try_from(bytes).expect("it fits").saturating_sub(empty.len())),
        )
    }
}

/// What is printed.
#[derive(Serialize)]
struct Found {
    to_worker: f64,
    to_primary: f64,
    single: Echoes,
    several: Echoes,
}

/// Round trips: how many in a second, and how many microseconds each took.
#[derive(Serialize)]
struct Echoes {
    rate: f64,
    p50: f64,
    p99: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match allcores::role()? {
        Role::Worker(worker) => work(worker).await,
        Role::Primary(builder) => lead(builder).await,
    }
}

async fn work(worker: Worker) -> Result<()> {
    worker.send(&Note::new(Kind::Here, 0, ""))?;
    let (mut count, mut begun) = (0, Instant::now());
    while let Some(message) = worker.next_message().await {
        let note: Note = message.parse()?;
        match note.kind {
            Kind::Data => count += 1,
            Kind::Echo => drop(worker.send(&note)?),
            Kind::Begin => (count, begun) = (0, Instant::now()),
            Kind::End => {
                let seconds = begun.elapsed().as_secs_f64().to_string();
                worker.send(&Note::new(Kind::Counted, count, seconds))?;
            }
            Kind::Send => {
                let time = Duration::from_secs_f64(note.text.parse::<f64>()? / 1e3);
                flood(Note::data(note.n), time, |note| worker.send(note), || worker.drained()).await?;
                worker.send(&Note::new(Kind::End, 0, ""))?;
            }
            Kind::Here | Kind::Counted => {}
        }
    }
    Ok(())
}

/// Sends as fast as it can for this time, as the documentation of `send` has it.
async fn flood<F: Future<Output = ()>>(
    mut note: Note,
    time: Duration,
    send: impl Fn(&Note) -> std::result::Result<bool, allcores::Error>,
    drained: impl Fn() -> F,
) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        note.n += 1;
        if !send(&note)? {
            drained().await;
        }
    }
    Ok(())
}

async fn lead(builder: Builder) -> Result<()> {
    let mut words = std::env::args().skip(1);
    let bytes = words.next().ok_or("how many bytes?")?.parse()?;
    let time = Duration::from_millis(words.next().ok_or("for how long?")?.parse()?);
    let builder = match words.next() {
        Some(script) => builder.node(script),
        None => builder,
    };
    let mut pair = Pair::start(builder, bytes).await?;
    pair.flood_worker(WARM_UP).await?;
    let to_worker = pair.flood_worker(time).await?;
    pair.flood_primary(WARM_UP).await?;
    let to_primary = pair.flood_primary(time).await?;
    pair.round_trips(WARM_UP, 1).await?;
    let single = pair.round_trips(time, 1).await?;
    pair.round_trips(WARM_UP, IN_FLIGHT).await?;
    let several = pair.round_trips(time, IN_FLIGHT).await?;
    println!("{}", serde_json::to_string(&Found { to_worker, to_primary, single, several })?);
    Ok(pair.cluster.stop().await?)
}

/// A primary and its worker.
struct Pair {
    cluster: Cluster,
    worker: WorkerHandle,
    bytes: u64,
}

impl Pair {
    async fn start(builder: Builder, bytes: u64) -> Result<Self> {
        let mut cluster = builder.workers(1).start().await?;
        loop {
            if let Event::Message { worker, .. } = cluster.next_event().await.ok_or("it has ended")? {
                return Ok(Self { cluster, worker, bytes });
            }
        }
    }

    async fn next(&mut self) -> Result<Note> {
        loop {
            let event: Event = self.cluster.next_event().await.ok_or("it has ended")?;
            if let Event::Message { message, .. } = event {
                let message: Message = message;
                return Ok(message.parse()?);
            }
        }
    }

    async fn until(&mut self, kind: Kind) -> Result<Note> {
        loop {
            let note = self.next().await?;
            if note.kind == kind {
                return Ok(note);
            }
        }
    }

    async fn flood_worker(&mut self, time: Duration) -> Result<f64> {
        let worker = &self.worker;
        worker.send(&Note::new(Kind::Begin, 0, ""))?;
        flood(Note::data(self.bytes), time, |note| worker.send(note), || worker.drained()).await?;
        worker.send(&Note::new(Kind::End, 0, ""))?;
        let counted = self.until(Kind::Counted).await?;
        Ok(float(counted.n) / counted.text.parse::<f64>()?)
    }

    async fn flood_primary(&mut self, time: Duration) -> Result<f64> {
        self.worker.send(&Note::new(Kind::Send, self.bytes, (time.as_secs_f64() * 1e3).to_string()))?;
        self.until(Kind::Data).await?;
        let (mut count, begun) = (1, Instant::now());
        while self.next().await?.kind == Kind::Data {
            count += 1;
        }
        Ok(float(count) / begun.elapsed().as_secs_f64())
    }

    async fn round_trips(&mut self, time: Duration, in_flight: u64) -> Result<Echoes> {
        let mut note = Note { kind: Kind::Echo, ..Note::data(self.bytes) };
        let mut sent = HashMap::new();
        let mut took = Vec::new();
        let begun = Instant::now();
        for _ in 0..in_flight {
            self.send_next(&mut note, &mut sent)?;
        }
        while !sent.is_empty() {
            let back = self.next().await?;
            took.extend(sent.remove(&back.n).map(|at: Instant| at.elapsed()));
            if begun.elapsed() < time {
                self.send_next(&mut note, &mut sent)?;
            }
        }
        let rate = float(took.len() as u64) / begun.elapsed().as_secs_f64();
        took.sort();
        let micros = |part| quantile(&took, part).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
        Ok(Echoes { rate, p50: micros(0.5), p99: micros(0.99) })
    }

    fn send_next(&self, note: &mut Note, sent: &mut HashMap<u64, Instant>) -> Result<()> {
        note.n += 1;
        sent.insert(note.n, Instant::now());
        self.worker.send(&*note)?;
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "no count here reaches 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
