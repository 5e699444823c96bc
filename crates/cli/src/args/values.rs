//! Reads single option values. Each error says what was given, why it won't do, and what would.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use allcores::{Policy, Signal};
use clap::builder::{OsStringValueParser, PossibleValue, StringValueParser, TypedValueParser};
use croner::Cron;
use croner::errors::CronError;

/// More workers than this are taken for a slip of the finger.
pub(crate) const MAX_WORKERS: u16 = 256;

/// How many workers, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    /// One per core.
    Auto,
    /// This many.
    Exactly(u16),
    /// This many fewer than there are cores, at least one.
    Fewer(u16),
}

impl Workers {
    /// Says how many that is on a machine with `cores`.
    pub(crate) fn resolve(self, cores: usize) -> u16 {
        let cores = u16::try_from(cores).unwrap_or(u16::MAX);
        let wanted = match self {
            Self::Auto => cores,
            Self::Exactly(count) => count,
            Self::Fewer(count) => cores.saturating_sub(count),
        };
        wanted.clamp(1, MAX_WORKERS)
    }
}

/// Reads `auto`, `4` or `-1`.
pub(super) fn workers(text: &str) -> Result<Workers, String> {
    if text == "auto" {
        return Ok(Workers::Auto);
    }
    let number: i64 = text.parse().map_err(|_| {
        "not a number: give `auto`, a number like 4, or -1 for one fewer than there are cores".to_owned()
    })?;
    match number {
        0 => Err("an app needs at least one worker: give `auto`, 1 or more, or -1 for one fewer than there are cores".into()),
        1.. => u16::try_from(number)
            .ok()
            .filter(|count| *count <= MAX_WORKERS)
            .map(Workers::Exactly)
            .ok_or_else(|| format!("more than {MAX_WORKERS} workers: one per core (`auto`) is usually best")),
        _ => Ok(Workers::Fewer(u16::try_from(number.unsigned_abs()).unwrap_or(u16::MAX))),
    }
}

/// Another number of workers, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// This many.
    To(u16),
    /// This many more, or fewer.
    By(i16),
}

impl Change {
    /// Says how many that makes where there are so many, if it makes as many as there may be.
    pub(crate) fn from(self, now: u16) -> Option<u16> {
        let wanted = match self {
            Self::To(count) => Some(count),
            Self::By(difference) => now.checked_add_signed(difference),
        };
        wanted.filter(|count| (1..=MAX_WORKERS).contains(count))
    }
}

/// Reads `4`, `+1` or `-1`.
pub(super) fn change(text: &str) -> Result<Change, String> {
    let max = i32::from(MAX_WORKERS);
    let number: i32 = text.parse().map_err(|_| "not a number: give for example 4, +1 or -1".to_owned())?;
    let out_of_range = || format!("give a number from 1 to {max}, or +N or -N for so many more or fewer");
    match text.starts_with(['+', '-']) {
        true if (1..=max).contains(&number.abs()) => {
            i16::try_from(number).map(Change::By).map_err(|_| out_of_range())
        }
        false if (1..=max).contains(&number) => {
            u16::try_from(number).map(Change::To).map_err(|_| out_of_range())
        }
        _ => Err(out_of_range()),
    }
}

/// Reads `8080`, `:8080`, `127.0.0.1:8080` or `[::1]:8080`.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
        Err(_) => text.parse().map_err(|_| explain_address(text))?,
    };
    if address.port() == 0 {
        return Err("port 0 would be a different port for each worker: give a port from 1 to 65535".into());
    }
    Ok(address)
}

/// Reads the same, for what is not meant for everybody: a port alone is one of the loopback.
pub(super) fn local(text: &str) -> Result<SocketAddr, String> {
    let address = listen(text)?;
    let is_port_alone = text.strip_prefix(':').unwrap_or(text).parse::<u16>().is_ok();
    Ok(if is_port_alone { SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()) } else { address })
}

fn explain_address(text: &str) -> String {
    let port = text.rsplit_once(':').map_or(text, |(_, port)| port);
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && port.parse::<u16>().ok().is_none_or(|port| port == 0) {
        return format!("there is no port {port}: give one from 1 to 65535");
    }
    match text.rsplit_once(':') {
        Some(("localhost", port)) if is_number => {
            format!("names are not looked up: give 127.0.0.1:{port} or [::1]:{port}")
        }
        Some((_, port)) if port.parse::<u16>().is_err() => {
            "no port from 1 to 65535 at its end: give for example 8080, 127.0.0.1:8080 or [::1]:8080".into()
        }
        Some((host, port)) if host.contains(':') && !host.starts_with('[') => {
            format!("an IPv6 address needs brackets: [{host}]:{port}")
        }
        _ => "not an address: give for example 8080, 127.0.0.1:8080 or [::1]:8080".into(),
    }
}

/// Reads `KEY=VALUE`, in whatever encoding.
pub(super) fn env_parser() -> impl TypedValueParser<Value = (OsString, OsString)> {
    OsStringValueParser::new().try_map(|text| env(&text))
}

fn env(text: &OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    let split = bytes
        .iter()
        .position(|byte| *byte == b'=')
        .ok_or("no `=` in it: give KEY=VALUE, or KEY= for an empty value")?;
    if split == 0 {
        return Err("no name before the `=`: give KEY=VALUE".into());
    }
    let (key, value) = (&bytes[..split], &bytes[split + 1..]);
    Ok((OsString::from_vec(key.to_vec()), OsString::from_vec(value.to_vec())))
}

/// The parts of a time of cron's, and what each may be.
const CRON: [(&str, &str); 6] = [
    ("second", "0 to 59"),
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31"),
    ("month", "1 to 12, or JAN to DEC"),
    ("day of the week", "0 to 7, or SUN to SAT"),
];

/// Reads times as crontab(5) has them.
pub(super) fn cron(text: &str) -> Result<Cron, String> {
    text.parse().map_err(|error: CronError| explain_cron(text, &error))
}

fn explain_cron(text: &str, error: &CronError) -> String {
    let given: Vec<&str> = text.split_whitespace().collect();
    let parts = match given.len() {
        5 => &CRON[1..],
        6 => &CRON[..],
        _ => {
            return "not a time: give minute, hour, day of the month, month and day of the week, for example \"0 4 * * *\"".into();
        }
    };
    // The part that is wrong by itself.
    let is_wrong = |at: &usize| {
        let mut alone = vec!["*"; given.len()];
        alone[*at] = given[*at];
        alone.join(" ").parse::<Cron>().is_err()
    };
    match (0..given.len()).find(is_wrong) {
        Some(at) => format!("{} {}: {}", parts[at].0, given[at], parts[at].1),
        None => error.to_string(),
    }
}

/// Reads a limit of a cgroup.
pub(super) fn cgroup_limit(text: &str) -> Result<(String, String), String> {
    let (file, value) =
        text.split_once('=').ok_or("no `=` in it: give LIMIT=VALUE, for example memory.max=512M")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !file.contains('.') || file.starts_with('.') || !file.chars().all(is_name) {
        return Err(format!("`{file}` is no file of a cgroup: memory.max, cpu.max or pids.max would be"));
    }
    Ok((file.to_owned(), value.to_owned()))
}

/// Reads a pattern of names of files.
pub(super) fn glob(text: &str) -> Result<String, String> {
    let checked = ignore::overrides::OverrideBuilder::new("").add(text).map(drop);
    checked.map(|()| text.to_owned()).map_err(|error| error.to_string())
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// Among the credentials that systemd has passed, by this name.
    Credential(String),
}

/// What a credential begins with, where a path could stand.
const CREDENTIAL: &str = "credential:";

impl FromStr for SecretSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix(CREDENTIAL) {
            Some(name) if name.is_empty() || name.contains('/') => {
                Err("not the name of a credential: give for example credential:db-password".into())
            }
            Some(name) => Ok(Self::Credential(name.to_owned())),
            None if text.is_empty() => Err("no source: give a file, or credential:NAME".into()),
            None => Ok(Self::File(text.into())),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Credential(name) => write!(f, "{CREDENTIAL}{name}"),
        }
    }
}

impl SecretSource {
    /// Takes a relative path from this folder.
    pub(crate) fn below(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            Self::Credential(_) => self,
        }
    }
}

/// Reads `KEY=SOURCE`.
pub(super) fn secret_parser() -> impl TypedValueParser<Value = (OsString, SecretSource)> {
    StringValueParser::new().try_map(|text| secret(&text))
}

fn secret(text: &str) -> Result<(OsString, SecretSource), String> {
    match text.split_once('=') {
        None | Some(("", _)) => Err("no KEY=SOURCE: give for example DB_PASSWORD=/run/secrets/db".into()),
        Some((key, source)) => Ok((key.into(), source.parse()?)),
    }
}

/// Reads a policy. Its names are offered for completion, and shown in the help.
pub(super) fn policy_parser() -> impl TypedValueParser<Value = Policy> {
    PolicyParser
}

#[derive(Clone, Debug)]
struct PolicyParser;

impl TypedValueParser for PolicyParser {
    type Value = Policy;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Policy, clap::Error> {
        let parser = StringValueParser::new().try_map(|text| text.parse::<Policy>());
        parser.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(POLICIES.iter().map(|(name, help)| PossibleValue::new(name).help(help))))
    }
}

const POLICIES: [(&str, &str); 5] = [
    ("auto", "Lanes for TCP where the kernel has them, one shared listener where that is better"),
    ("lanes", "Each worker has its own accept queue"),
    ("shared", "All workers accept from one listener"),
    ("round-robin", "Connections are handed to free workers, in turn, over node:cluster's channel"),
    ("sticky", "So too, and all connections of one client go to the same worker"),
];

/// Reads how many connections may wait.
pub(super) fn pending(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|_| "not a number: give for example 1024".to_owned())?;
    if (1..=MAX_PENDING).contains(&count) {
        return Ok(count);
    }
    Err(format!("give a number from 1 to {MAX_PENDING}: each needs a descriptor"))
}

/// More descriptors than this a process can't have on most machines.
const MAX_PENDING: usize = 1 << 20;

/// Reads `INT`, `SIGINT`, `int` or `2`.
pub(super) fn stop_signal(text: &str) -> Result<Signal, String> {
    let named = || text.to_ascii_uppercase().parse().ok();
    let signal = text.parse().map_or_else(|_| named(), Signal::from_number);
    signal.filter(|signal| STOP_SIGNALS.contains(signal)).ok_or_else(|| {
        "no signal that asks a program to stop: give TERM, INT, QUIT, HUP, USR1, USR2, WINCH or KILL".into()
    })
}

/// Those that programs take for a wish to stop; others would hold them still, or say that they have crashed.
const STOP_SIGNALS: [Signal; 8] = [
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::KILL,
];

/// Nobody means to wait for longer, and no clock goes on for ever.
const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// Reads `500ms`, `5s`, `2m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let read = humantime::parse_duration(text);
    bounded(read.map_err(|error| format!("{error}: give for example 500ms, 5s or 2m"))?)
}

/// Reads a number of seconds.
pub(crate) fn seconds(number: f64) -> Result<Duration, String> {
    let read = Duration::try_from_secs_f64(number);
    read.map_err(|error| error.to_string())
        .and_then(bounded)
        .map_err(|error| format!("{number} seconds: {error}"))
}

fn bounded(duration: Duration) -> Result<Duration, String> {
    if duration <= LONGEST { Ok(duration) } else { Err("more than 100 years: give less".into()) }
}

/// Reads a duration that isn't zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("zero would always be over: leave the option out, or give for example 30s".into())
        }
        duration => Ok(duration),
    }
}

/// A time, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    At(SystemTime),
    /// This long ago.
    Ago(Duration),
}

impl Moment {
    /// Says when that is.
    pub(crate) fn time(self) -> SystemTime {
        match self {
            Self::At(time) => time,
            Self::Ago(time) => {
                let then = SystemTime::now().checked_sub(time);
                then.unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH)
            }
        }
    }
}

/// Reads `10m`, or `2026-01-02T03:04:05Z`.
pub(super) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(duration) = humantime::parse_duration(text) {
        return Ok(Moment::Ago(duration));
    }
    humantime::parse_rfc3339_weak(text).map(Moment::At).map_err(|_| {
        "no time: give for example 10m, 2026-01-02T03:04:05Z or \"2026-01-02 03:04:05\" (UTC)".into()
    })
}

/// Reads the path of a URL.
pub(super) fn path(text: &str) -> Result<String, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    match text.strip_prefix('/') {
        Some(_) if is_plain => Ok(text.to_owned()),
        Some(_) => Err("not as it goes over the wire: write other characters as %20".into()),
        None => Err("no path: give for example /healthz".into()),
    }
}

/// Reads a size: `512M`, `2G`, `1048576`. Units are of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "not a size: give for example 512M or 2G".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.trim_start().to_ascii_uppercase();
    let factor: u64 = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).filter(|size| *size > 0).ok_or_else(wrong)
}

/// Reads how much memory a worker may have.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    let size = size(text)?;
    if size >= LEAST_MEMORY {
        return Ok(size);
    }
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    Err(format!("less than 1 MiB, which no program does with: {number}M is meant, perhaps"))
}

const LEAST_MEMORY: u64 = 1 << 20;

#[cfg(test)]
mod tests;
