use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Runs a selector as the kernel would, with `random` for its random number.
fn run(program: &[Instruction], random: u32) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        match code {
            LOAD_ABSOLUTE => accumulator = random,
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
    assert_eq!(pick_random(&(0..256).collect::<Vec<_>>()).len(), 3);
}

#[test]
fn a_single_chosen_lane_gets_everything() {
    let program = pick_random(&[7]);
    assert!((0..100).all(|random| run(&program, random) == 7));
}

proptest! {
    #[test]
    fn each_chosen_index_is_picked_equally_often_and_no_other_ever(chosen in prop::collection::btree_set(0_u32..300, 1..60)) {
        let chosen: Vec<u32> = chosen.into_iter().collect();
        let program = pick_random(&chosen);
        let count = u32::try_from(chosen.len()).unwrap();
        let picked: Vec<u32> = (0..count).map(|random| run(&program, random)).collect();
        prop_assert_eq!(picked.iter().copied().collect::<BTreeSet<_>>(), chosen.iter().copied().collect());
        prop_assert_eq!(picked.len(), chosen.len());
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
