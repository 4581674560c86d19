//! Docker's default seccomp profile as a filter of the kernel's.
//!
//! | file | what |
//! |---|---|
//! | `profile` | which calls, under which conditions |
//! | `numbers.txt` | their numbers, by architecture |
//! | `bpf` | decisions to a filter |
//! | [`oci`] | decisions to the form that an OCI runtime takes |
//!
//! 32-bit programs (i386 on x86_64, arm on aarch64) run under the same profile; x32 ones don't run.

mod bpf;
pub mod oci;
mod profile;

use bpf::Decision;
pub(super) use bpf::SOCKET_TYPES;
use libc::sock_filter;
use rustix::thread::CapabilitySet;
use std::collections::{BTreeMap, HashMap};

const NUMBERS: &str = include_str!("numbers.txt");

/// The kernel's name of an architecture (`AUDIT_ARCH_*`) and the column of its numbers.
#[derive(Debug, Clone, Copy)]
struct Architecture {
    audit: u32,
    column: usize,
}

const X86_64: Architecture = Architecture { audit: 0xc000_003e, column: 0 };
const I386: Architecture = Architecture { audit: 0x4000_0003, column: 1 };
const AARCH64: Architecture = Architecture { audit: 0xc000_00b7, column: 2 };
const ARM: Architecture = Architecture { audit: 0x4000_0028, column: 3 };

/// Those that kiln was made for.
const OWN: [Architecture; 2] = if cfg!(target_arch = "aarch64") { [AARCH64, ARM] } else { [X86_64, I386] };

/// The filter for a process that keeps these capabilities, for the architecture that kiln was made for.
pub fn filter(capabilities: CapabilitySet) -> Vec<sock_filter> {
    filter_for(&OWN, capabilities)
}

/// The same without raw and packet sockets, as if CAP_NET_RAW were missing. What 32-bit programs ask `socketcall` for no filter sees: where
/// a [`notifier`] that tells of it `is_heard`, it is let through, else no socket is made by it.
pub fn without_raw_sockets(capabilities: CapabilitySet, is_heard: bool) -> Vec<sock_filter> {
    filter_of(&OWN, &decisions_without_raw_sockets(capabilities, is_heard))
}

fn decisions_without_raw_sockets(capabilities: CapabilitySet, is_heard: bool) -> HashMap<&'static str, Decision> {
    let mut decisions = decisions(capabilities);
    let families = Decision::Families { any: &profile::ANY_SOCKET, not_raw: &profile::NO_RAW_SOCKET };
    decisions.insert("socket", families);
    if !is_heard {
        // Everything but `SYS_SOCKET`.
        decisions.insert("socketcall", Decision::Within(&[(2, u32::MAX)]));
    }
    decisions
}

/// The same, with no socket but Unix ones: what takes the place of a network namespace.
pub fn without_network(capabilities: CapabilitySet) -> Vec<sock_filter> {
    let mut decisions = decisions(capabilities);
    decisions.insert("socket", Decision::Within(&[(1, 1)]));
    // The family stands behind a pointer, where no filter sees it.
    decisions.remove("socketcall");
    filter_of(&OWN, &decisions)
}

fn filter_for(architectures: &[Architecture], capabilities: CapabilitySet) -> Vec<sock_filter> {
    filter_of(architectures, &decisions(capabilities))
}

fn filter_of(architectures: &[Architecture], decisions: &HashMap<&'static str, Decision>) -> Vec<sock_filter> {
    let numbered: Vec<_> = architectures.iter().map(|a| (a.audit, numbered(decisions, *a))).collect();
    bpf::filter(&numbered, bpf::REFUSED)
}

/// The number of a call on the machine's own architecture, which may not have it.
pub fn number(name: &str) -> Option<libc::c_long> {
    let own = if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 };
    let line = NUMBERS.lines().find(|line| line.split(' ').next() == Some(name))?;
    line.split(' ').nth(own.column + 1)?.parse().ok()
}

/// The numbers of a call on the architectures that kiln's programs may have: the kernel's name of each (`AUDIT_ARCH_*`), the
/// number, and whether it is the one of 32 bits.
pub fn numbers(name: &str) -> impl Iterator<Item = (u32, libc::c_long, bool)> {
    let line = NUMBERS.lines().find(|line| line.split(' ').next() == Some(name)).unwrap_or_default();
    let columns = OWN.into_iter().zip([false, true]);
    columns.filter_map(move |(of, narrow)| Some((of.audit, line.split(' ').nth(of.column + 1)?.parse().ok()?, narrow)))
}

/// Whether a process may make sockets of this address family.
pub fn allows_family(family: u32) -> bool {
    let ranges = profile::WITH_ARGUMENT.iter().filter(|(name, _)| *name == "socket").flat_map(|(_, ranges)| *ranges);
    ranges.into_iter().any(|(first, last)| (*first..=*last).contains(&family))
}

/// When a filter's listener is told of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// If the lower half of this argument (the first is 0) has any of these bits.
    With(u8, u32),
    /// If the lower half of this argument is this value.
    Is(u8, u32),
    /// If this argument is a pointer to something.
    Points(u8),
    /// If the lower half of this argument is not 0.
    Nonzero(u8),
}

/// A filter that tells its listener of these calls, by name, and lets everything else through; names that the architecture
/// doesn't have are left out. To be loaded (by [`Step::Notify`](crate::sys::child::Step::Notify)) beside [`filter`], whose
/// refusals go first. Programs of the machine's 32-bit architecture are let through: their listener would have to know
/// another set of numbers and structures.
pub fn notifier(calls: &[(&'static str, When)]) -> Vec<sock_filter> {
    notifier_of(calls, &[])
}

/// The same, where the listener is told of the calls `both` also if a program of the 32-bit architecture makes them.
pub fn notifier_of(calls: &[(&'static str, When)], both: &[(&'static str, When)]) -> Vec<sock_filter> {
    let [own, other] = OWN;
    let all = told(calls.iter().chain(both));
    bpf::filter(&[(own.audit, numbered(&all, own)), (other.audit, numbered(&told(both.iter()), other))], bpf::ALLOWED)
}

fn told<'a>(calls: impl Iterator<Item = &'a (&'static str, When)>) -> HashMap<&'static str, Decision> {
    let decision = |when| match when {
        When::Always => Decision::Notify,
        When::With(argument, bits) => Decision::NotifyWith { argument, bits },
        When::Is(argument, value) => Decision::NotifyIf { argument, value },
        When::Points(argument) => Decision::NotifyUnlessNull { argument },
        When::Nonzero(argument) => Decision::NotifyWith { argument, bits: u32::MAX },
    };
    calls.map(|(name, when)| (*name, decision(*when))).collect()
}

/// What is decided, by name.
fn decisions(capabilities: CapabilitySet) -> HashMap<&'static str, Decision> {
    let mut decisions: HashMap<_, _> = profile::ALWAYS.split_whitespace().map(|n| (n, Decision::Allow)).collect();
    decisions.extend(profile::WITH_ARGUMENT.iter().map(|(name, ranges)| (*name, Decision::Within(ranges))));
    decisions.insert(profile::CLONE, Decision::Without(profile::CLONE_NAMESPACES));
    decisions.insert(profile::CLONE3, Decision::Errno(libc::ENOSYS));
    for (capability, names) in profile::WITH {
        if capabilities.contains(capability) {
            decisions.extend(names.split_whitespace().map(|n| (n, Decision::Allow)));
        }
    }
    decisions
}

fn numbered(decisions: &HashMap<&str, Decision>, architecture: Architecture) -> BTreeMap<u32, Decision> {
    let mut by_number = BTreeMap::new();
    for line in NUMBERS.lines() {
        let mut fields = line.split(' ');
        let (Some(name), Some(number)) = (fields.next(), fields.nth(architecture.column)) else { continue };
        if let (Some(decision), Ok(number)) = (decisions.get(name), number.parse()) {
            by_number.insert(number, *decision);
        }
    }
    by_number
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn check(capabilities: CapabilitySet, cases: &[(Architecture, u32, u64, u32)]) {
        for pair in [[X86_64, I386], [AARCH64, ARM]] {
            let filter = filter_for(&pair, capabilities);
            for (architecture, number, argument, expected) in cases {
                if pair.iter().any(|a| a.audit == architecture.audit) {
                    let got = bpf::answer(&filter, architecture.audit, *number, [*argument, 0]);
                    assert_eq!(got, *expected, "{architecture:?} {number} {argument:#x}");
                }
            }
        }
    }

    #[test]
    fn an_ordinary_container() {
        check(
            crate::sandbox::program::CAPABILITIES,
            &[
                (X86_64, 0, 0, ALLOW),              // read
                (X86_64, 59, 0, ALLOW),             // execve
                (X86_64, 161, 0, ALLOW),            // chroot: the capability is in the default set
                (X86_64, 165, 0, EPERM),            // mount
                (X86_64, 272, 0, EPERM),            // unshare
                (X86_64, 250, 0, EPERM),            // keyctl
                (X86_64, 425, 0, EPERM),            // io_uring_setup
                (X86_64, 56, 0x11, ALLOW),          // clone as fork
                (X86_64, 56, 0x1000_0000, EPERM),   // clone with CLONE_NEWUSER
                (X86_64, 435, 0, ENOSYS),           // clone3
                (X86_64, 41, 2, ALLOW),             // socket AF_INET
                (X86_64, 41, 38, EPERM),            // socket AF_ALG
                (X86_64, 41, 40, EPERM),            // socket AF_VSOCK
                (X86_64, 135, 0xffff_ffff, ALLOW),  // personality: asking
                (X86_64, 135, 0x40000, EPERM),      // personality ADDR_NO_RANDOMIZE
                (X86_64, 467, 0, ENOSYS),           // newer than the profile
                (X86_64, 0x4000_0000, 0, ENOSYS),   // x32
                (I386, 3, 0, ALLOW),                // read
                (I386, 21, 0, EPERM),               // mount
                (I386, 102, 0, ALLOW),              // socketcall
                (I386, 359, 38, EPERM),             // socket AF_ALG
                (AARCH64, 63, 0, ALLOW),            // read
                (AARCH64, 40, 0, EPERM),            // mount
                (AARCH64, 220, 0x0002_0000, EPERM), // clone with CLONE_NEWNS
                (ARM, 3, 0, ALLOW),                 // read
                (ARM, 0x0f_0005, 0, ALLOW),         // set_tls
            ],
        );
    }

    #[test]
    fn without_raw_sockets_all_others_are_made() {
        let decisions = decisions_without_raw_sockets(crate::sandbox::program::CAPABILITIES, false);
        let plain = filter_for(&[X86_64, I386], crate::sandbox::program::CAPABILITIES);
        let filter = filter_of(&[X86_64, I386], &decisions);
        let answer = |filter: &[sock_filter], number, family, kind: i32| {
            bpf::answer(filter, if number == 41 { X86_64 } else { I386 }.audit, number, [family, kind as u64])
        };
        assert_eq!([1, 3].map(|call| answer(&filter, 102, call, 0)), [EPERM, ALLOW], "socketcall");
        for number in [41, 359] {
            for family in 0..50 {
                for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC] {
                    let expected =
                        if [17, 44].contains(&family) { EPERM } else { answer(&plain, number, family, kind) };
                    assert_eq!(answer(&filter, number, family, kind), expected, "{number} {family} {kind}");
                }
                for kind in [libc::SOCK_RAW, 10, libc::SOCK_RAW | libc::SOCK_NONBLOCK] {
                    let expected = if [1, 16, 29].contains(&family) { ALLOW } else { EPERM };
                    assert_eq!(answer(&filter, number, family, kind), expected, "{number} {family} {kind}");
                }
            }
        }
    }

    #[test]
    fn capabilities_open_calls() {
        let all = CapabilitySet::all();
        check(all, &[(X86_64, 165, 0, ALLOW), (X86_64, 435, 0, ALLOW), (X86_64, 56, 0x1000_0000, ALLOW)]);
        check(CapabilitySet::empty(), &[(X86_64, 161, 0, EPERM)]);
    }

    #[test]
    fn every_name_of_the_profile_has_a_number() {
        let known: Vec<&str> = NUMBERS.lines().filter_map(|l| l.split(' ').next()).collect();
        // Not on these architectures' lists under that name.
        let elsewhere = ["riscv_hwprobe", "utimensat_time64", "arm_fadvise64_64"];
        for name in decisions(CapabilitySet::all()).keys() {
            assert!(known.contains(name) || elsewhere.contains(name), "{name}");
        }
    }

    #[test]
    fn a_listener_is_told_of_what_is_named() {
        let filter = notifier(&[("chown", When::Always), ("fchownat", When::Always), ("openat", When::With(2, 0o100))]);
        let own = if cfg!(target_arch = "aarch64") { AARCH64 } else { X86_64 };
        let answer = |name, value| bpf::answer(&filter, own.audit, number(name).unwrap() as u32, [value, 0]);
        assert_eq!(answer("fchownat", 0), libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(answer("read", 0), ALLOW);
        assert_eq!(bpf::answer(&filter, I386.audit, 182, [0; 2]), ALLOW, "chown of a 32-bit program");
        let filter = notifier_of(&[("mkdir", When::Always)], &[("chown", When::Always)]);
        let told = libc::SECCOMP_RET_USER_NOTIF;
        for (name, expected) in [("mkdir", [told, ALLOW]), ("chown", [told, told]), ("read", [ALLOW, ALLOW])] {
            let answers: Vec<u32> =
                numbers(name).map(|(of, nr, _)| bpf::answer(&filter, of, nr as u32, [0; 2])).collect();
            assert!(answers.is_empty() || answers == expected || cfg!(target_arch = "aarch64"), "{name} {answers:?}");
        }
    }

    #[test]
    fn the_filter_is_short() {
        assert!(filter(crate::sandbox::program::CAPABILITIES).len() < 700);
    }
}
