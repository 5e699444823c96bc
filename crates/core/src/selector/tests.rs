use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Runs a selector as the kernel would, with `random` for its random number.
fn run(program: &[Instruction], random: u32) -> u32 {
    run_on(program, random, &[])
}

/// The same for a packet, from its IP header on.
fn run_on(program: &[Instruction], random: u32, packet: &[u8]) -> u32 {
    let bytes = |k: u32, length: usize| {
        let at = usize::try_from(k - NETWORK).unwrap();
        packet[at..at + length].iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
    };
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        match code {
            LOAD_ABSOLUTE if k == RANDOM => accumulator = random,
            LOAD_ABSOLUTE => accumulator = bytes(k, 4),
            LOAD_HALF => accumulator = bytes(k, 2),
            LOAD_BYTE => accumulator = bytes(k, 1),
            AND => accumulator &= k,
            MODULO => accumulator %= k,
            JUMP_IF_EQUAL => at += usize::from(if accumulator == k { jt } else { jf }),
            GIVE => return k,
            GIVE_ACCUMULATOR => return accumulator,
            other => panic!("unknown operation {other:#x}"),
        }
    }
}

#[test]
fn a_group_that_is_all_chosen_takes_three_instructions() {
    assert_eq!(pick_random(&Chosen::of(0..256).unwrap()).len(), 3);
}

#[test]
fn nothing_is_no_choice() {
    assert_eq!(Chosen::of([]), None);
}

#[test]
fn a_single_chosen_lane_gets_everything() {
    let program = pick_random(&Chosen::one(7));
    assert!((0..100).all(|random| run(&program, random) == 7));
}

proptest! {
    #[test]
    fn each_chosen_index_is_picked_equally_often_and_no_other_ever(indices in prop::collection::vec(0_u32..300, 1..60)) {
        let chosen = Chosen::of(indices.iter().copied()).unwrap();
        let program = pick_random(&chosen);
        let count = u32::try_from(chosen.indices().len()).unwrap();
        let picked: Vec<u32> = (0..count).map(|random| run(&program, random)).collect();
        let each: BTreeSet<u32> = picked.iter().copied().collect();
        prop_assert_eq!(picked.len(), each.len());
        prop_assert_eq!(each, indices.into_iter().collect());
    }
}

#[test]
fn only_a_first_syn_is_refused() {
    let verdict = |flags: u32| {
        let masked = flags & 0x12;
        let program = refuse_new_connections();
        assert_eq!(program[1].k, 0x12);
        if masked == program[2].k { program[3].k } else { program[4].k }
    };
    assert_eq!(verdict(0x02), 0, "SYN");
    assert_eq!(verdict(0x10), u32::MAX, "ACK");
    assert_eq!(verdict(0x18), u32::MAX, "PSH ACK");
    assert_eq!(verdict(0x04), u32::MAX, "RST");
}

/// The headers of a packet from `from`, as far as a selector may look.
fn packet(from: &str) -> Vec<u8> {
    let from: SocketAddr = from.parse().unwrap();
    let mut bytes = vec![0; 60];
    let port_at = match from.ip() {
        IpAddr::V4(ip) => {
            bytes[0] = 0x45;
            bytes[12..16].copy_from_slice(&ip.octets());
            20
        }
        IpAddr::V6(ip) => {
            bytes[0] = 0x60;
            bytes[8..24].copy_from_slice(&ip.octets());
            40
        }
    };
    bytes[port_at..port_at + 2].copy_from_slice(&from.port().to_be_bytes());
    bytes
}

#[test]
fn a_detour_is_taken_by_its_own_source_and_by_no_other() {
    let detours: Vec<Detour> = [("127.0.0.1:4000", 5), ("[::1]:4000", 6), ("[fe80::1]:4000", 7)]
        .map(|(from, to)| Detour { from: from.parse().unwrap(), to })
        .to_vec();
    let program = with_detours(&detours, pick_random(&Chosen::one(9)));
    for Detour { from, to } in detours {
        assert_eq!(run_on(&program, 0, &packet(&from.to_string())), to);
    }
    for other in ["127.0.0.1:4001", "127.0.0.2:4000", "[::1]:4001", "[::2]:4000", "[1::1]:4000"] {
        assert_eq!(run_on(&program, 0, &packet(other)), 9, "{other}");
    }
}

#[test]
fn a_detour_from_a_mapped_address_is_one_of_ipv4() {
    let detour = Detour { from: "[::ffff:127.0.0.1]:4000".parse().unwrap(), to: 3 };
    assert_eq!(
        run_on(&with_detours(&[detour], pick_random(&Chosen::one(9))), 0, &packet("127.0.0.1:4000")),
        3
    );
}
