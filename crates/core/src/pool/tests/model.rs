//! The pool in a simulated world: whatever its workers do, in whatever order, the promises hold after every step.

mod world;

use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert, prop_oneof, proptest};

use self::world::World;
use crate::exit::ExitStatus;
use crate::pool::tests::ms;
use crate::pool::{Input, PoolSettings, Reason, ReloadPlan};
use crate::worker::WorkerId;

/// What happens next. Numbers pick one of the processes that are there.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Scale(u16),
    Fork,
    Disconnect(usize),
    DisconnectAll,
    Reload(ReloadPlan),
    Stop,
    StopNow,
    /// From now on a pool that was saved and restored runs beside, and does the same.
    Save,
    /// The process that was asked for is made, or not.
    Spawn {
        pick: usize,
        succeeds: bool,
        obeys: bool,
    },
    Do(usize, Deed),
    /// The same about an id of which there is no process.
    Ghost(u32, Deed),
}

/// What a process does, or what is seen of it.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Spawn,
    Fail,
    Online,
    Listen,
    Close,
    Stall,
    Move,
    Quiet,
    SayReady,
    Pass,
    Fall { is_silent: bool },
    Renew(Reason),
    Exit(ExitStatus),
}

impl Deed {
    fn input(self, id: WorkerId) -> Input {
        match self {
            Self::Spawn => Input::Spawned { id, pid: 1 },
            Self::Fail => Input::SpawnFailed { id },
            Self::Online => Input::Online { id },
            Self::Listen => Input::Listening { id },
            Self::Close => Input::NotListening { id },
            Self::Stall => Input::Stalled { id },
            Self::Move => Input::Moving { id },
            Self::Quiet => Input::Quiet { id },
            Self::SayReady => Input::SaidReady { id },
            Self::Pass => Input::Healthy { id },
            Self::Fall { is_silent } => Input::Unhealthy { id, is_silent },
            Self::Renew(reason) => Input::Renew { id, reason },
            Self::Exit(status) => Input::Exited { id, status },
        }
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        1 => Just(Deed::Spawn),
        1 => Just(Deed::Fail),
        2 => Just(Deed::Online),
        6 => Just(Deed::Listen),
        1 => Just(Deed::Close),
        4 => Just(Deed::Stall),
        2 => Just(Deed::Move),
        2 => Just(Deed::Quiet),
        3 => Just(Deed::SayReady),
        3 => Just(Deed::Pass),
        3 => any::<bool>().prop_map(|is_silent| Deed::Fall { is_silent }),
        2 => prop_oneof![Just(Reason::Memory), Just(Reason::Requests)].prop_map(Deed::Renew),
        3 => (0..2).prop_map(|code| Deed::Exit(ExitStatus::Code(code))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let spawn = (any::<usize>(), prop::bool::weighted(0.9), any::<bool>());
    prop_oneof![
        8 => (0..400_u64).prop_map(Step::Pass),
        2 => (0..5_u16).prop_map(Step::Scale),
        2 => Just(Step::Fork),
        3 => any::<usize>().prop_map(Step::Disconnect),
        1 => prop::bool::weighted(0.3).prop_map(|all| if all { Step::DisconnectAll } else { Step::Fork }),
        3 => plan().prop_map(Step::Reload),
        1 => prop::bool::weighted(0.2).prop_map(|now| if now { Step::StopNow } else { Step::Stop }),
        2 => Just(Step::Save),
        12 => spawn.prop_map(|(pick, succeeds, obeys)| Step::Spawn { pick, succeeds, obeys }),
        24 => (any::<usize>(), deed()).prop_map(|(pick, deed)| Step::Do(pick, deed)),
        2 => (0..40_u32, deed()).prop_map(|(id, deed)| Step::Ghost(id, deed)),
    ]
}

fn plan() -> impl Strategy<Value = ReloadPlan> {
    let canary = prop_oneof![Just(0), 0..300_u64];
    (0..4_u16, canary, 0..3000_u64).prop_map(|(surge, canary, ready_timeout)| ReloadPlan {
        surge,
        canary: ms(canary),
        ready_timeout: ms(ready_timeout),
    })
}

fn settings() -> impl Strategy<Value = PoolSettings> {
    let patience = prop_oneof![(0..300_u64).prop_map(ms), Just(Duration::MAX)];
    let limits = (0..300_u64, 0..300_u64, 0..300_u64, patience);
    let limits = limits.prop_map(|(a, b, c, d)| (ms(a), ms(b), ms(c), d));
    let lifetime = prop::option::of(4000..8000_u64);
    let gate = (any::<bool>(), any::<bool>(), 0..2000_u64, lifetime);
    let keep = (any::<bool>(), 0..2_u16, prop::bool::weighted(0.2));
    (0..4_u16, keep, 0..500_u64, 0..4_u32, 1..100_u64, limits, gate).prop_map(
        |(workers, (keep, least, no_listen), uptime, max, backoff, limits, gate)| PoolSettings {
            workers,
            least: least * u16::from(keep),
            keep,
            min_uptime: ms(uptime),
            max_restarts: max,
            backoff: ms(backoff),
            backoff_max: ms(1000),
            linger: limits.0,
            drain_timeout: limits.1,
            kill_timeout: limits.2,
            no_listen,
            wait_ready: gate.0,
            wait_healthy: gate.1,
            ready_timeout: ms(gate.2),
            max_lifetime: gate.3.map(ms),
            disconnect_timeout: limits.3,
            hang_timeout: None,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_workers_do_the_pool_keeps_its_promises(
        settings in settings(), seed: u64, steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new(settings, seed);
        world.give(Input::Start);
        for step in steps {
            world.step(step);
        }
        world.calm();
        let is_over = world.is_finished();
        prop_assert!(is_over || world.is_calm());
        prop_assert!(world.pool.reloading().is_none());
        prop_assert!(is_over == world.pool.is_stopping());
        world.give(Input::Stop);
        world.calm();
        prop_assert!(world.is_finished());
    }
}
