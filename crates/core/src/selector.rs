//! The small classic-BPF programs that the primary gives the kernel.
//!
//! Pure: what a program says is decided and tested here; `allcores` only attaches it. Source of the encoding:
//! the kernel's `Documentation/networking/filter.rst`.

use std::net::{IpAddr, SocketAddr};

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
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const MODULO: u16 = 0x94; // BPF_ALU | BPF_MOD | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const GIVE_ACCUMULATOR: u16 = 0x16; // BPF_RET | BPF_A
const GIVE: u16 = 0x06; // BPF_RET | BPF_K

/// `SKF_AD_OFF + SKF_AD_RANDOM`: reads a random number.
const RANDOM: u32 = (-0x1000_i32 + 56).cast_unsigned();

/// `SKF_NET_OFF`: from here on offsets count from the IP header, while others count from behind the TCP header.
const NETWORK: u32 = (-0x10_0000_i32).cast_unsigned();

const fn step(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// The indices, in a group of sockets, of those that should get connections: one at least, in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen(Vec<u32>);

impl Chosen {
    /// One, and no other.
    pub fn one(index: u32) -> Self {
        Self(vec![index])
    }

    /// These; `None` where there are none, as a program can't pick nothing.
    pub fn of(indices: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut indices: Vec<u32> = indices.into_iter().collect();
        indices.sort_unstable();
        indices.dedup();
        (!indices.is_empty()).then_some(Self(indices))
    }

    /// As they are.
    pub fn indices(&self) -> &[u32] {
        &self.0
    }
}

/// Picks one of the chosen at random.
///
/// `r = random % n`, and where the r-th index is not itself chosen, one of the chosen beyond n in its stead; so a
/// group that is all chosen, the usual case, takes three instructions, however large.
pub fn pick_random(chosen: &Chosen) -> Vec<Instruction> {
    let chosen = chosen.indices();
    // A group has at most 65,535 sockets.
    let count = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
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

/// A connection that is to reach one member of the group, whatever the others get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detour {
    /// Where it comes from: an address that nobody else can send from, as it is bound here.
    pub from: SocketAddr,
    /// The index of the member.
    pub to: u32,
}

/// Puts detours in front of a program. Packets are told by their source alone, which is that of no other connection, and
/// carry no IP options or extension headers, as they are our own.
pub fn with_detours(detours: &[Detour], program: Vec<Instruction>) -> Vec<Instruction> {
    let mut whole: Vec<Instruction> = detours.iter().flat_map(detour).collect();
    whole.extend(program);
    whole
}

fn detour(detour: &Detour) -> Vec<Instruction> {
    /// Offsets in the IP headers, and behind them that of the source port, which is what TCP begins with.
    const SOURCE_V4: u32 = 12;
    const PORT_V4: u32 = 20;
    const SOURCE_V6: u32 = 8;
    const PORT_V6: u32 = 40;
    let (version, source, port_at, words): (u32, u32, u32, Vec<u32>) = match detour.from.ip().to_canonical() {
        IpAddr::V4(ip) => (0x40, SOURCE_V4, PORT_V4, vec![ip.to_bits()]),
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
            (0x60, SOURCE_V6, PORT_V6, words.chunks(4).map(word).collect())
        }
    };
    let mut tests = vec![
        (vec![step(LOAD_BYTE, NETWORK), step(AND, 0xf0)], version),
        (vec![step(LOAD_HALF, NETWORK.wrapping_add(port_at))], detour.from.port().into()),
    ];
    for (place, word) in (source..).step_by(4).zip(words) {
        tests.push((vec![step(LOAD_ABSOLUTE, NETWORK.wrapping_add(place))], word));
    }
    // From the last test backwards, each knows how much is left to be skipped.
    let mut code = vec![step(GIVE, detour.to)];
    for (load, value) in tests.into_iter().rev() {
        let past = u8::try_from(code.len()).expect("a handful of instructions");
        let test = Instruction { code: JUMP_IF_EQUAL, jt: 0, jf: past, k: value };
        code.splice(0..0, load.into_iter().chain([test]));
    }
    code
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
