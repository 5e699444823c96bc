//! What is done to an app, in which order: drawn from a seed alone, so that it can be done again.

use std::fmt;
use std::time::Duration;

/// How many workers there may be.
pub(crate) const MOST: u16 = 5;

/// One thing that is done, when the one before is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A new version that is as good as the old one.
    Reload,
    /// The same, and a worker is killed or stopped so long after its beginning.
    ReloadAmid(Harm, Pick, Duration),
    /// A new version that is no good.
    Bad(Fault),
    /// Another number of workers.
    Scale(u16),
    /// A worker is killed, or stopped for good.
    Harm(Harm, Pick),
    /// A worker is made to keep more memory than it may.
    Leak,
    /// The primary goes on as another program; the same one.
    Upgrade,
    /// It is asked to go on as a program that can't.
    BadUpgrade,
    /// Both loads end, and begin anew.
    Relieve,
    /// Nothing.
    Pass(Duration),
}

impl Action {
    /// The same under a policy. Where all workers accept from one listener, nobody can tell that one of them has stopped or is
    /// ill: such a worker is killed there, and such a version throws.
    pub(super) fn under(self, policy: &str) -> Self {
        if policy != "shared" {
            return self;
        }
        match self {
            Self::Harm(Harm::Hang, pick) => Self::Harm(Harm::Kill, pick),
            Self::ReloadAmid(Harm::Hang, pick, after) => Self::ReloadAmid(Harm::Kill, pick, after),
            Self::Bad(Fault::Ill) => Self::Bad(Fault::Throws),
            other => other,
        }
    }
}

/// What is done to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Hang,
}

/// Which of the workers that serve at that time: this one of them, counted round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick(pub(crate) usize);

/// What is wrong with a new version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It throws at boot.
    Throws,
    /// It never listens.
    Silent,
    /// It listens, and fails its health checks.
    Ill,
}

impl Pick {
    /// Picks one.
    pub(super) fn of(self, workers: &[u32]) -> Option<u32> {
        workers.get(self.0.checked_rem(workers.len())?).copied()
    }
}

/// Actions without end.
#[derive(Clone, Debug)]
pub struct Plan {
    rng: fastrand::Rng,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed) }
    }

    fn harm(&mut self) -> Harm {
        if self.rng.u8(..3) == 0 { Harm::Hang } else { Harm::Kill }
    }

    fn pick(&mut self) -> Pick {
        Pick(self.rng.usize(..usize::from(u16::MAX)))
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.rng.u64(..=most))
    }
}

impl Iterator for Plan {
    type Item = Action;

    fn next(&mut self) -> Option<Action> {
        Some(match self.rng.u8(..24) {
            0..=2 => Action::Reload,
            3..=4 => Action::ReloadAmid(self.harm(), self.pick(), self.millis(1500)),
            5..=7 => Action::Bad([Fault::Throws, Fault::Silent, Fault::Ill][self.rng.usize(..3)]),
            8..=11 => Action::Scale(self.rng.u16(1..=MOST)),
            12..=15 => Action::Harm(self.harm(), self.pick()),
            16..=17 => Action::Leak,
            18 => Action::Relieve,
            19..=21 => Action::Upgrade,
            22 => Action::BadUpgrade,
            _ => Action::Pass(self.millis(500)),
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reload => f.write_str("reload"),
            Self::ReloadAmid(harm, _, after) => write!(f, "reload, and after {after:.1?} {harm}"),
            Self::Bad(fault) => write!(f, "a new version that {fault}"),
            Self::Scale(workers) => write!(f, "scale to {workers}"),
            Self::Harm(harm, _) => write!(f, "{harm}"),
            Self::Leak => f.write_str("a worker keeps too much memory"),
            Self::Upgrade => f.write_str("upgrade the primary"),
            Self::BadUpgrade => f.write_str("an upgrade to what is no primary"),
            Self::Relieve => f.write_str("the loads end, and begin anew"),
            Self::Pass(time) => write!(f, "nothing for {time:.1?}"),
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill a worker",
            Self::Hang => "stop a worker for good",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Throws => "throws at boot",
            Self::Silent => "never listens",
            Self::Ill => "fails its health checks",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_actions_again() {
        let of = |seed| Plan::new(seed).take(100).collect::<Vec<_>>();
        assert_eq!(of(7), of(7));
        assert_ne!(of(7), of(8));
    }

    #[test]
    fn a_pick_names_one_of_those_that_there_are() {
        let pick = Pick(7);
        assert_eq!(pick.of(&[10, 11, 12]), Some(11));
        assert_eq!(pick.of(&[]), None);
    }
}
