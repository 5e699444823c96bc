//! Reads single option values. Each error says what was given, why it won't do, and what would.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

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

fn explain_address(text: &str) -> String {
    match text.rsplit_once(':') {
        Some(("localhost", port)) => {
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

/// Reads `500ms`, `5s`, `2m 30s`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: give for example 500ms, 5s or 2m"))
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

#[cfg(test)]
mod tests;
