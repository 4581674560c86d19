//! Decisions about system calls to the kernel's filter language (classic BPF).
//!
//! Numbers with the same decision are merged into ranges, and a balanced tree of comparisons finds the range: eight
//! comparisons or so, and some hundred instructions in all, where a list of all calls would take five hundred. The
//! kernel goes through the filter once for each call number when it is loaded, so this is what a sandbox's start pays for.

use libc::sock_filter;
use std::collections::BTreeMap;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is made.
    Allow,
    /// It fails with this error.
    Errno(i32),
    /// It is made if the first argument's lower half lies in one of these ranges, else it fails with `EPERM`.
    Within(&'static [(u32, u32)]),
    /// It is made if the lower half of the first argument, an address family, lies in one of the ranges `any`, or in one of the ranges
    /// `not_raw` and the second argument asks for no raw socket; else it fails with `EPERM`.
    Families {
        /// Families of which every type of socket is made.
        any: &'static [(u32, u32)],
        /// Families of which no raw one is made.
        not_raw: &'static [(u32, u32)],
    },
    /// It is made unless the second argument asks for a raw socket; then it fails with `EPERM`.
    NotRaw,
    /// It is made if the first argument's lower half has none of these bits, else it fails with `EPERM`.
    Without(u32),
    /// The filter's listener is told.
    Notify,
    /// The listener is told if this argument's lower half has any of these bits; else it is made.
    NotifyWith {
        /// Which argument, from 0 on.
        argument: u8,
        /// The bits.
        bits: u32,
    },
    /// The listener is told if this argument's lower half is this value; else it is made.
    NotifyIf {
        /// Which argument, from 0 on.
        argument: u8,
        /// The value.
        value: u32,
    },
    /// The listener is told unless all bits of this argument, a pointer, are 0; then it is made.
    NotifyUnlessNull {
        /// Which argument, from 0 on.
        argument: u8,
    },
}

/// The offset of the call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// The offset of the architecture.
const ARCHITECTURE: u32 = 4;
/// The offset of the first argument's lower half, on little-endian machines.
const ARGUMENT: u32 = 16;

/// The bits of a socket's type that aren't flags (`SOCK_TYPE_MASK` in the kernel).
pub(in crate::sandbox) const SOCKET_TYPES: u32 = 0xf;

/// An old name of packet sockets, which is a type of AF_INET's.
const SOCK_PACKET: u32 = 10;

/// The conditional jumps reach that far.
const REACH: usize = u8::MAX as usize;

/// What becomes of calls that no decision names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Others {
    /// Those whose number is below the highest named one.
    pub(super) known: Decision,
    /// Those above, which are newer.
    pub(super) newer: Decision,
    /// Those of an architecture that isn't named.
    pub(super) foreign: u32,
}

/// They are refused: the former with `EPERM`, the latter with `ENOSYS`. A call of any other architecture ends the process.
pub(super) const REFUSED: Others = Others {
    known: Decision::Errno(libc::EPERM),
    newer: Decision::Errno(libc::ENOSYS),
    foreign: libc::SECCOMP_RET_KILL_PROCESS,
};

/// They are made.
pub(super) const ALLOWED: Others =
    Others { known: Decision::Allow, newer: Decision::Allow, foreign: libc::SECCOMP_RET_ALLOW };

/// A filter for an architecture and its sibling (`AUDIT_ARCH_*`, decisions by number).
pub(super) fn filter(architectures: &[(u32, BTreeMap<u32, Decision>)], others: Others) -> Vec<sock_filter> {
    let mut out = vec![load(ARCHITECTURE)];
    for (architecture, decisions) in architectures {
        let mut code = vec![load(NUMBER)];
        code.extend(tree(&ranges(decisions, others)));
        out.push(jump(libc::BPF_JEQ, *architecture, 1, 0));
        out.push(skip(code.len()));
        out.extend(code);
    }
    out.push(give(others.foreign));
    out
}

/// Where each range starts and what happens in it; the first starts at 0, the last has no end.
fn ranges(decisions: &BTreeMap<u32, Decision>, others: Others) -> Vec<(u32, Decision)> {
    let mut ranges = vec![(0, others.known)];
    for (number, decision) in decisions {
        start(&mut ranges, *number, *decision);
        start(&mut ranges, number + 1, others.known);
    }
    let newer = decisions.keys().next_back().map_or(0, |highest| highest + 1);
    start(&mut ranges, newer, others.newer);
    ranges
}

/// Lets another decision begin at a number not below the last one's.
fn start(ranges: &mut Vec<(u32, Decision)>, number: u32, decision: Decision) {
    if ranges.last().is_some_and(|(at, _)| *at == number) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, before)| *before != decision) {
        ranges.push((number, decision));
    }
}

/// Code that finds the range of the loaded value and does what is decided there.
fn tree(ranges: &[(u32, Decision)]) -> Vec<sock_filter> {
    match ranges {
        [] => Vec::new(),
        [(_, decision)] => leaf(*decision),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let middle = high.first().map_or(0, |(at, _)| *at);
            let (low, high) = (tree(low), tree(high));
            let mut out = match u8::try_from(low.len()) {
                Ok(over) => vec![jump(libc::BPF_JGE, middle, over, 0)],
                Err(_) => vec![jump(libc::BPF_JGE, middle, 0, 1), skip(low.len())],
            };
            out.extend(low);
            out.extend(high);
            out
        }
    }
}

fn leaf(decision: Decision) -> Vec<sock_filter> {
    match decision {
        Decision::Allow => vec![give(libc::SECCOMP_RET_ALLOW)],
        Decision::Errno(errno) => vec![give(libc::SECCOMP_RET_ERRNO | errno as u32)],
        Decision::Without(bits) => vec![
            load(ARGUMENT),
            jump(libc::BPF_JSET, bits, 0, 1),
            give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            give(libc::SECCOMP_RET_ALLOW),
        ],
        Decision::Notify => vec![give(libc::SECCOMP_RET_USER_NOTIF)],
        Decision::NotifyWith { argument, bits } => notify(argument, libc::BPF_JSET, bits),
        Decision::NotifyIf { argument, value } => notify(argument, libc::BPF_JEQ, value),
        Decision::NotifyUnlessNull { argument } => vec![
            load(ARGUMENT + 8 * u32::from(argument)),
            jump(libc::BPF_JEQ, 0, 0, 2),
            load(ARGUMENT + 8 * u32::from(argument) + 4),
            jump(libc::BPF_JEQ, 0, 1, 0),
            give(libc::SECCOMP_RET_USER_NOTIF),
            give(libc::SECCOMP_RET_ALLOW),
        ],
        Decision::Within(allowed) => within(&allowed.iter().map(|range| (*range, Decision::Allow)).collect::<Vec<_>>()),
        Decision::Families { any, not_raw } => {
            let any = any.iter().map(|range| (*range, Decision::Allow));
            let mut all: Vec<_> = any.chain(not_raw.iter().map(|range| (*range, Decision::NotRaw))).collect();
            all.sort_unstable_by_key(|(range, _)| *range);
            within(&all)
        }
        Decision::NotRaw => vec![
            load(ARGUMENT + 8),
            sock_filter { code: (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, jt: 0, jf: 0, k: SOCKET_TYPES },
            jump(libc::BPF_JEQ, libc::SOCK_RAW.cast_unsigned(), 2, 0),
            jump(libc::BPF_JEQ, SOCK_PACKET, 1, 0),
            give(libc::SECCOMP_RET_ALLOW),
            give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        ],
    }
}

/// What is decided by the range of the first argument's lower half; in no range, `EPERM`.
fn within(decided: &[((u32, u32), Decision)]) -> Vec<sock_filter> {
    let mut ranges = vec![(0, Decision::Errno(libc::EPERM))];
    for ((first, last), decision) in decided {
        start(&mut ranges, *first, *decision);
        if let Some(next) = last.checked_add(1) {
            start(&mut ranges, next, Decision::Errno(libc::EPERM));
        }
    }
    let mut out = vec![load(ARGUMENT)];
    out.extend(tree(&ranges));
    out
}

fn notify(argument: u8, comparison: u32, value: u32) -> Vec<sock_filter> {
    vec![
        load(ARGUMENT + 8 * u32::from(argument)),
        jump(comparison, value, 0, 1),
        give(libc::SECCOMP_RET_USER_NOTIF),
        give(libc::SECCOMP_RET_ALLOW),
    ]
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: offset }
}

fn jump(kind: u32, value: u32, yes: u8, no: u8) -> sock_filter {
    debug_assert!(usize::from(yes) <= REACH);
    sock_filter { code: (libc::BPF_JMP | kind | libc::BPF_K) as u16, jt: yes, jf: no, k: value }
}

fn skip(instructions: usize) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JA) as u16, jt: 0, jf: 0, k: instructions as u32 }
}

fn give(value: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: value }
}

/// What a filter answers, worked out as the kernel would; for tests.
#[cfg(test)]
pub(super) fn answer(filter: &[sock_filter], architecture: u32, number: u32, [first, second]: [u64; 2]) -> u32 {
    const UPPER: u32 = ARGUMENT + 4;
    const SECOND: u32 = ARGUMENT + 8;
    let (mut at, mut loaded) = (0, 0);
    loop {
        let i = filter[at];
        at += 1;
        match u32::from(i.code) {
            0x20 => {
                loaded = match i.k {
                    NUMBER => number,
                    ARCHITECTURE => architecture,
                    ARGUMENT => first as u32,
                    UPPER => (first >> 32) as u32,
                    SECOND => second as u32,
                    other => panic!("load of {other}"),
                }
            }
            0x54 => loaded &= i.k,
            0x06 => return i.k,
            0x05 => at += i.k as usize,
            code => {
                let yes = match code {
                    0x15 => loaded == i.k,
                    0x35 => loaded >= i.k,
                    0x45 => loaded & i.k != 0,
                    other => panic!("instruction {other:#x}"),
                };
                at += usize::from(if yes { i.jt } else { i.jf });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn arguments_are_checked() {
        let decisions = BTreeMap::from([
            (3, Decision::Within(&[(1, 2), (7, 7), (u32::MAX, u32::MAX)])),
            (4, Decision::Without(0b100)),
            (6, Decision::NotifyWith { argument: 0, bits: 0b11 }),
            (7, Decision::Notify),
            (8, Decision::NotifyIf { argument: 0, value: 10 }),
            (1, Decision::NotifyUnlessNull { argument: 0 }),
        ]);
        let filter = filter(&[(9, decisions)], REFUSED);
        for (number, argument, expected) in [
            (3, 0, EPERM),
            (3, 1, ALLOW),
            (3, 2, ALLOW),
            (3, 3, EPERM),
            (3, 7, ALLOW),
            (3, 8, EPERM),
            (3, u64::from(u32::MAX), ALLOW),
            (4, 0b1011, ALLOW),
            (4, 0b0100, EPERM),
            (2, 0, EPERM),
            (5, 0, EPERM),
            (6, 0b100, ALLOW),
            (6, 0b110, libc::SECCOMP_RET_USER_NOTIF),
            (7, 0, libc::SECCOMP_RET_USER_NOTIF),
            (8, 10, libc::SECCOMP_RET_USER_NOTIF),
            (8, 11, ALLOW),
            (1, 0, ALLOW),
            (1, 1, libc::SECCOMP_RET_USER_NOTIF),
            (1, 1 << 32, libc::SECCOMP_RET_USER_NOTIF),
            (9, 0, ENOSYS),
        ] {
            assert_eq!(answer(&filter, 9, number, [argument, 0]), expected, "{number} {argument}");
        }
        assert_eq!(answer(&filter, 8, 3, [1, 0]), libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn a_filter_may_let_through_what_it_does_not_name() {
        let filter = filter(&[(9, BTreeMap::from([(4, Decision::Notify)]))], ALLOWED);
        let answers =
            [(9, 3), (9, 4), (9, 5), (8, 4)].map(|(architecture, n)| answer(&filter, architecture, n, [0; 2]));
        assert_eq!(answers, [ALLOW, libc::SECCOMP_RET_USER_NOTIF, ALLOW, ALLOW]);
    }

    #[test]
    fn a_refused_highest_number_ends_its_range() {
        let filter = filter(&[(1, BTreeMap::from([(5, Decision::Errno(libc::EPERM))]))], REFUSED);
        assert_eq!([0, 5, 6].map(|number| answer(&filter, 1, number, [0; 2])), [EPERM, EPERM, ENOSYS]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn every_number_gets_its_decision(named in proptest::collection::btree_map(
            0u32..2000, prop_oneof![Just(Decision::Allow), Just(Decision::Errno(1)), Just(Decision::Errno(38))], 1..900,
        )) {
            let highest = *named.keys().next_back().unwrap();
            let filter = filter(&[(1, BTreeMap::from([(0, Decision::Allow)])), (2, named.clone())], REFUSED);
            for number in 0..2100 {
                let expected = match named.get(&number) {
                    Some(Decision::Allow) => ALLOW,
                    Some(Decision::Errno(e)) => libc::SECCOMP_RET_ERRNO | *e as u32,
                    Some(_) => unreachable!(),
                    None if number > highest => ENOSYS,
                    None => EPERM,
                };
                prop_assert_eq!(answer(&filter, 2, number, [0; 2]), expected);
            }
        }
    }
}
