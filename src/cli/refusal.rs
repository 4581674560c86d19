//! Why there is no user namespace: what the kernel refused, and which setting of the system that comes from.

use rustix::io::Errno;

/// A refusal.
#[derive(Debug, Clone)]
pub struct Refusal<'a> {
    /// The call: `unshare(CLONE_NEWUSER)`, `mount` in the new namespace, `write` of its numbers.
    pub call: &'a str,
    /// Why, as the kernel says it.
    pub errno: Errno,
    /// AppArmor's profile of the process, as `/proc/PID/attr/current` has it.
    pub profile: Option<&'a str>,
}

/// What the system says of itself; `None` is a setting that this kernel doesn't have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `user.max_user_namespaces`.
    pub most: Option<u64>,
    /// `kernel.unprivileged_userns_clone`, of Debian's kernels.
    pub unprivileged: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, of Ubuntu's since 23.10.
    pub restricted: Option<u64>,
    /// Whether a seccomp filter is in force.
    pub filtered: bool,
    /// Whether no program gives more rights than there are (`no_new_privs`).
    pub no_new_rights: bool,
    /// Whether this process is root of its own namespace.
    pub root: bool,
}

impl Settings {
    /// Those of the system, whose files `read` gives, of a process that is `root` or not.
    pub fn new(read: &dyn Fn(&str) -> Option<String>, root: bool) -> Self {
        let number = |path| read(path)?.trim().parse().ok();
        let status = read("/proc/self/status").unwrap_or_default();
        let is = |field: &str, value| status.lines().any(|l| l.strip_prefix(field).map(str::trim) == Some(value));
        Self {
            most: number("/proc/sys/user/max_user_namespaces"),
            unprivileged: number("/proc/sys/kernel/unprivileged_userns_clone"),
            restricted: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            filtered: is("Seccomp:", "2"),
            no_new_rights: is("NoNewPrivs:", "1"),
            root,
        }
    }

    /// Why a call was refused and what lifts that, where it can be known.
    pub fn reason(&self, refusal: &Refusal<'_>) -> Option<String> {
        let Refusal { call, errno, profile } = refusal;
        let makes = call.starts_with("unshare");
        match *errno {
            Errno::NOSPC | Errno::USERS if makes => Some(self.too_many()),
            // Podman's profile says so of calls that it forbids.
            Errno::NOSYS if self.filtered => Some(FILTERED.into()),
            Errno::INVAL | Errno::NOSYS if makes => Some("this kernel has no user namespaces (CONFIG_USER_NS)".into()),
            Errno::PERM | Errno::ACCESS => Some(self.denied(makes, call, *profile)),
            _ => None,
        }
    }

    fn too_many(&self) -> String {
        match self.most {
            Some(0) => "user namespaces are off; as root: sysctl -w user.max_user_namespaces=10000".into(),
            Some(most) => format!(
                "there are {most} user namespaces already, or 32 one in another; as root: sysctl -w user.max_user_namespaces={}",
                most.saturating_mul(2)
            ),
            None => "there are too many user namespaces already".into(),
        }
    }

    fn denied(&self, makes: bool, call: &str, profile: Option<&str>) -> String {
        let confined = profile.filter(|name| !name.starts_with("unconfined"));
        // Ubuntu's kernel gives a namespace to everybody, and moves who has no profile that allows it to one that allows nothing.
        let moved = confined.is_some_and(|name| name.starts_with("unprivileged_userns"));
        if makes && !self.root && self.unprivileged == Some(0) {
            return "user namespaces are for root alone; as root: sysctl -w kernel.unprivileged_userns_clone=1".into();
        }
        if moved || (confined.is_none() && self.restricted == Some(1)) {
            return RESTRICTED.into();
        }
        if call == "write" && self.root {
            return "to map the numbers of all users takes CAP_SETUID, CAP_SETGID and CAP_SETFCAP, to map root's alone \
                    CAP_SETFCAP: in a container, --cap-add adds them"
                .into();
        }
        if let Some(profile) = confined {
            let name = profile.split(' ').next().unwrap_or(profile);
            return format!(
                "AppArmor's profile {name} forbids it; in a container: --security-opt apparmor=unconfined (Kubernetes: \
                 appArmorProfile: type: Unconfined)"
            );
        }
        if self.filtered {
            return FILTERED.into();
        }
        "a security module forbids it, or kiln runs in a changed root (chroot)".into()
    }

    /// Why a program that maps numbers may have failed with what it `said`.
    pub fn reason_of_program(&self, said: &str) -> Option<&'static str> {
        let refused = said.contains("Operation not permitted");
        if self.no_new_rights && refused {
            return Some(
                "no_new_privs keeps it from its rights; in a container: allow them (Kubernetes: \
                 allowPrivilegeEscalation: true)",
            );
        }
        refused.then_some(
            "its file system may be mounted with nosuid, or the numbers may not be this container's (/proc/self/uid_map)",
        )
    }
}

/// What lifts a container's limit.
const FILTERED: &str = "a seccomp profile forbids it; in a container: --security-opt seccomp=unconfined (Kubernetes: \
     seccompProfile: type: Unconfined)";

/// What lifts Ubuntu's limit.
const RESTRICTED: &str = "AppArmor gives user namespaces no rights here (Ubuntu 24.04's default); as root: give kiln a profile \
     (examples/apparmor/kiln to /etc/apparmor.d/kiln, then apparmor_parser -r /etc/apparmor.d/kiln), or: \
     sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings, the call, its error, the profile; what is said.
    type Case<'a> = (&'a Settings, &'a str, Errno, Option<&'a str>, Option<&'a str>);

    const UNSHARE: &str = "unshare(CLONE_NEWUSER)";

    #[test]
    fn what_forbids_namespaces_is_named_with_its_remedy() {
        let plain = Settings { most: Some(9), ..Settings::default() };
        let ubuntu = Settings { unprivileged: Some(1), restricted: Some(1), ..plain.clone() };
        let lifted = Settings { restricted: Some(0), filtered: true, ..ubuntu.clone() };
        let debian = Settings { unprivileged: Some(0), ..plain.clone() };
        let off = Settings { most: Some(0), ..plain.clone() };
        let filtered = Settings { filtered: true, ..plain.clone() };
        let root = Settings { root: true, unprivileged: Some(0), ..plain.clone() };
        let (perm, access) = (Errno::PERM, Errno::ACCESS);
        let sysctl = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
        let cases: [Case<'_>; 20] = [
            // Ubuntu: the namespace is there, and what is done in it is refused.
            (&ubuntu, "mount", access, Some("unprivileged_userns (enforce)"), Some(sysctl)),
            (&ubuntu, "mount", perm, Some("unprivileged_userns (enforce)"), Some("examples/apparmor/kiln")),
            (&ubuntu, "write", perm, Some("unprivileged_userns (enforce)"), Some(sysctl)),
            (&plain, "mount", access, Some("unprivileged_userns (enforce)"), Some(sysctl)),
            // Without that profile, the namespace itself is.
            (&ubuntu, UNSHARE, access, Some("unconfined"), Some(sysctl)),
            (&ubuntu, UNSHARE, perm, None, Some(sysctl)),
            // Another profile, which may be a container's.
            (&ubuntu, "mount", access, Some("docker-default (enforce)"), Some("profile docker-default forbids")),
            (&plain, "mount", access, Some("cri-containerd.apparmor.d (enforce)"), Some("apparmor=unconfined")),
            (&lifted, UNSHARE, perm, Some("unconfined"), Some("seccomp=unconfined")),
            (&debian, UNSHARE, perm, None, Some("kernel.unprivileged_userns_clone=1")),
            (&debian, "mount", perm, None, Some("a security module")),
            (&root, UNSHARE, perm, None, Some("a security module")),
            (&root, "write", perm, None, Some("CAP_SETFCAP")),
            (&off, UNSHARE, Errno::NOSPC, None, Some("user.max_user_namespaces=10000")),
            (&plain, UNSHARE, Errno::NOSPC, None, Some("user.max_user_namespaces=18")),
            (&filtered, UNSHARE, perm, None, Some("seccompProfile")),
            (&filtered, UNSHARE, Errno::NOSYS, None, Some("seccompProfile")),
            (&plain, UNSHARE, Errno::INVAL, None, Some("CONFIG_USER_NS")),
            (&plain, UNSHARE, Errno::NOMEM, None, None),
            (&plain, "setns", Errno::NOSPC, None, None),
        ];
        for (settings, call, errno, profile, expected) in cases {
            let found = settings.reason(&Refusal { call, errno, profile });
            match (&found, expected) {
                (Some(found), Some(expected)) => assert!(found.contains(expected), "{call} {errno:?}: {found}"),
                _ => assert_eq!(found.as_deref(), expected, "{call} {errno:?}"),
            }
        }
    }

    #[test]
    fn programs_without_their_rights_are_explained() {
        let said = "newuidmap: write to uid_map failed: Operation not permitted";
        let plain = Settings::default();
        assert!(plain.reason_of_program(said).unwrap().contains("nosuid"));
        let kept = Settings { no_new_rights: true, ..plain.clone() };
        assert!(kept.reason_of_program(said).unwrap().contains("allowPrivilegeEscalation"));
        assert_eq!(kept.reason_of_program("uid range [1-2) -> [5-6) not allowed"), None);
    }

    #[test]
    fn settings_are_read() {
        let read = |path: &str| match path {
            "/proc/sys/user/max_user_namespaces" => Some("7\n".to_owned()),
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns" => Some("1\n".to_owned()),
            "/proc/self/status" => Some("NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n".to_owned()),
            _ => None,
        };
        let expected = Settings {
            most: Some(7),
            unprivileged: None,
            restricted: Some(1),
            filtered: true,
            no_new_rights: true,
            root: false,
        };
        assert_eq!(Settings::new(&read, false), expected);
        assert_eq!(Settings::new(&|_| None, true), Settings { root: true, ..Settings::default() });
    }
}
