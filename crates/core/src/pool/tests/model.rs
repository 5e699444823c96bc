//! The pool in a simulated world: whatever its workers do, in whatever order, the promises hold after every step.

mod world;

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert, prop_oneof, proptest};

use self::world::World;
use crate::exit::ExitStatus;
use crate::pool::tests::ms;
use crate::pool::{Input, PoolSettings};
use crate::worker::WorkerId;

/// What happens next. Numbers pick one of the processes that are there.
#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Scale(u16),
    Stop,
    StopNow,
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
        3 => (0..2).prop_map(|code| Deed::Exit(ExitStatus::Code(code))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let spawn = (any::<usize>(), prop::bool::weighted(0.9), any::<bool>());
    prop_oneof![
        8 => (0..400_u64).prop_map(Step::Pass),
        2 => (0..5_u16).prop_map(Step::Scale),
        1 => prop::bool::weighted(0.2).prop_map(|now| if now { Step::StopNow } else { Step::Stop }),
        12 => spawn.prop_map(|(pick, succeeds, obeys)| Step::Spawn { pick, succeeds, obeys }),
        24 => (any::<usize>(), deed()).prop_map(|(pick, deed)| Step::Do(pick, deed)),
        2 => (0..40_u32, deed()).prop_map(|(id, deed)| Step::Ghost(id, deed)),
    ]
}

fn settings() -> impl Strategy<Value = PoolSettings> {
    let limits = (0..300_u64, 0..300_u64, 0..300_u64).prop_map(|(a, b, c)| (ms(a), ms(b), ms(c)));
    (0..4_u16, 0..500_u64, 0..4_u32, 1..100_u64, limits).prop_map(
        |(workers, uptime, max, backoff, limits)| PoolSettings {
            workers,
            min_uptime: ms(uptime),
            max_restarts: max,
            backoff: ms(backoff),
            backoff_max: ms(1000),
            linger: limits.0,
            drain_timeout: limits.1,
            kill_timeout: limits.2,
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
        prop_assert!(is_over || world.pool.is_settled());
        prop_assert!(is_over == world.pool.is_stopping());
        world.give(Input::Stop);
        world.calm();
        prop_assert!(world.is_finished());
    }
}
