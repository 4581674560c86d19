//! `--network=pasta` and `slirp4netns`: processes reach what kiln's machine reaches, have none of its devices, and don't reach its
//! loopback device. The machine is a network namespace of the test's own, which leads nowhere. With root, Debian's passt,
//! slirp4netns, iproute2, util-linux and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Place {
    folder: tempfile::TempDir,
}

const NEEDS: [&str; 7] = [
    "/usr/bin/pasta",
    "/usr/bin/slirp4netns",
    "/usr/sbin/ip",
    "/usr/bin/unshare",
    "/usr/bin/setpriv",
    "/bin/busybox",
    "/dev/net/tun",
];

/// A machine with a server on an address of its own and one on its loopback device, and a name server that nobody asks.
const MACHINE: &str = "set -e
mount --bind resolv.conf /etc/resolv.conf
mount -t tmpfs none /dev/net
mknod -m 666 /dev/net/tun c 10 200
ip link set lo up
ip tuntap add uplink mode tap
ip addr add 192.0.2.9/24 dev uplink
ip addr add 198.51.100.7/32 dev uplink
ip link set uplink up
ip route add default via 192.0.2.1 dev uplink
busybox httpd -p 198.51.100.7:8000 -h served
busybox httpd -p 127.0.0.1:8001 -h served
helpers() { ps -A -o comm= | grep -E 'pasta|passt|slirp' | grep -v '<defunct>' || true; }
";

impl Place {
    fn new() -> Option<Self> {
        let missing = NEEDS.into_iter().find(|file| !Path::new(file).exists());
        if !rustix::process::geteuid().is_root() || missing.is_some() {
            println!(
                "skipped: it needs root and {NEEDS:?} (packages passt, slirp4netns, iproute2, util-linux, busybox-static)"
            );
            return None;
        }
        let place = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["context", "served", "users"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        std::os::unix::fs::chown(place.path("users"), Some(54321), Some(54321)).unwrap();
        fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_kiln"), place.path("kiln")).unwrap();
        fs::write(place.path("served/f"), "served\n").unwrap();
        fs::write(place.path("resolv.conf"), "nameserver 127.0.0.53\nsearch example.org\n").unwrap();
        fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dockerfile(&self, steps: &str) {
        let base = "FROM scratch\nCOPY --chmod=755 busybox /bin/sh\nCOPY --chmod=755 busybox /bin/busybox\n";
        fs::write(self.path("context/Dockerfile"), format!("{base}{steps}")).unwrap();
    }

    /// A script on the machine; `kiln` is the binary with all rights, `kiln_inside` without those over mounts, `kiln_user` as a user without a range
    /// of numbers.
    fn script(&self, script: &str) -> Output {
        let names = "kiln() { ./kiln \"$@\"; }
kiln_inside() { setpriv --bounding-set=-sys_admin --inh-caps=-all ./kiln \"$@\"; }
kiln_user() { KILN_ROOT=users/store HOME=users setpriv --reuid 54321 --regid 54321 --clear-groups ./kiln \"$@\"; }
";
        Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"])
            .arg(format!("{MACHINE}{names}{script}"))
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KILN_ROOT", self.path("store"))
            .env("HOME", self.path(""))
            .output()
            .unwrap()
    }
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const HELPERS: [&str; 2] = ["pasta", "slirp4netns"];

#[test]
fn steps_reach_the_world_and_not_the_machine() {
    let Some(place) = Place::new() else { return };
    place.dockerfile(
        "RUN busybox wget -qO- http://198.51.100.7:8000/f && echo reached\n\
         RUN busybox wget -T 3 -qO- http://127.0.0.1:8001/f || echo loopback is its own\n\
         RUN ! busybox grep uplink: /proc/net/dev || test $(busybox grep -c : /proc/net/dev) = 2; busybox cat /etc/resolv.conf\n\
         RUN busybox ls /proc/self/fd | busybox wc -l | busybox sed 's/^/open: /'\n\
         RUN --network=none test $(busybox grep -c : /proc/net/dev) = 1 && ! busybox wget -T 3 -qO- http://198.51.100.7:8000/f\n\
         RUN --network=host busybox wget -qO- http://127.0.0.1:8001/f && echo the host\n",
    );
    for (helper, server) in HELPERS.into_iter().zip(["169.254.1.1", "10.0.2.3"]) {
        for kiln in ["kiln", "kiln_inside", "kiln_user"] {
            let build = format!("build --no-cache --progress=plain --allow network.host --network={helper} context");
            let built = place.script(&format!("{kiln} {build} && echo helpers: $(helpers) end"));
            let said = text(&built);
            assert!(built.status.success(), "{helper}, {kiln}: {said}");
            for line in ["served", "reached", "loopback is its own", "search example.org", "open: 4", "the host"] {
                assert!(said.lines().any(|l| l.ends_with(line)), "{helper}, {kiln}, {line}: {said}");
            }
            assert!(said.contains(&format!("nameserver {server}")) && !said.contains("nameserver 127"), "{said}");
            assert!(said.contains("helpers: end"), "{helper}, {kiln}: {said}");
        }
    }
}

#[test]
fn helpers_end_with_a_build_that_fails_or_is_killed() {
    let Some(place) = Place::new() else { return };
    for helper in HELPERS {
        place.dockerfile("RUN exit 3\n");
        let failed =
            place.script(&format!("kiln build --network={helper} context || echo code $? helpers: $(helpers) end"));
        assert!(text(&failed).contains("code 1 helpers: end"), "{helper}: {}", text(&failed));
        place.dockerfile("RUN busybox sleep 1000\n");
        // Not by the shell's function, so that it is kiln itself that is killed.
        let script = format!(
            "./kiln build --network={helper} context & killed=$!\n\
             until ps -A -o args= | grep -q '^busybox sleep 1000'; do kill -0 $killed; sleep 0.05; done\n\
             echo before: $(helpers) end; kill -9 $killed; wait $killed || true\n\
             until test -z \"$(helpers)\"; do sleep 0.05; done; echo gone"
        );
        let killed = place.script(&script);
        let said = text(&killed);
        assert!(said.contains("gone") && !said.contains("before: end"), "{helper}: {said}");
    }
}

#[test]
fn what_cannot_be_had_is_said_before_anything_is_done() {
    let Some(place) = Place::new() else { return };
    place.dockerfile("RUN busybox true\n");
    let missing = place.script("PATH=/nonexistent kiln build --network=pasta context || echo code $?");
    assert!(text(&missing).contains("code 4") && text(&missing).contains("package passt"), "{}", text(&missing));
    let in_place = place.script("kiln build --network=pasta --isolation in-place context || echo code $?");
    assert!(text(&in_place).contains("code 2"), "{}", text(&in_place));
    assert!(text(&in_place).contains("on the container's network, or on none"), "{}", text(&in_place));
    let broken = place.script("ip route del default; kiln build --network=pasta context || echo code $?");
    assert!(text(&broken).contains("code 4") && text(&broken).contains("no network by pasta:"), "{}", text(&broken));
    // It is the default of another name: what one made is the other's.
    let cached = place.script("kiln build context && kiln build --progress=plain --network=slirp4netns context");
    assert!(text(&cached).contains("RUN busybox true\n#3 CACHED"), "{}", text(&cached));
}
