//! Whether the primary takes a core from a worker when there is something for it to do.
//!
//! It does, as a rule: it has little to do, and clients wait for that. While it hands connections to workers that answer at
//! once it need not. Each of them has more to do than what the primary would bring, and to be interrupted for it costs
//! both. So then it waits until a core is free, and finds several answers at once. See docs/adr/0024.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use allcores_core::handoff::HELD_UP;
use rustix::fs::{Mode, OFlags};

use crate::proc::Schedstat;
use crate::sys::scheduling;

/// How often that is decided.
const INTERVAL: Duration = Duration::from_millis(50);

/// How many answers in that time are many: a thousand in a second.
const MANY: u32 = 50;

/// Of so many answers one may be late: its worker may have collected garbage.
const SELDOM: u32 = 64;

/// For how long the primary may have to wait for a core, on average: some requests' time. Who runs then is somebody who takes
/// more.
const LONGEST_WAIT: Duration = Duration::from_micros(500);

/// How long either is remembered the first time: a moment in which the machine itself stood still says nothing about the next. Twice as
/// long each time that patience does not last.
const FIRST_MEMORY: Duration = Duration::from_millis(100);

/// And how long at most.
const LONGEST_MEMORY: Duration = Duration::from_millis(1600);

/// For how long patience has to last for what was before to be forgotten.
const LASTING: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    is_patient: bool,
    looked_at: Duration,
    /// Answers since, and those of them that came late.
    answers: u32,
    late: u32,
    prompt_until: Duration,
    /// For how long it is prompt the next time.
    memory: Duration,
    patient_since: Duration,
    waits: Option<Waits>,
}

/// Where the kernel tells how long this thread has waited for a core, and what it told last.
#[derive(Debug)]
struct Waits {
    file: OwnedFd,
    last: Schedstat,
}

impl Pace {
    /// That of this thread, which is prompt.
    pub(super) fn new() -> Self {
        Self {
            is_patient: false,
            looked_at: Duration::ZERO,
            answers: 0,
            late: 0,
            prompt_until: Duration::ZERO,
            memory: FIRST_MEMORY,
            patient_since: Duration::ZERO,
            waits: Waits::open().ok(),
        }
    }

    /// A worker has answered for a connection that it was handed so long before.
    pub(super) fn note_answer(&mut self, after: Duration) {
        self.answers = self.answers.saturating_add(1);
        self.late += u32::from(after >= HELD_UP);
    }

    /// Decides, if it is time to.
    pub(super) fn look(&mut self, now: Duration) {
        if now.saturating_sub(self.looked_at) < INTERVAL {
            return;
        }
        self.looked_at = now;
        let (answers, late) = (std::mem::take(&mut self.answers), std::mem::take(&mut self.late));
        let wait = if self.is_patient { self.waits.as_mut().and_then(Waits::next) } else { None };
        if late > answers / SELDOM || wait.is_some_and(|wait| wait > LONGEST_WAIT) {
            self.prompt_until = now + self.memory;
            if self.is_patient {
                self.memory = (self.memory * 2).min(LONGEST_MEMORY);
            }
        } else if self.is_patient && now.saturating_sub(self.patient_since) >= LASTING {
            self.memory = FIRST_MEMORY;
        }
        if answers < MANY || now < self.prompt_until {
            self.be_prompt();
        } else if !self.is_patient {
            // From here on.
            let _ = self.waits.as_mut().and_then(Waits::next);
            self.is_patient = scheduling::be_patient().is_ok();
            self.patient_since = now;
            if now >= self.prompt_until + LASTING {
                self.memory = FIRST_MEMORY;
            }
        }
    }

    /// Ends the patience, if there is any.
    pub(super) fn be_prompt(&mut self) {
        if std::mem::take(&mut self.is_patient) {
            let _ = scheduling::be_prompt();
        }
    }
}

impl Waits {
    fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open("/proc/thread-self/schedstat", flags, Mode::empty())?;
        Ok(Self { file, last: Schedstat::default() })
    }

    /// How long each wait for a core has been since this was last asked. `None` if there were too few to say anything.
    fn next(&mut self) -> Option<Duration> {
        let now = Schedstat::read(&self.file)?;
        let before = std::mem::replace(&mut self.last, now);
        let turns =
            u32::try_from(now.turns.saturating_sub(before.turns)).ok().filter(|turns| *turns >= 10)?;
        Some(now.waited.saturating_sub(before.waited) / turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// On a thread whose scheduling is ours to change.
    fn on_a_prompt_thread(test: impl FnOnce(Pace) + Send + 'static) {
        let thread = std::thread::spawn(|| {
            scheduling::be_prompt().unwrap();
            // What the machine does meanwhile is not what is tested.
            test(Pace { waits: None, ..Pace::new() });
        });
        thread.join().unwrap();
    }

    fn take(pace: &mut Pace, answers: u32, late: u32) {
        for number in 0..answers {
            pace.note_answer(if number < late { HELD_UP } else { Duration::ZERO });
        }
    }

    #[test]
    fn it_is_patient_while_many_answer_at_once() {
        on_a_prompt_thread(|mut pace| {
            take(&mut pace, MANY, 0);
            pace.look(at(60));
            assert!(pace.is_patient);
            // Not before an interval is over.
            pace.look(at(80));
            assert!(pace.is_patient);
            take(&mut pace, MANY - 1, 0);
            pace.look(at(120));
            assert!(!pace.is_patient, "too few to be worth it");
        });
    }

    /// At these times all answer at once; says whether it is patient then.
    fn goes_on(pace: &mut Pace, times: &[(u64, bool)]) {
        for (time, is_patient) in times {
            take(pace, 10 * SELDOM, 0);
            pace.look(at(*time));
            assert_eq!(pace.is_patient, *is_patient, "at {time} ms");
        }
    }

    fn fails(pace: &mut Pace, time: u64) {
        take(pace, 10 * SELDOM, 11);
        pace.look(at(time));
        assert!(!pace.is_patient, "at {time} ms");
    }

    #[test]
    fn where_workers_are_held_up_it_is_prompt_for_longer_each_time() {
        on_a_prompt_thread(|mut pace| {
            take(&mut pace, 10 * SELDOM, 10);
            pace.look(at(100));
            assert!(pace.is_patient, "one in so many says nothing");
            fails(&mut pace, 200);
            goes_on(&mut pace, &[(250, false), (300, true)]);
            fails(&mut pace, 400);
            goes_on(&mut pace, &[(550, false), (600, true)]);
            for (failed, over) in [(650, 1_050), (1_100, 1_900), (1_950, 3_550), (3_600, 5_200)] {
                fails(&mut pace, failed);
                goes_on(&mut pace, &[(over - 50, false), (over, true)]);
            }
            // It has lasted.
            goes_on(&mut pace, &[(6_200, true)]);
            fails(&mut pace, 6_250);
            goes_on(&mut pace, &[(6_300, false), (6_350, true)]);
            // So has the calm before the next time.
            fails(&mut pace, 6_400);
            goes_on(&mut pace, &[(9_000, true)]);
            fails(&mut pace, 9_050);
            goes_on(&mut pace, &[(9_100, false), (9_150, true)]);
        });
    }

    #[test]
    fn while_it_is_prompt_what_comes_late_does_not_count_twice() {
        on_a_prompt_thread(|mut pace| {
            goes_on(&mut pace, &[(100, true)]);
            for time in [200, 300, 400, 500] {
                fails(&mut pace, time);
            }
            // Twice as long as the first time.
            goes_on(&mut pace, &[(650, false), (700, true)]);
        });
    }

    #[test]
    fn how_long_it_has_waited_is_told_by_the_kernel() {
        let Ok(mut waits) = Waits::open() else {
            allcores_testing::skip!("the kernel does not tell how long threads wait for a core");
        };
        let _ = waits.next();
        assert_eq!(waits.next(), None, "too few turns to say anything");
        for _ in 0..20 {
            std::thread::sleep(at(1));
        }
        assert!(waits.next().is_some());
    }
}
