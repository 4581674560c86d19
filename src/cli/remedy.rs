//! What would let processes run isolated where no isolation level works, said before the reasons.

use super::env::Env;
use super::refusal::Settings;
use super::rootless;
use crate::sandbox::probe::needed_capabilities;
use std::path::Path;

/// Where kiln runs, as far as a remedy depends on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Situation {
    /// Kiln is root, outside of a user namespace that it made.
    root: bool,
    /// A capability is missing that each level needs.
    lacks_capabilities: bool,
    /// Kiln is in a container.
    container: bool,
    /// The container is one of a Kubernetes pod's.
    pod: bool,
}

impl Situation {
    /// Looks at the place.
    pub fn of(env: &Env) -> Self {
        let pod = env.set_var("KUBERNETES_SERVICE_HOST").is_some();
        let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
        let Settings { filtered, no_new_rights, .. } =
            Settings::new(&|path| std::fs::read_to_string(path).ok(), env.uid == 0);
        Self {
            root: env.uid == 0,
            lacks_capabilities: rootless::lacks_capabilities(),
            container: pod || marked || filtered || no_new_rights,
            pod,
        }
    }

    /// What helps, the best first.
    pub fn remedies(self) -> Vec<String> {
        let mut remedies = Vec::new();
        if !self.container {
            let who = if self.root { "root CAP_SYS_ADMIN" } else { "this user user namespaces" };
            return vec![format!("give {who}; the reason for each level says what is in its way")];
        }
        remedies.push(match (self.root, self.lacks_capabilities, self.pod) {
            (false, _, true) => format!(
                "run kiln's own image as root with the runtime's default capabilities: in the pod's securityContext runAsUser: 0, and \
                 no capabilities.drop (Pod Security level baseline; allowPrivilegeEscalation may be false). It needs {}",
                needed_capabilities()
            ),
            (false, _, false) => format!(
                "run kiln's own image as root with the default capabilities: without --user and --cap-drop. It needs {}",
                needed_capabilities()
            ),
            (true, true, true) => {
                format!("leave the container the runtime's default capabilities (no capabilities.drop): it needs {}", needed_capabilities())
            }
            (true, true, false) => {
                format!("leave the container the default capabilities (no --cap-drop): it needs {}", needed_capabilities())
            }
            (true, false, _) => "run kiln's own image, whose containers need no more than Docker's defaults; in another \
                                 container that is for this build alone, add --force-in-place"
                .to_owned(),
        });
        remedies.push(match self.pod {
            true => "or allow user namespaces: seccompProfile: type: Unconfined (or Localhost, with a profile that allows clone, \
                     unshare, setns and mount), and appArmorProfile: type: Unconfined where AppArmor is on"
                .to_owned(),
            false => "or allow user namespaces: --security-opt seccomp=unconfined, and --security-opt apparmor=unconfined where \
                      AppArmor is on"
                .to_owned(),
        });
        remedies.push("a build without RUN needs none of this".to_owned());
        remedies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_depends_on_the_place() {
        let here = Situation::default();
        let container = Situation { container: true, ..here };
        let pod = Situation { pod: true, ..container };
        let root = |place| Situation { root: true, ..place };
        let bare = |place| Situation { lacks_capabilities: true, ..root(place) };
        for (place, first) in [
            (here, "this user user namespaces"),
            (root(here), "root CAP_SYS_ADMIN"),
            (container, "without --user and --cap-drop"),
            (pod, "runAsUser: 0"),
            (bare(container), "no --cap-drop"),
            (bare(pod), "no capabilities.drop"),
            (root(container), "--force-in-place"),
            (root(pod), "kiln's own image"),
        ] {
            let remedies = place.remedies();
            assert!(remedies[0].contains(first), "{place:?}: {remedies:?}");
            assert_eq!(remedies.len(), if place.container { 3 } else { 1 });
            assert_eq!(
                remedies.concat().contains("SETPCAP"),
                place.container && (!place.root || place.lacks_capabilities)
            );
            assert_eq!(remedies.concat().contains("seccompProfile"), place.pod, "{remedies:?}");
        }
    }
}
