//! Connections are not swapped in a receiver that does as Node's does: it reads up to 64 KiB at once, over a real
//! socket, and remembers one descriptor.

use std::collections::VecDeque;
use std::io::IoSliceMut;

use allcores_core::channel::Lines;
use proptest::prelude::*;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, socketpair,
};

use super::super::outbox::{Outbox, Unreceived};
use super::*;

const NODE_READS: usize = 64 * 1024;

/// The other side.
struct Node {
    socket: OwnedFd,
    buffer: Vec<u8>,
    lines: Lines,
    /// The one descriptor that it remembers.
    pending: Option<OwnedFd>,
    /// For each message with a descriptor its number, and that of the descriptor which it was given.
    delivered: Vec<(u64, Option<u64>)>,
    answers: VecDeque<bool>,
}

impl Node {
    fn new(socket: OwnedFd, reads: usize) -> Self {
        let (lines, buffer) = (Lines::new(usize::MAX), vec![0; reads]);
        Self { socket, buffer, lines, pending: None, delivered: Vec::new(), answers: VecDeque::new() }
    }

    /// Reads once; `has_room` says whether it can receive a descriptor. False if there was nothing.
    fn read(&mut self, has_room: bool) -> bool {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(&mut self.buffer)];
        let Ok(message) =
            rustix::net::recvmsg(&self.socket, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)
        else {
            return false;
        };
        for item in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = item {
                self.pending = descriptors.last().filter(|_| has_room);
            }
        }
        self.lines.push(&self.buffer[..message.bytes]);
        while let Some(line) = self.lines.next_line().unwrap() {
            let Some(number) = line.strip_prefix(b"handle ") else { continue };
            let digits = number.split(|byte| *byte == b' ').next().unwrap();
            let number = str::from_utf8(digits).unwrap().parse().unwrap();
            let descriptor = self.pending.take().map(|descriptor| number_of(Some(descriptor)));
            self.answers.push_back(descriptor.is_some());
            self.delivered.push((number, descriptor));
        }
        true
    }
}

/// A sender and its receiver.
struct World {
    socket: OwnedFd,
    outbox: Outbox,
    node: Node,
    /// How many descriptors were sent.
    count: u64,
    unreceived: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Step {
    Plain(usize),
    Handle(usize),
    UserHandle(usize),
    /// We acknowledge something to the other side.
    Acknowledge,
    Write,
    Read {
        has_room: bool,
    },
    /// An answer of the other side arrives.
    Answer,
}

impl World {
    fn new(window: usize, reads: usize) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let (outbox, node) = (Outbox::to_reader_of(window), Node::new(theirs, reads));
        Self { socket: ours, outbox, node, count: 0, unreceived: Vec::new() }
    }

    fn handle_line(&mut self, length: usize) -> (String, Arc<OwnedFd>) {
        let number = self.count;
        self.count += 1;
        (format!("handle {number} {}", "h".repeat(length)), numbered(number))
    }

    /// False if nothing came of it.
    fn step(&mut self, step: &Step) -> bool {
        match *step {
            Step::Plain(length) => self.outbox.push(Pending::plain("x".repeat(length))),
            Step::Handle(length) => {
                let number = self.count;
                let (line, descriptor) = self.handle_line(length);
                self.outbox.push(Pending::handle(line, descriptor, Some(number)));
            }
            Step::UserHandle(length) => {
                let (line, descriptor) = self.handle_line(length);
                self.outbox.push(Pending::user_handle(line, descriptor));
            }
            Step::Acknowledge => self.outbox.acknowledge(true),
            Step::Write => match self.outbox.write(self.socket.as_fd()) {
                Ok(0) | Err(_) => return false,
                Ok(count) => drop(self.outbox.note_written(count)),
            },
            Step::Read { has_room } => return self.node.read(has_room),
            Step::Answer => match self.node.answers.pop_front() {
                Some(true) => self.outbox.note_received(),
                Some(false) => {
                    if let Some(Returned::Lost(Unreceived::Numbered(number))) = self.outbox.note_unreceived()
                    {
                        self.unreceived.push(number);
                    }
                }
                None => return false,
            },
        }
        true
    }

    /// Until nothing is left to be done.
    fn settle(&mut self) {
        let steps = [Step::Write, Step::Read { has_room: true }, Step::Answer];
        while steps.iter().filter(|step| self.step(step)).count() > 0 {}
        assert!(self.outbox.is_empty());
    }

    fn swaps(&self) -> usize {
        let is_swapped =
            |(number, descriptor): &&(u64, Option<u64>)| descriptor.is_some_and(|got| got != *number);
        self.node.delivered.iter().filter(is_swapped).count()
    }
}

/// A plain message that ends so that a read cuts the message behind it after `cut` bytes, and two with descriptors.
fn cut_after(cut: usize, window: usize) -> World {
    let mut world = World::new(window, NODE_READS);
    for step in [Step::Plain(NODE_READS - 1 - cut), Step::Handle(100), Step::Handle(100), Step::Handle(100)] {
        world.step(&step);
    }
    while world.step(&Step::Write) {}
    world.settle();
    world
}

#[test]
fn without_the_fence_the_receiver_swaps_connections() {
    for cut in [1, 60, 108] {
        let world = cut_after(cut, usize::MAX);
        assert_eq!(world.node.delivered, [(0, Some(1)), (1, None), (2, Some(2))], "cut after {cut}");
        assert_eq!(world.unreceived, [1]);
    }
}

#[test]
fn with_the_fence_it_does_not() {
    for cut in 0..=110 {
        let world = cut_after(cut, NODE_READS);
        assert_eq!(world.node.delivered, [(0, Some(0)), (1, Some(1)), (2, Some(2))], "cut after {cut}");
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let plain = prop_oneof![0_usize..200, 0_usize..70_000, 65_300_usize..65_536, 32_000_usize..33_000];
    let step = prop_oneof![
        3 => plain.prop_map(Step::Plain),
        8 => (0_usize..300).prop_map(Step::Handle),
        1 => (0_usize..70_000).prop_map(Step::Handle),
        1 => (0_usize..70_000).prop_map(Step::UserHandle),
        2 => Just(Step::Acknowledge),
        12 => Just(Step::Write),
        3 => Just(Step::Read { has_room: true }),
        2 => Just(Step::Answer),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_mix_of_messages_swaps_or_loses_connections(
        steps in steps(),
        reads in prop::sample::select(vec![NODE_READS, 100_000, 512 * 1024]),
    ) {
        let mut world = World::new(NODE_READS, reads);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        let expected: Vec<_> = (0..world.count).map(|number| (number, Some(number))).collect();
        prop_assert_eq!(world.node.delivered, expected);
    }

    #[test]
    fn what_the_receiver_has_no_room_for_is_named(
        mut steps in steps(),
        rooms in prop::collection::vec(any::<bool>(), 120),
    ) {
        for (step, is_full) in steps.iter_mut().zip(rooms) {
            match step {
                Step::Read { has_room } => *has_room = !is_full,
                Step::UserHandle(length) => *step = Step::Handle(*length),
                _ => {}
            }
        }
        let mut world = World::new(NODE_READS, NODE_READS);
        for step in &steps {
            world.step(step);
        }
        world.settle();
        prop_assert_eq!(world.swaps(), 0);
        let lost = world.node.delivered.iter().filter(|(_, descriptor)| descriptor.is_none());
        let lost: Vec<u64> = lost.map(|(number, _)| *number).collect();
        prop_assert_eq!(world.unreceived, lost);
    }
}
