//! The table's own bookkeeping, and its limits.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::sys::socket as raw;

fn empty() -> Ports {
    Ports::new(Policy::Lanes, 1024, Tuning { tick: Duration::from_millis(1), is_on: true }).unwrap()
}

/// `false` where so many descriptors can't be had.
fn allow_open_files(wanted: u64) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let is_enough = limit.maximum.is_none_or(|most| most >= wanted);
    if is_enough && limit.current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).unwrap();
    }
    is_enough
}

fn applicant(worker: u32) -> Applicant {
    let slot = Slot(u16::try_from(worker - 1).unwrap());
    Applicant {
        worker: WorkerId(worker),
        slot,
        replaces: None,
        is_by_channel: false,
        policy: None,
        is_on_trial: false,
    }
}

/// Has a worker ask for the `index`th listener on any port.
fn ask(
    ports: &mut Ports,
    worker: u32,
    index: u64,
    is_open: impl FnMut(LaneId, u64) -> bool,
) -> Result<LaneId, i32> {
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    ports.obtain(&applicant(worker), &any, index, &Profile::default(), is_open).map_err(|why| {
        assert!(why.is_limit, "{why:?}");
        why.errno
    })
}

#[tokio::test]
async fn one_worker_can_have_so_many_listeners_and_those_it_has_closed_do_not_count() {
    if !allow_open_files(2048) {
        return;
    }
    let mut ports = empty();
    let lanes: Vec<LaneId> = (0..1024).map(|index| ask(&mut ports, 1, index, |_, _| true).unwrap()).collect();
    assert_eq!(ask(&mut ports, 1, 5000, |_, _| true), Err(libc::EMFILE));
    // Another has its own share.
    let shared = ask(&mut ports, 2, 7, |_, _| true).unwrap();
    assert!(ports.are_siblings(shared, lanes[7]) && shared != lanes[7]);
    assert!(ports.take_closed().is_empty());
    let is_open = |lane: LaneId, _| lane != lanes[3] && lane != lanes[7];
    let new = ask(&mut ports, 1, 5000, is_open).unwrap();
    assert_eq!(ports.take_closed(), [lanes[3], lanes[7]].map(|lane| (WorkerId(1), lane)));
    assert!(ports.socket(lanes[3]).is_none(), "nobody has it open, and it is not closed");
    assert!(ports.socket(lanes[7]).is_some(), "the other worker's address is closed");
    assert!(!lanes.contains(&new));
    // It had two less and has one more.
    ask(&mut ports, 1, 5001, is_open).unwrap();
    assert_eq!(ask(&mut ports, 1, 5002, is_open), Err(libc::EMFILE));
}

#[tokio::test]
async fn there_are_so_many_addresses_and_forgotten_ones_make_room() {
    if !allow_open_files(3 * 4096) {
        return;
    }
    let mut ports = empty();
    for worker in 1..=4 {
        for index in 0..1024 {
            ask(&mut ports, worker, u64::from(worker) << 32 | index, |_, _| true).unwrap();
        }
    }
    assert_eq!(ask(&mut ports, 5, 0, |_, _| true), Err(libc::ENFILE));
    ports.release(WorkerId(2), Duration::from_secs(100));
    ports.tick(Duration::from_secs(109));
    // The worker that comes next in its slot may ask for them.
    assert_eq!(ask(&mut ports, 5, 0, |_, _| true), Err(libc::ENFILE));
    ports.tick(Duration::from_secs(111));
    for index in 0..1024 {
        ask(&mut ports, 5, index, |_, _| true).unwrap();
    }
    assert_eq!(ask(&mut ports, 6, 5000, |_, _| true), Err(libc::ENFILE));
}

#[tokio::test]
async fn lanes_and_addresses_are_found_whatever_comes_and_goes() {
    let mut ports = empty();
    let first: Vec<LaneId> = (0..4).map(|index| ask(&mut ports, 1, index, |_, _| true).unwrap()).collect();
    let beside: Vec<LaneId> = (0..4).map(|index| ask(&mut ports, 2, index, |_, _| true).unwrap()).collect();
    for (one, other) in first.iter().zip(&beside) {
        assert!(ports.are_siblings(*one, *other));
        assert_eq!(ports.by_inode(ports.inode(*one).unwrap()), Some(*one));
        let bound = ports.describe(*one).unwrap().address;
        assert_eq!(ports.groups.find(&bound, 9).map(|key| ports.groups[key].lanes.len()), Some(2));
        ports.listen(*one, 5).unwrap();
    }
    assert!(!ports.are_siblings(first[0], first[1]));
    assert_eq!(ports.lanes_of(WorkerId(1)).count(), 4);
    assert_eq!(ports.lanes_of(WorkerId(3)).count(), 0);

    ports.give_up(WorkerId(1), first[1], Duration::ZERO);
    ports.give_up(WorkerId(2), beside[1], Duration::ZERO);
    assert!(ports.describe(first[1]).is_none() && ports.describe(beside[1]).is_none());
    assert_eq!(ports.lanes_of(WorkerId(1)).count(), 3);
    // The same wish is another address by now, and its lane has another name.
    let again = ask(&mut ports, 1, 1, |_, _| true).unwrap();
    assert!(again != first[1] && !ports.has_listened(again));

    ports.release(WorkerId(2), Duration::from_secs(1));
    assert_eq!(ports.lanes_of(WorkerId(2)).count(), 0);
    assert_eq!(ask(&mut ports, 2, 0, |_, _| true), Ok(beside[0]), "its lane is kept");
    ports.close();
    assert!(ports.describe(first[0]).is_none());
    assert!(ask(&mut ports, 1, 0, |_, _| true).unwrap() > again, "a name is used again");
}

/// Claims that lanes are found by their sockets, and those that were closed since it was asked before are not.
fn found_by_socket(ports: &Ports, known: &mut Vec<(LaneId, u64)>) -> usize {
    let all = ports.groups.iter().flat_map(|group| &group.lanes);
    known.extend(all.map(|lane| (lane.id, lane.inode)));
    for (lane, inode) in &*known {
        assert_eq!(ports.by_inode(*inode), ports.socket(*lane).map(|_| *lane));
    }
    ports.groups.iter().map(|group| group.lanes.len()).sum()
}

#[tokio::test]
async fn lanes_are_found_by_their_sockets_whatever_comes_and_goes() {
    let (mut ports, known) = (empty(), &mut Vec::new());
    ports.set_target(2);
    let first = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    ports.set_handed(first);
    ports.listen(first, 5).unwrap();
    assert_eq!(found_by_socket(&ports, known), 2, "one is for when all are busy");
    let address = ports.describe(first).unwrap().address;
    ports.release(WorkerId(1), Duration::ZERO);
    let bound = bind(&mut ports, 1, &address);
    assert_eq!(found_by_socket(&ports, known), 3);
    assert_eq!(listen_on(&mut ports, 1, bound), first);
    assert_eq!(found_by_socket(&ports, known), 2, "what was exchanged is closed");
    ports.give_up(WorkerId(1), first, Duration::ZERO);
    assert_eq!(found_by_socket(&ports, known), 0);

    let any = Address::Udp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    let obtain = |ports: &mut Ports, worker, address: &Address| {
        ports.obtain(&applicant(worker), address, 0, &Profile::default(), |_, _| true).unwrap()
    };
    let one = obtain(&mut ports, 1, &any);
    let address = ports.describe(one).unwrap().address;
    let other = obtain(&mut ports, 2, &address);
    assert_eq!(found_by_socket(&ports, known), 2);
    ports.give_up(WorkerId(1), one, Duration::ZERO);
    assert_eq!(found_by_socket(&ports, known), 1, "nobody reads the other");
    obtain(&mut ports, 1, &address);
    ports.set_target(1);
    assert_eq!(found_by_socket(&ports, known), 2);
    ports.release(WorkerId(2), Duration::ZERO);
    assert_eq!(found_by_socket(&ports, known), 1, "its slot is gone");
    assert!(ports.socket(other).is_none());
    ports.close();
    assert_eq!(found_by_socket(&ports, known), 0);
}

/// Has a worker bind an address by itself.
fn bind(ports: &mut Ports, worker: u32, address: &Address) -> LaneId {
    let profile = Profile { is_reuse_port: true, is_nonblocking: Some(false), ..Profile::default() };
    let lane = ports.obtain_to_bind(&applicant(worker), address, &profile, |_, _| true).unwrap();
    ports.dress(lane, &profile);
    lane
}

/// Has it listen on what it has bound: gives the lane on which it does.
fn listen_on(ports: &mut Ports, worker: u32, bound: LaneId) -> LaneId {
    let applicant = applicant(worker);
    let lane = ports.successor_of(bound, &applicant).unwrap_or(bound);
    if lane != bound {
        ports.dress_as(lane, bound);
        ports.exchange(bound, lane, &applicant);
    }
    ports.listen(lane, 5).unwrap();
    lane
}

#[tokio::test]
async fn a_lane_that_listens_is_given_to_who_listens_and_not_to_who_binds() {
    let mut ports = empty();
    ports.set_target(2);
    let reserved = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    let address = ports.describe(reserved).unwrap().address;
    let bound = bind(&mut ports, 1, &address);
    let lane = listen_on(&mut ports, 1, bound);
    assert!(lane == bound && bound != reserved);
    let other = bind(&mut ports, 2, &address);
    assert_eq!(listen_on(&mut ports, 2, other), other);
    for _ in 0..3 {
        ports.release(WorkerId(1), Duration::from_secs(1));
        let reserved = bind(&mut ports, 1, &address);
        let bound = bind(&mut ports, 1, &address);
        assert!(!ports.has_listened(reserved) && !ports.has_listened(bound));
        rustix::net::sockopt::set_tcp_nodelay(ports.socket(bound).unwrap(), true).unwrap();
        lane::set_nonblocking(ports.socket(bound).unwrap(), true).unwrap();
        assert_eq!(listen_on(&mut ports, 1, bound), lane, "what waits for slot 0 is not its worker's");
        let socket = ports.socket(lane).unwrap();
        assert!(rustix::net::sockopt::tcp_nodelay(socket).unwrap());
        assert!(rustix::fs::fcntl_getfl(socket).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
        assert_eq!(ports.take_closed(), [(WorkerId(1), bound)]);
        assert!(ports.users(bound).next().is_none() && !ports.has_listened(reserved));
    }
    assert_eq!(ports.groups.iter().next().unwrap().lanes.len(), 3, "more with each worker");
    // What was exchanged keeps no address.
    for lane in ports.groups.ids_of(WorkerId(1)) {
        ports.give_up(WorkerId(1), lane, Duration::ZERO);
    }
    ports.give_up(WorkerId(2), other, Duration::ZERO);
    assert!(ports.describe(lane).is_none());
}

#[tokio::test]
async fn where_there_are_copies_of_what_is_listened_on_a_lane_that_listens_is_given_to_who_binds() {
    let mut ports = empty();
    ports.set_target(2);
    let lane = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    let address = ports.describe(lane).unwrap().address;
    assert!(ports.cares_for_copies(lane));
    ports.note_copies(lane, true);
    listen_on(&mut ports, 1, lane);
    ports.release(WorkerId(1), Duration::from_secs(1));
    assert_eq!(bind(&mut ports, 1, &address), lane);
    // It has none any more.
    assert!(ports.cares_for_copies(lane));
    ports.note_copies(lane, false);
    listen_on(&mut ports, 1, lane);
    ports.release(WorkerId(1), Duration::from_secs(1));
    let bound = bind(&mut ports, 1, &address);
    assert_ne!(bound, lane);
    assert_eq!(listen_on(&mut ports, 1, bound), lane);
    assert!(!ports.cares_for_copies(lane));
}

#[tokio::test]
async fn who_takes_the_place_of_a_hung_worker_accepts_from_its_lane_once_it_listens() {
    let mut ports = empty();
    ports.set_target(1);
    let lane = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    let address = ports.describe(lane).unwrap().address;
    listen_on(&mut ports, 1, lane);
    let newcomer = Applicant { worker: WorkerId(2), replaces: Some(WorkerId(1)), ..applicant(1) };
    let bound = ports.obtain_to_bind(&newcomer, &address, &Profile::default(), |_, _| true).unwrap();
    assert_ne!(bound, lane);
    assert_eq!(ports.successor_of(bound, &newcomer), Some(lane));
    ports.exchange(bound, lane, &newcomer);
    assert_eq!(ports.users(lane).collect::<Vec<_>>(), [WorkerId(1), WorkerId(2)]);
}

#[tokio::test]
async fn what_all_share_a_worker_may_bind_twice_as_the_kernel_has_it() {
    let mut ports =
        Ports::new(Policy::Shared, 16, Tuning { tick: Duration::from_millis(1), is_on: true }).unwrap();
    let lane = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    let address = ports.describe(lane).unwrap().address;
    assert_eq!(bind(&mut ports, 1, &address), lane);
    let alone = ports.obtain_to_bind(&applicant(1), &address, &Profile::default(), |_, _| true);
    assert_eq!(alone.map_err(|why| why.errno), Err(libc::EADDRINUSE));
}

#[tokio::test]
async fn what_only_a_version_that_is_taken_back_has_listened_on_is_closed_when_its_workers_have_gone() {
    let mut ports = empty();
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    let listen = |ports: &mut Ports, worker, index, is_on_trial| {
        let applicant = Applicant { is_on_trial, ..applicant(worker) };
        let lane = ports.obtain(&applicant, &any, index, &Profile::default(), |_, _| true).unwrap();
        ports.listen(lane, 5).unwrap();
        lane
    };
    let old = listen(&mut ports, 1, 0, false);
    let beside = listen(&mut ports, 2, 0, true);
    let new = listen(&mut ports, 2, 1, true);
    let both = listen(&mut ports, 2, 2, true);
    listen(&mut ports, 1, 2, false);
    let stays = listen(&mut ports, 3, 3, true);
    let going = listen(&mut ports, 4, 4, true);
    ports.release(WorkerId(2), Duration::from_secs(1));
    assert!(ports.has_listened(new), "another of its version may come");
    ports.close_tried(|worker| worker == WorkerId(3));
    assert!(ports.socket(new).is_none(), "nobody comes");
    for lane in [old, beside, both, stays, going] {
        assert!(ports.has_listened(lane));
    }
    ports.release(WorkerId(4), Duration::from_secs(2));
    assert!(ports.socket(going).is_none(), "the last one has gone");
    for worker in [1, 3] {
        ports.release(WorkerId(worker), Duration::from_secs(3));
    }
    assert!(ports.has_listened(old) && ports.has_listened(both) && ports.has_listened(stays));

    let good = listen(&mut ports, 5, 5, true);
    ports.keep_tried();
    ports.release(WorkerId(5), Duration::from_secs(4));
    ports.close_tried(|_| false);
    assert!(ports.has_listened(good));
}

#[tokio::test]
async fn where_nobody_who_stays_listens_it_is_closed_when_the_last_has_gone_unless_another_comes() {
    let mut ports = empty();
    let [left, asked, shared] = [0, 1, 2].map(|index| ask(&mut ports, 1, index, |_, _| true).unwrap());
    let nobodys = ask(&mut ports, 2, 3, |_, _| true).unwrap();
    ask(&mut ports, 3, 2, |_, _| true).unwrap();
    ports.release(WorkerId(2), Duration::from_secs(1));
    ports.close_unused(|worker| worker == WorkerId(3));
    assert!(ports.socket(nobodys).is_none());
    assert!([left, asked, shared].iter().all(|lane| ports.socket(*lane).is_some()));
    ask(&mut ports, 3, 1, |_, _| true).unwrap();
    ports.release(WorkerId(1), Duration::from_secs(2));
    assert!(ports.socket(left).is_none());
    assert!(ports.socket(asked).is_some() && ports.socket(shared).is_some());
}

/// Programs do so at their end, to be woken up from `accept`; the kernel numbers anew then.
#[tokio::test]
async fn who_has_shut_its_lane_down_leaves_the_others_theirs() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut ports = empty();
    let (now, socket) = (Duration::ZERO, Address::Tcp { socket: address, is_only_v6: false });
    let join = |ports: &mut Ports, worker: u32, slot: u16| {
        let applicant = Applicant { slot: Slot(slot), ..applicant(worker) };
        let lane = ports.obtain(&applicant, &socket, 0, &Profile::default(), |_, _| true).unwrap();
        ports.listen(lane, 100).unwrap();
        ports.serve(WorkerId(worker), true, now);
        lane
    };
    let lanes: Vec<LaneId> = (0..4).map(|slot| join(&mut ports, u32::from(slot) + 1, slot)).collect();
    for (number, leaves) in [(5, 1), (6, 2), (7, 5)] {
        let slot = u16::try_from(
            lanes.iter().position(|lane| ports.users(*lane).any(|user| user == WorkerId(leaves))).unwrap(),
        )
        .unwrap();
        let lane = lanes[usize::from(slot)];
        rustix::net::shutdown(ports.socket(lane).unwrap(), rustix::net::Shutdown::Both).unwrap();
        ports.release(WorkerId(leaves), now);
        assert_eq!(join(&mut ports, number, slot), lane);
        // One after the other alone: what comes is theirs.
        let workers: Vec<WorkerId> = lanes.iter().flat_map(|lane| ports.users(*lane)).collect();
        assert_eq!(workers.len(), 4);
        for alone in &workers {
            for worker in &workers {
                ports.serve(*worker, worker == alone, now);
            }
            let depth =
                |ports: &Ports, lane: &LaneId| raw::accept_queue(ports.socket(*lane).unwrap()).unwrap().depth;
            let own = lanes.iter().find(|lane| ports.users(**lane).any(|user| user == *alone)).unwrap();
            let before = depth(&ports, own);
            let _client = std::net::TcpStream::connect(address).unwrap();
            assert_eq!(depth(&ports, own), before + 1, "{alone:?} of {workers:?}");
        }
        for worker in &workers {
            ports.serve(*worker, true, now);
        }
    }
}

/// Has a worker that can be handed connections listen, and serve.
fn join(ports: &mut Ports, worker: u32, address: &Address) -> LaneId {
    let applicant = Applicant { is_by_channel: true, ..applicant(worker) };
    let lane = ports.obtain(&applicant, address, 0, &Profile::default(), |_, _| true).unwrap();
    ports.set_handed(lane);
    ports.listen(lane, 100).unwrap();
    ports.serve(WorkerId(worker), true, Duration::ZERO);
    ports.join(lane, WorkerId(worker), applicant.slot);
    lane
}

/// Whether what comes is this worker's when no other of these serves.
fn gets_all_alone(ports: &mut Ports, worker: u32, of: &[u32]) -> bool {
    for other in of {
        ports.serve(WorkerId(*other), *other == worker, Duration::ZERO);
    }
    let lane = ports.groups.ids_of(WorkerId(worker))[0];
    let address = ports.describe(lane).unwrap().address.socket().unwrap();
    let depth = |ports: &Ports| raw::accept_queue(ports.socket(lane).unwrap()).unwrap().depth;
    let before = depth(ports);
    let clients: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let has_all = depth(ports) == before + 4;
    drop(clients);
    for other in of {
        ports.serve(WorkerId(*other), true, Duration::ZERO);
    }
    has_all
}

/// At a port that was named, and at one that the kernel chooses and forgets as soon as the socket is shut down.
fn named_and_any() -> [Address; 2] {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    [free, "127.0.0.1:0".parse().unwrap()].map(|socket| Address::Tcp { socket, is_only_v6: false })
}

#[tokio::test]
async fn whatever_a_worker_does_with_its_listener_it_listens_again_and_others_keep_theirs() {
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let connect = |lane: &socket2::SockRef<'_>| {
        lane.shutdown(std::net::Shutdown::Both).unwrap();
        // It is on its way, as the lane does not block; or this kernel does not let who has listened.
        let _ = lane.connect(&elsewhere.into());
    };
    let keep_for_itself = |lane: &socket2::SockRef<'_>| {
        lane.set_reuse_port(false).unwrap();
        lane.shutdown(std::net::Shutdown::Both).unwrap();
    };
    let acts: [&dyn Fn(&socket2::SockRef<'_>); 2] = [&keep_for_itself, &connect];
    for act in acts {
        for address in named_and_any() {
            for workers in [&[1][..], &[1, 2], &[2, 1, 3]] {
                let mut ports = empty();
                for worker in workers {
                    join(&mut ports, *worker, &address);
                }
                let lane = ports.groups.ids_of(WorkerId(1))[0];
                act(&socket2::SockRef::from(&ports.socket(lane).unwrap()));
                ports.maintain(Duration::from_secs(1));
                assert_eq!(ports.users(lane).collect::<Vec<_>>(), [WorkerId(1)]);
                assert_eq!(ports.take_closed(), []);
                for worker in workers {
                    assert!(gets_all_alone(&mut ports, *worker, workers), "{worker} of {workers:?}");
                }
            }
        }
    }
}

/// Makes a lane whose port the kernel has chosen one that can't be had listen there any more.
fn bind_elsewhere(ports: &Ports, lane: LaneId) {
    let socket = ports.socket(lane).unwrap();
    let socket = socket2::SockRef::from(&socket);
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
}

/// With one worker whose only lane is such; where that had listened.
fn with_one_bound_elsewhere() -> (Ports, Address, LaneId, std::net::SocketAddr) {
    let [_, any] = named_and_any();
    let mut ports = empty();
    let lane = join(&mut ports, 1, &any);
    let address = ports.describe(lane).unwrap().address.socket().unwrap();
    bind_elsewhere(&ports, lane);
    (ports, any, lane, address)
}

#[tokio::test]
async fn a_lane_that_can_not_listen_any_more_is_its_workers_no_more_and_nobody_elses() {
    let [_, any] = named_and_any();
    let mut ports = empty();
    let [lane, other] = [1, 2].map(|worker| join(&mut ports, worker, &any));
    bind_elsewhere(&ports, lane);
    ports.maintain(Duration::from_secs(1));
    assert!(!ports.is_listening(WorkerId(1)) && ports.is_listening(WorkerId(2)));
    assert_eq!(ports.take_closed(), [(WorkerId(1), lane)]);
    assert!(ports.socket(lane).is_none());
    assert!(gets_all_alone(&mut ports, 2, &[1, 2]));
    // It asks again.
    assert_ne!(join(&mut ports, 1, &any), lane);
    assert!(ports.are_siblings(lane, other));
    assert!(gets_all_alone(&mut ports, 1, &[1, 2]) && gets_all_alone(&mut ports, 2, &[1, 2]));
}

#[tokio::test]
async fn an_address_whose_only_lane_can_not_listen_any_more_is_closed_while_its_worker_lives() {
    let (mut ports, any, lane, address) = with_one_bound_elsewhere();
    ports.maintain(Duration::from_secs(1));
    assert_eq!(ports.take_closed(), [(WorkerId(1), lane)]);
    assert!(ports.describe(lane).is_none() && std::net::TcpStream::connect(address).is_err());
    join(&mut ports, 1, &any);
    assert!(gets_all_alone(&mut ports, 1, &[1]));
}

#[tokio::test]
async fn who_comes_where_only_the_waiting_room_is_left_waits_there_for_the_next_worker() {
    let (mut ports, any, lane, address) = with_one_bound_elsewhere();
    ports.release(WorkerId(1), Duration::from_secs(1));
    ports.maintain(Duration::from_secs(2));
    let _client = std::net::TcpStream::connect(address).unwrap();
    let group = ports.groups.iter().next().unwrap();
    assert_eq!(group.room().and_then(Lane::depth), Some(1));
    assert_ne!(join(&mut ports, 2, &any), lane);
    assert!(gets_all_alone(&mut ports, 2, &[2]));
}

#[tokio::test]
async fn a_negative_backlog_is_the_longest_that_there_can_be() {
    let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let most: u32 = most.trim().parse().unwrap();
    let mut ports = empty();
    let lane = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    let limit = |ports: &Ports| raw::accept_queue(ports.socket(lane).unwrap()).unwrap().limit;
    ports.listen(lane, 5).unwrap();
    assert_eq!(limit(&ports), 5);
    ports.listen(lane, -1).unwrap();
    assert_eq!(limit(&ports), most);
    ports.listen(lane, 5).unwrap();
    ports.maintain(Duration::ZERO);
    assert_eq!(limit(&ports), most);
}

#[test]
fn a_socket_that_its_program_has_bound_to_a_device_is_known() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    assert!(!Profile::of(&socket).has_own_device);
    // Linux before 5.7 asks for privileges.
    if socket.bind_device(Some(b"lo")).is_ok() {
        assert!(Profile::of(&socket).has_own_device);
    }
}

#[tokio::test]
async fn lanes_can_be_at_an_address_that_is_not_there_yet_where_their_program_allows_that() {
    // Kept for documentation: no machine has it.
    let address = Address::Tcp { socket: "192.0.2.1:18086".parse().unwrap(), is_only_v6: false };
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let mut ports = empty();
    let mut obtain = |worker: u32, profile: &Profile| {
        let lane = ports.obtain(&applicant(worker), &address, 0, profile, |_, _| true);
        lane.map_err(|why| why.errno)
    };
    assert_eq!(obtain(1, &Profile::of(&socket)), Err(libc::EADDRNOTAVAIL));
    socket.set_freebind_v4(true).unwrap();
    let profile = Profile::of(&socket);
    let lanes = [1, 2].map(|worker| obtain(worker, &profile).unwrap());
    assert_ne!(lanes[0], lanes[1]);
}

#[tokio::test]
async fn there_are_lanes_beside_a_socket_that_was_passed_to_us_at_an_address_that_is_not_there_yet() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_freebind_v4(true).unwrap();
    let bound: std::net::SocketAddr = "192.0.2.1:0".parse().unwrap();
    socket.bind(&bound.into()).unwrap();
    socket.listen(5).unwrap();
    let address =
        Address::Tcp { socket: socket.local_addr().unwrap().as_socket().unwrap(), is_only_v6: false };
    let mut ports = empty();
    let obstacle = ports.take_in(&address, socket.into(), Some("web".into())).unwrap();
    assert!(obstacle.is_none(), "{obstacle:?}");
    let lanes = [1, 2].map(|worker| {
        ports.obtain(&applicant(worker), &address, 0, &Profile::default(), |_, _| true).unwrap()
    });
    assert_ne!(lanes[0], lanes[1]);
}

#[tokio::test]
async fn a_socket_that_was_passed_to_us_can_be_had_again_though_all_have_closed_it() {
    let passed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp { socket: passed.local_addr().unwrap(), is_only_v6: false };
    let mut ports = empty();
    // Who has passed it keeps it.
    ports.take_in(&address, passed.try_clone().unwrap().into(), Some("web".into())).unwrap();
    let listen = |ports: &mut Ports, worker| {
        let profile = Profile::default();
        let lane = ports.obtain(&applicant(worker), &address, 0, &profile, |_, _| true).unwrap();
        ports.listen(lane, 5).unwrap();
        lane
    };
    let lane = listen(&mut ports, 1);
    ports.give_up(WorkerId(1), lane, Duration::ZERO);
    assert_eq!(listen(&mut ports, 1), lane);
    // The next version does not listen there, and the one after it does.
    ports.release(WorkerId(1), Duration::from_secs(1));
    ports.close_unused(|_| true);
    assert_eq!(listen(&mut ports, 1), lane);
    assert_eq!(ports.given().map(|(_, name, is_used)| (name, is_used)).collect::<Vec<_>>(), [("web", true)]);
}

#[tokio::test]
async fn all_addresses_are_maintained_in_their_turn() {
    if !allow_open_files(2048) {
        return;
    }
    let mut ports = empty();
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..600 {
        ask(&mut ports, 1, index, |_, _| true).unwrap();
    }
    for _ in 0..3 {
        let before = ports.maintained;
        ports.maintain(Duration::ZERO);
        seen.extend(ports.groups.round(before, 256));
    }
    assert_eq!(seen.len(), 600);
}

#[tokio::test]
async fn the_more_workers_serve_an_address_the_rarer_it_is_looked_at_while_nobody_is_held_up() {
    let at = Duration::from_millis;
    for (workers, interval) in [(2, 4), (63, 4), (64, 5), (130, 6), (400, 8)] {
        if !allow_open_files(1024) {
            return;
        }
        let mut ports = empty();
        let lanes: Vec<LaneId> =
            (1..=workers).map(|worker| ask(&mut ports, worker, 0, |_, _| true).unwrap()).collect();
        for (worker, lane) in (1..).zip(&lanes) {
            ports.listen(*lane, 16).unwrap();
            ports.serve(WorkerId(worker), true, at(0));
        }
        let address = ports.describe(lanes[0]).unwrap().address.socket().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let ready = tokio::time::timeout(
            Duration::from_secs(20),
            std::future::poll_fn(|context| ports.poll_ready(context)),
        )
        .await
        .unwrap();
        ports.note_ready(&ready, at(0));
        assert_eq!(ports.tick_interval(), at(interval), "{workers} workers");
        // It is not taken: as soon as that is seen all are looked at on each tick.
        ports.tick(at(10));
        ports.tick(at(20));
        assert_eq!(ports.tick_interval(), at(1), "{workers} workers");
        drop(client);
    }
}

/// A process that has one descriptor more open until it is written to.
struct Holder {
    child: std::process::Child,
    descriptors: std::path::PathBuf,
}

impl Holder {
    fn start() -> Self {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec 9</dev/null; read line; exec 9<&-; read line"]);
        let child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let descriptors = format!("/proc/{}/fd", child.id()).into();
        let holder = Self { child, descriptors };
        holder.wait(true);
        holder
    }

    fn wait(&self, has_it: bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while self.descriptors.join("9").exists() != has_it {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    fn let_go(&mut self) {
        use std::io::Write;
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.wait(false);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn a_worker_that_refused_is_tried_again_when_it_has_closed_something() {
    let at = Duration::from_millis;
    let mut ports = Ports::new(Policy::RoundRobin, 16, Tuning { tick: at(1), is_on: true }).unwrap();
    let worker = WorkerId(1);
    let any = Address::Tcp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    let applicant = Applicant { is_by_channel: true, ..applicant(1) };
    let lane = ports.obtain(&applicant, &any, 0, &Profile::default(), |_, _| true).unwrap();
    ports.listen(lane, 16).unwrap();
    ports.serve(worker, true, at(0));
    ports.join(lane, worker, Slot(0));
    let mut holder = Holder::start();
    ports.set_process(worker, holder.child.id());
    if ports.steering.descriptors_of(worker).is_none() {
        // Linux before 6.2 does not tell.
        return;
    }

    let address = ports.describe(lane).unwrap().address.socket().unwrap();
    let _client = std::net::TcpStream::connect(address).unwrap();
    ports.note_ready(&[lane], at(0));
    // It refuses again and again, and is left alone for longer and longer.
    let mut now = at(0);
    for pause in [50, 100, 200, 400, 800, 1000] {
        let handed = ports.hand_off(now);
        let [delivery] = &handed[..] else { panic!("{handed:?} after {now:?}") };
        ports.refused(lane, worker, delivery.ticket, now);
        assert!(ports.hand_off(now + at(pause - 1)).is_empty());
        now += at(pause);
    }
    let handed = ports.hand_off(now);
    ports.refused(lane, worker, handed[0].ticket, now);
    // Looked at, and nothing has changed.
    for _ in 0..5 {
        now = ports.next_look_at_full().unwrap().max(now);
        ports.look_at_full(now);
        assert!(ports.hand_off(now).is_empty());
    }
    holder.let_go();
    now = ports.next_look_at_full().unwrap();
    ports.look_at_full(now);
    assert_eq!(ports.hand_off(now).len(), 1, "it has closed something and is not tried");
    assert_eq!(ports.next_look_at_full(), None, "nobody waits");
}

#[tokio::test]
async fn workers_are_kept_from_removing_paths_until_the_app_stops_and_those_of_others_also_then() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs] = ["ours", "theirs"].map(|name| folder.path().join(name));
    let address = |path: &std::path::Path| Address::Unix(path.as_os_str().as_encoded_bytes().to_vec());
    let mut ports = empty();
    assert!(!ports.has_files());
    ports.obtain(&applicant(1), &address(&ours), 0, &Profile::default(), |_, _| true).unwrap();
    let passed = std::os::unix::net::UnixListener::bind(&theirs).unwrap();
    ports.take_in(&address(&theirs), passed.into(), Some("web".into())).unwrap();
    assert!(ports.has_files());
    let withholds = |ports: &mut Ports, path: &std::path::Path| {
        let file = std::fs::symlink_metadata(path).unwrap();
        ports.withholds(WorkerId(1), path.file_name().unwrap(), (file.dev(), file.ino()))
    };
    assert!(withholds(&mut ports, &ours) && withholds(&mut ports, &theirs));
    std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
    let other = folder.path().join("elsewhere/ours");
    std::fs::write(&other, "").unwrap();
    assert!(!withholds(&mut ports, &other));
    ports.close_to_new();
    assert!(!withholds(&mut ports, &ours) && withholds(&mut ports, &theirs));
    std::fs::remove_file(&ours).unwrap();
    std::fs::remove_file(&theirs).unwrap();
    while !theirs.exists() {
        let touched = ports.next_touched().await;
        assert_eq!(ports.put_back(&touched), None);
    }
    assert!(!ours.exists());
    ports.reopen();
    assert!(ours.exists());
    ports.close();
    assert!(!ours.exists() && theirs.exists() && !ports.has_files());
}

#[tokio::test]
async fn a_path_that_is_removed_before_it_is_watched_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut ports = empty();
    ports.prepare(&Address::Unix(path.as_os_str().as_encoded_bytes().to_vec())).unwrap();
    std::fs::remove_file(&path).unwrap();
    // As the next primary does with what it is left.
    let key = ports.groups.iter().next().unwrap().key;
    ports.follow(key);
    assert!(path.exists());
}

#[tokio::test]
async fn a_udp_address_of_a_slot_that_there_is_no_more_is_closed_with_its_last_socket() {
    let mut ports = empty();
    ports.set_target(2);
    let any = Address::Udp { socket: "127.0.0.1:0".parse().unwrap(), is_only_v6: false };
    for worker in [1, 2] {
        let profile = Profile::default();
        ports.obtain(&applicant(worker), &any, worker.into(), &profile, |_, _| true).unwrap();
    }
    ports.set_target(1);
    ports.set_kept(false);
    ports.release(WorkerId(2), Duration::ZERO);
    // One that keeps no socket would be in the way of an upgrade.
    assert!(ports.groups.iter().all(|group| !group.lanes.is_empty()));
}

/// How many of so many flows are for sockets that workers have.
fn flows_read(ports: &Ports, address: std::net::SocketAddr, flows: usize) -> usize {
    let flows: Vec<_> = (0..flows).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for flow in &flows {
        flow.send_to(b"?", address).unwrap();
    }
    let lanes = ports.groups.iter().flat_map(|group| &group.lanes).filter(|lane| !lane.users.is_empty());
    let receive = |lane: &Lane| {
        let socket = std::net::UdpSocket::from(lane.socket.try_clone().unwrap());
        socket.set_nonblocking(true).unwrap();
        std::iter::from_fn(|| socket.recv(&mut [0]).ok()).count()
    };
    lanes.map(receive).sum()
}

#[tokio::test]
async fn a_udp_socket_that_was_passed_to_us_always_has_a_worker_that_reads_it() {
    const FLOWS: usize = 64;
    let at = Duration::from_secs;
    let passed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let bound = passed.local_addr().unwrap();
    let address = Address::Udp { socket: bound, is_only_v6: false };
    let mut ports = empty();
    ports.set_target(4);
    // Who has passed it keeps it.
    let obstacle = ports.take_in(&address, passed.try_clone().unwrap().into(), Some("dns".into())).unwrap();
    assert!(obstacle.is_none(), "{obstacle:?}");
    let given = rustix::fs::fstat(&passed).unwrap().st_ino;
    let listen = |ports: &mut Ports, worker: u32| {
        let applicant = applicant(worker);
        let lane = ports.obtain(&applicant, &address, 0, &Profile::default(), |_, _| true).unwrap();
        ports.listen(lane, 0).unwrap();
        lane
    };
    // What comes before the first slot's worker waits for that.
    passed.set_nonblocking(true).unwrap();
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"?", bound).unwrap();
    let [third, fourth, first, second] = [3, 4, 1, 2].map(|worker| listen(&mut ports, worker));
    assert_eq!(ports.by_inode(given), Some(first));
    assert_eq!(flows_read(&ports, bound, FLOWS), FLOWS + 1);

    ports.set_target(2);
    ports.release(WorkerId(3), at(1));
    ports.release(WorkerId(4), at(1));
    assert!(ports.socket(third).is_none() && ports.socket(fourth).is_none());
    assert_eq!(flows_read(&ports, bound, FLOWS), FLOWS);
    // Of what it has closed, or left, the next reads what waits.
    ports.give_up(WorkerId(1), first, at(2));
    assert_eq!(listen(&mut ports, 1), first);
    ports.set_kept(false);
    ports.release(WorkerId(1), at(3));
    let sent: usize = (0..FLOWS)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .map(|flow| flow.send_to(b"?", bound).unwrap())
        .sum();
    assert_eq!(listen(&mut ports, 1), first);
    assert_eq!(flows_read(&ports, bound, 1), sent + 1);

    ports.give_up(WorkerId(2), second, at(4));
    ports.release(WorkerId(1), at(4));
    assert_eq!(listen(&mut ports, 1), first, "the address is closed");
    assert_eq!(flows_read(&ports, bound, FLOWS), FLOWS);
}

#[derive(Clone, Debug, Default)]
struct Shelf(std::sync::Arc<std::sync::Mutex<Vec<(String, u64)>>>);

impl Depot for Shelf {
    fn put(&self, name: &str, listener: BorrowedFd<'_>) {
        self.0.lock().unwrap().push((name.to_owned(), rustix::fs::fstat(listener).unwrap().st_ino));
    }

    fn discard(&self, name: &str) {
        self.0.lock().unwrap().retain(|(other, _)| other != name);
    }
}

#[tokio::test]
async fn the_first_lane_that_listens_is_put_away_though_an_older_one_never_does() {
    let (mut ports, shelf) = (empty(), Shelf::default());
    ports.put_away_in(Box::new(shelf.clone()));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = Address::Tcp { socket: free, is_only_v6: false };
    let _reserved = bind(&mut ports, 1, &address);
    let bound = bind(&mut ports, 1, &address);
    let lane = listen_on(&mut ports, 1, bound);
    let other = bind(&mut ports, 2, &address);
    listen_on(&mut ports, 2, other);
    let away = shelf.0.lock().unwrap().clone();
    assert_eq!(away, [(name_of(free), ports.inode(lane).unwrap())]);
}

#[tokio::test]
async fn a_lane_has_no_options_but_those_of_the_program_that_has_it() {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let mut ports = empty();
    let lane = ask(&mut ports, 1, 0, |_, _| true).unwrap();
    let theirs = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_keepalive(&theirs, true).unwrap();
    sockopt::set_tcp_nodelay(&theirs, true).unwrap();
    ports.dress(lane, &Profile::of(&theirs));
    sockopt::set_tcp_nodelay(&theirs, false).unwrap();
    ports.dress(lane, &Profile::of(&theirs));
    let socket = ports.socket(lane).unwrap();
    assert!(sockopt::socket_keepalive(socket).unwrap());
    assert!(!sockopt::tcp_nodelay(socket).unwrap());
}
