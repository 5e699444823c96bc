//! The small classic-BPF programs that the primary gives the kernel.
//!
//! Pure: what a program says is decided and tested here; `allcores` only attaches it. Source of the encoding:
//! the kernel's `Documentation/networking/filter.rst`.

/// One classic-BPF instruction, as the kernel's `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const LOAD_ABSOLUTE: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GIVE_ACCUMULATOR: u16 = 0x16; // BPF_RET | BPF_A
const GIVE: u16 = 0x06; // BPF_RET | BPF_K

/// `SKF_AD_OFF + SKF_AD_RANDOM`: reads a random number.
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();

const fn step(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// Picks one of `chosen` at random: the indices, in a group of sockets, that should get connections.
///
/// `r = random % n`, and where the r-th index is not itself chosen, one of the chosen beyond n in its stead; so a
/// group that is all chosen, the usual case, takes three instructions, however large.
///
/// # Panics
///
/// If `chosen` is empty, unsorted or holds an index twice.
pub fn pick_random(chosen: &[u32]) -> Vec<Instruction> {
    assert!(!chosen.is_empty(), "a selector needs something to select");
    assert!(chosen.is_sorted_by(|a, b| a < b), "indices come in order, each once");
    let count = u32::try_from(chosen.len()).expect("a group has at most 65,535 sockets");
    let mut program = vec![step(LOAD_ABSOLUTE, RANDOM), step(MODULO, count)];
    let missing = (0..count).filter(|index| chosen.binary_search(index).is_err());
    let beyond = chosen.iter().filter(|index| **index >= count);
    for (index, &instead) in missing.zip(beyond) {
        program.push(Instruction { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: index });
        program.push(step(GIVE, instead));
    }
    program.push(step(GIVE_ACCUMULATOR, 0));
    program
}

/// Drops each packet that asks a TCP listener for a new connection, and lets everything else pass: handshakes
/// under way complete, queued connections stay, and a client that comes now tries again a second later.
pub fn refuse_new_connections() -> Vec<Instruction> {
    /// Offset of the flags in a TCP header; SYN and ACK within them.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_ACK: u32 = 0x12;
    vec![
        step(LOAD_BYTE, FLAGS),
        step(AND, SYN_ACK),
        Instruction { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: SYN },
        step(GIVE, 0),
        step(GIVE, u32::MAX),
    ]
}

#[cfg(test)]
mod tests;
