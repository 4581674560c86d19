//! What kiln does without one of the capabilities that it has as root, and where it may do nothing. With root, Debian's setpriv,
//! busybox-static, podman and runc.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;
#[path = "support/user.rs"]
mod user;

use std::process::{Command, Output};
use user::{BASE, Place, text};

/// The binary as root without some capabilities (`net_admin`).
fn without(place: &Place, capabilities: &[&str], args: &[&str]) -> Output {
    let list = capabilities.iter().map(|name| format!("-{name}")).collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", &list, "--inh-caps", &list, "--"]).arg(place.path("kiln"));
    place.finish(command.args(args), "roots-home")
}

/// A place with kiln's own files alone, and the start of all Dockerfiles.
fn place(dockerfile: &str) -> Option<Place> {
    let place = Place::with_one_number()?;
    place.dockerfile(&format!("{BASE}{dockerfile}"));
    Some(place)
}

const BUILD: [&str; 4] = ["build", "-q", "--no-cache", "--build-arg=SOURCE_DATE_EPOCH=1700000000"];

#[test]
fn a_level_without_one_of_its_capabilities_is_refused_and_the_capability_is_named() {
    let Some(place) = place("RUN chmod 6755 /bin/busybox\n") else { return };
    for level in ["root", "chroot"] {
        for name in ["chown", "dac_override", "fowner", "fsetid", "setfcap", "setgid", "setpcap", "setuid"] {
            let flag = format!("--isolation={level}");
            let built = without(&place, &[name], &[&BUILD[..], &[&flag, "context"]].concat());
            assert_eq!(built.status.code(), Some(4), "{level}, {name}: {}", text(&built));
            let all = "CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP, SETGID, SETPCAP and SETUID";
            assert!(text(&built).contains(all), "{level}, {name}: {}", text(&built));
            // Without it, kiln cannot even look.
            let told = name == "dac_override" || text(&built).contains(&format!("{} missing", name.to_uppercase()));
            assert!(told, "{level}, {name}: {}", text(&built));
        }
    }
    let info = text(&without(&place, &["setpcap"], &["info"]));
    assert!(info.contains("root:         no: SETPCAP missing"), "{info}");
}

#[test]
fn without_the_other_capabilities_the_image_is_the_same() {
    let Some(place) = place("RUN chmod 6755 /bin/busybox && chown 5:6 /tmp\nUSER me\nRUN touch /tmp/x\n") else {
        return;
    };
    let others = "dac_read_search,kill,linux_immutable,net_bind_service,net_admin,net_raw,ipc_lock,ipc_owner,sys_module,sys_rawio,\
                  sys_ptrace,sys_pacct,sys_boot,sys_nice,sys_resource,sys_time,sys_tty_config,mknod,lease,audit_write,\
                  audit_control,mac_override,mac_admin,syslog,wake_alarm,block_suspend,audit_read";
    let others: Vec<&str> = others.split(',').collect();
    for level in ["--isolation=root", "--isolation=chroot"] {
        let args = [&BUILD[..], &[level, "context"]].concat();
        let (with, built) = (place.as_root(&args), without(&place, &others, &args));
        assert!(built.status.success(), "{level}: {}", text(&built));
        assert_eq!(with.stdout, built.stdout, "{level}");
    }
}

/// CAP_NET_ADMIN brings up the loopback device of a network of its own; a user namespace gives that, too, and no step gets it by that.
#[test]
fn a_step_without_a_network_has_a_loopback_device_without_cap_net_admin() {
    let run = "RUN --network=none ip address | grep -q 'inet 127.0.0.1' && (echo x | nc -l -p 5555 > /dev/null &) && sleep 0.3 && \
               nc 127.0.0.1 5555 < /dev/null > /said && ls /sys/class/net > /devices && ! ip link set lo down 2> /dev/null && \
               ! ip link add d type dummy 2> /dev/null\n";
    let Some(place) = place(run) else { return };
    for level in ["--isolation=root", "--isolation=chroot"] {
        let args = [&BUILD[..], &[level, "context"]].concat();
        let (with, built) = (place.as_root(&args), without(&place, &["net_admin"], &args));
        assert!(built.status.success(), "{level}: {}", text(&built));
        assert_eq!(with.stdout, built.stdout, "{level}: {}", text(&with));
    }
}

/// As under Kubernetes' profile "restricted".
#[test]
fn where_nothing_is_allowed_what_helps_is_said_first() {
    let Some(place) = container::Place::new("restricted") else { return };
    place.file("context/Dockerfile", BASE);
    let restricted =
        ["--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp:mode=1777"];
    let build = "cd /workspace; kiln --root /tmp/store build --progress=plain context; echo code $?";
    for (flags, first) in [
        (&[&restricted[..], &["-e", "KUBERNETES_SERVICE_HOST=10.0.0.1"]].concat()[..], "runAsUser: 0"),
        (&restricted[..], "without --user and --cap-drop"),
        (&["--cap-drop=ALL", "--tmpfs=/tmp:mode=1777"][..], "no --cap-drop"),
    ] {
        let said = container::text(&place.container(flags, build));
        assert!(said.contains("code 4"), "{said}");
        let notes: Vec<&str> = said.lines().filter(|line| line.starts_with("  = ")).collect();
        assert!(notes[0].starts_with("  = help: ") && notes[0].contains(first), "{said}");
        assert!(notes[0].contains("FSETID, SETFCAP, SETGID, SETPCAP and SETUID"), "{said}");
        assert!(notes.iter().any(|note| note.starts_with("  = because: rootless:")), "{said}");
    }
}
