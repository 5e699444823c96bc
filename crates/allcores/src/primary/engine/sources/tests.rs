//! That nobody is overheard.

use std::time::Duration;

use allcores_core::policy::Policy;
use allcores_core::worker::WorkerId;

use super::*;
use crate::ports::Tuning;
use crate::primary::answers::Answer;

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(20);

const ANSWER: Answer = Answer { worker: WorkerId(1), ack: 1, is_accepted: true };

struct World {
    sources: Sources,
    answers: Answers,
    commands: mpsc::UnboundedSender<Command>,
    seen: mpsc::Sender<Seen>,
    ports: Ports,
    clock: Clock,
}

impl World {
    /// The alarm rings only where it is set.
    fn new() -> Self {
        let (commands, obeyed) = mpsc::unbounded_channel();
        let (seen, sightings) = mpsc::channel(64);
        let answers = Answers::default();
        let mut sources = Sources::new(obeyed, sightings, answers.clone(), None);
        sources.alarm.as_mut().reset((Instant::now() + 2 * PATIENCE).into());
        let tuning = Tuning { tick: Duration::from_millis(1), is_on: true };
        let ports = Ports::new(Policy::RoundRobin, 64, tuning).unwrap();
        Self { sources, answers, commands, seen, ports, clock: Clock::new().unwrap() }
    }

    /// Takes in what comes next, as the engine does.
    async fn next(&mut self) -> &'static str {
        let next = self.sources.next(&self.ports, &self.clock);
        match tokio::time::timeout(PATIENCE, next).await.expect("it was overheard") {
            News::Answers => {
                self.answers.take(&mut Vec::new());
                "answers"
            }
            News::Sighting(_) => "sighting",
            News::Command(_) => "command",
            News::Touched(_) => "touched",
            News::Ready(_) => "ready",
            News::Tick => "tick",
            News::Alarm => "alarm",
            News::Child => "child",
        }
    }

    /// Sleeps until something else tells it of an answer: all sources are asleep then but for those that have rung since.
    async fn sleep(&mut self) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            answers.push(ANSWER);
        });
        assert_eq!(self.next().await, "answers");
    }
}

#[tokio::test]
async fn one_that_is_seldom_is_heard_though_nothing_but_answers_came_before() {
    let mut world = World::new();
    world.sleep().await;
    world.sleep().await;
    assert!(!world.sources.is_due, "nobody has to be asked");
    world.commands.send(Command::Stop).unwrap();
    assert_eq!(world.next().await, "command");

    world.sleep().await;
    world.clock.arm(Duration::from_millis(1));
    assert_eq!(world.next().await, "tick");
    world.clock.arm(Duration::from_millis(1));
    assert_eq!(world.next().await, "tick", "it can be armed again");

    world.sleep().await;
    world.sources.set_alarm(Instant::now() + Duration::from_millis(1));
    assert_eq!(world.next().await, "alarm");
    world.sources.set_alarm(Instant::now());
    assert_eq!(world.next().await, "alarm", "at a time that is over");
}

#[tokio::test]
async fn an_alarm_that_has_rung_unheard_can_be_set_again() {
    let mut world = World::new();
    world.sleep().await;
    world.sources.set_alarm(Instant::now() + Duration::from_millis(1));
    tokio::time::sleep(Duration::from_millis(5)).await;
    world.sources.set_alarm(Instant::now() + Duration::from_millis(1));
    assert_eq!(world.next().await, "alarm");
}

#[tokio::test]
async fn nobody_is_kept_from_being_heard_by_those_who_say_much() {
    let mut world = World::new();
    for _ in 0..1_000 {
        world.commands.send(Command::Stop).unwrap();
    }
    let mut heard = Vec::new();
    for _ in 0..24 {
        world.answers.push(ANSWER);
        let _ = world.seen.try_send(Seen::Together);
        world.clock.arm(Duration::from_nanos(1));
        // What has come is told of by the runtime.
        tokio::task::yield_now().await;
        heard.push(world.next().await);
    }
    for source in ["answers", "sighting", "command", "tick"] {
        let count = heard.iter().filter(|name| **name == source).count();
        assert!(count >= 4, "{source} was heard {count} times: {heard:?}");
    }
}
