//! What a process of a build or of `kiln run` may see and use.

use super::{each, values, word, wrong};
use crate::cli::args;
use crate::plan::op::{Limits, Network};
use crate::report::Problem;
use crate::sandbox::Helper;

/// What a process may see and use.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProcessRequest {
    /// Its network.
    pub network: Network,
    /// Who connects a private network, for processes that don't ask for another; none where they are on the host's.
    pub helper: Option<Helper>,
    /// `/etc/hosts` entries: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Its limits.
    pub limits: Limits,
    /// How it is kept apart.
    pub isolation: Isolation,
    /// Whether `/` may be taken in any container.
    pub force_in_place: bool,
    /// The runtime of the level `oci`, a path or a name, where one is named.
    pub oci_runtime: Option<String>,
}

/// How processes are kept apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// The strongest way that works here.
    #[default]
    Auto,
    /// Namespaces, as root.
    Root,
    /// Namespaces, one of users among them, as an ordinary user.
    Rootless,
    /// Namespaces, as root, where `pivot_root` or overlays are forbidden.
    Chroot,
    /// In this container's own `/`, one process at a time.
    InPlace,
    /// An installed runtime.
    Oci,
}

pub(super) fn process(p: &args::Process) -> Result<ProcessRequest, Problem> {
    let networks = [
        ("default", (Network::Default, None)),
        ("none", (Network::None, None)),
        ("host", (Network::Host, None)),
        ("pasta", (Network::Default, Some(Helper::Pasta))),
        ("slirp4netns", (Network::Default, Some(Helper::Slirp4netns))),
    ];
    let default = (Network::Default, None);
    let (network, helper) = p.network.as_deref().map_or(Ok(default), |n| word("--network", n, &networks))?;
    let isolation = isolation(&p.isolation)?;
    if let (Some(helper), Isolation::InPlace) = (helper, isolation) {
        return Err(wrong("--network", helper.name(), "processes in place are on the container's network, or on none"));
    }
    Ok(ProcessRequest {
        network,
        helper,
        extra_hosts: each("--add-host", &p.add_host, values::host)?,
        limits: limits(p)?,
        isolation,
        force_in_place: p.force_in_place,
        oci_runtime: p.oci_runtime.clone().filter(|name| !name.is_empty()),
    })
}

fn isolation(text: &str) -> Result<Isolation, Problem> {
    word(
        "--isolation",
        text,
        &[
            ("auto", Isolation::Auto),
            ("root", Isolation::Root),
            ("rootless", Isolation::Rootless),
            ("chroot", Isolation::Chroot),
            ("in-place", Isolation::InPlace),
            ("oci", Isolation::Oci),
        ],
    )
}

fn limits(p: &args::Process) -> Result<Limits, Problem> {
    Ok(Limits {
        shm_size: positive("--shm-size", p.shm_size.as_deref())?,
        ulimits: each("--ulimit", &p.ulimit, values::ulimit)?,
        memory: positive("--memory", p.memory.as_deref())?,
        cpu_shares: p.cpu_shares.filter(|n| *n > 0),
        milli_cpus: p.cpus.as_deref().map(|t| values::milli_cpus(t).map_err(|w| wrong("--cpus", t, &w))).transpose()?,
    })
}

/// Bytes; 0 is no limit, as with Docker.
fn positive(flag: &str, text: Option<&str>) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let bytes = values::bytes(text).map_err(|why| wrong(flag, text, &why))?;
    Ok(Some(bytes).filter(|b| *b > 0))
}
