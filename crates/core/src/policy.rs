//! How connections reach workers: the names of the ways, as people write them.

use std::fmt;
use std::str::FromStr;

/// How connections reach workers.
///
/// Written and read as on the command line: `auto`, `lanes`, `shared`, `round-robin`, `sticky`,
/// `sticky:cookie=NAME`, `sticky:header=NAME`, `sticky:query=NAME`.
///
/// ```
/// use allcores_core::policy::{Policy, StickyBy};
///
/// let policy: Policy = "sticky:cookie=sid".parse()?;
/// assert_eq!(policy, Policy::Sticky(StickyBy::Cookie("sid".into())));
/// assert_eq!(policy.to_string(), "sticky:cookie=sid");
/// # Ok::<(), allcores_core::policy::UnknownPolicy>(())
/// ```
#[doc(alias = "schedulingPolicy")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// Lanes for TCP where the kernel has them, one shared listener where that is better.
    #[default]
    Auto,
    /// Each worker has its own accept queue; the kernel picks one, the primary steers.
    Lanes,
    /// All workers accept from one listener.
    #[doc(alias = "SCHED_NONE")]
    Shared,
    /// The primary accepts, and hands each connection over the channel to a worker that is free, in turn.
    #[doc(alias = "SCHED_RR")]
    RoundRobin,
    /// The primary accepts, and hands all connections of one client to the same worker.
    Sticky(StickyBy),
}

/// What tells one client from another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StickyBy {
    /// The IP address that it comes from.
    #[default]
    Source,
    /// The cookie of this name in the first request of a connection.
    Cookie(String),
    /// The header field of this name in the first request, in whatever case.
    Header(String),
    /// The query parameter of this name in the first request's target.
    Query(String),
}

/// What is no policy, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownPolicy(String);

/// What `--policy` takes, without what is behind a colon.
pub const NAMES: [&str; 5] = ["auto", "lanes", "shared", "round-robin", "sticky"];

impl Policy {
    /// What `NODE_CLUSTER_SCHED_POLICY` means by its value: `rr` or `none`. Node ignores others.
    pub fn from_node(value: &str) -> Option<Self> {
        match value {
            "rr" => Some(Self::RoundRobin),
            "none" => Some(Self::Shared),
            _ => None,
        }
    }

    /// Whether connections are handed over the channel, so that only workers that have one can get any.
    pub fn is_handoff(&self) -> bool {
        matches!(self, Self::RoundRobin | Self::Sticky(_))
    }
}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "lanes" => Ok(Self::Lanes),
            "shared" => Ok(Self::Shared),
            "round-robin" => Ok(Self::RoundRobin),
            "sticky" => Ok(Self::Sticky(StickyBy::Source)),
            _ => match text.strip_prefix("sticky:") {
                Some(by) => by.parse().map(Self::Sticky),
                None => Err(UnknownPolicy(format!("no such policy: give one of {}", NAMES.join(", ")))),
            },
        }
    }
}

impl FromStr for StickyBy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('=').unwrap_or((text, ""));
        let by = match kind {
            "cookie" => Self::Cookie,
            "header" => Self::Header,
            "query" => Self::Query,
            _ => {
                let text =
                    "sticky goes by the source address, or by one of cookie=NAME, header=NAME, query=NAME";
                return Err(UnknownPolicy(text.into()));
            }
        };
        if name.is_empty() {
            return Err(UnknownPolicy(format!("no name: give for example sticky:{kind}=sid")));
        }
        if !name.bytes().all(if kind == "query" { is_query } else { is_token }) {
            return Err(UnknownPolicy(format!("no {kind} can have the name {name:?}")));
        }
        Ok(by(name.to_owned()))
    }
}

/// What a header's or a cookie's name may consist of (RFC 9110, 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_query(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"&=#".contains(&byte)
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Lanes => f.write_str("lanes"),
            Self::Shared => f.write_str("shared"),
            Self::RoundRobin => f.write_str("round-robin"),
            Self::Sticky(StickyBy::Source) => f.write_str("sticky"),
            Self::Sticky(StickyBy::Cookie(name)) => write!(f, "sticky:cookie={name}"),
            Self::Sticky(StickyBy::Header(name)) => write!(f, "sticky:header={name}"),
            Self::Sticky(StickyBy::Query(name)) => write!(f, "sticky:query={name}"),
        }
    }
}

#[cfg(test)]
mod tests;
