//! The same decisions as [`filter`](super::filter) in the form of the OCI runtime specification (config-linux.md, "Seccomp").

use super::bpf::Decision;
use super::decisions;
use rustix::thread::CapabilitySet;
use serde_json::{Value, json};

/// The profile for a process that keeps these capabilities. Names that the runtime's library doesn't know it leaves out, so
/// that they are refused.
pub fn profile(capabilities: CapabilitySet) -> Value {
    let architectures = if cfg!(target_arch = "aarch64") {
        ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    } else {
        ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    };
    let mut all: Vec<_> = decisions(capabilities).into_iter().collect();
    all.sort_unstable_by_key(|(name, _)| *name);
    let allowed = all.iter().filter(|(_, d)| matches!(d, Decision::Allow)).map(|(name, _)| *name);
    let mut calls = vec![json!({ "names": allowed.collect::<Vec<_>>(), "action": ALLOW })];
    calls.extend(all.iter().flat_map(|(name, decision)| special(name, decision)));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "architectures": architectures, "syscalls": calls })
}

const ALLOW: &str = "SCMP_ACT_ALLOW";

/// The rules of a call that isn't simply allowed; any one that fits is enough.
fn special(name: &str, decision: &Decision) -> Vec<Value> {
    let with = |arg: Value| json!({ "names": [name], "action": ALLOW, "args": [arg] });
    match decision {
        // A runtime's filter has no listener.
        Decision::Allow
        | Decision::Notify
        | Decision::NotifyWith { .. }
        | Decision::NotifyIf { .. }
        | Decision::NotifyUnlessNull { .. }
        // A runtime's process loses CAP_NET_RAW itself.
        | Decision::Families { .. }
        | Decision::NotRaw => Vec::new(),
        Decision::Errno(errno) => vec![json!({ "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno })],
        Decision::Within(ranges) => {
            let values = ranges.iter().flat_map(|(first, last)| *first..=*last);
            values.map(|value| with(json!({ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }))).collect()
        }
        Decision::Without(mask) => {
            vec![with(json!({ "index": 0, "value": mask, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_filter_does() {
        let profile = profile(crate::sandbox::program::CAPABILITIES);
        let rules = |name: &str| -> Vec<&Value> {
            let calls = profile["syscalls"].as_array().unwrap();
            calls.iter().filter(|rule| rule["names"].as_array().unwrap().iter().any(|n| n == name)).collect()
        };
        assert_eq!(profile["defaultErrnoRet"], 1);
        assert_eq!((rules("read").len(), &rules("read")[0]["args"]), (1, &Value::Null));
        assert!(rules("mount").is_empty() && rules("keyctl").is_empty());
        assert_eq!(rules("clone3")[0]["errnoRet"], libc::ENOSYS);
        assert_eq!(rules("clone")[0]["args"][0]["value"], 0x7e02_0000);
        let families: Vec<u64> = rules("socket").iter().map(|r| r["args"][0]["value"].as_u64().unwrap()).collect();
        assert!(families.contains(&2) && !families.contains(&38) && !families.contains(&40), "{families:?}");
        assert_eq!(rules("personality").len(), 5);
    }
}
