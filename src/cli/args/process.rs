//! The flags of a process: those of `build` and `run`.

use clap::Args;

/// What a process may see and use.
#[derive(Debug, Args)]
pub struct Process {
    /// The network of processes: default, none or host; pasta or slirp4netns for a private one that this program connects.
    #[arg(long, value_name = "MODE")]
    pub network: Option<String>,
    /// A line for /etc/hosts.
    #[arg(long, value_name = "HOST:IP")]
    pub add_host: Vec<String>,
    /// The size of /dev/shm, as in 64m.
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// A resource limit, as in nofile=1024:2048.
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// The most memory, as in 512m.
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// The relative share of the processors.
    #[arg(short, long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// How many cores, as in 1.5.
    #[arg(long, value_name = "N")]
    pub cpus: Option<String>,
    /// How processes are isolated: auto, root, rootless, chroot, in-place or oci.
    #[arg(long, value_name = "LEVEL", default_value = "auto")]
    pub isolation: String,
    /// Allow the level in-place, which takes the container's whole root directory, outside of kiln's own image.
    #[arg(long)]
    pub force_in_place: bool,
    /// The runtime of the level oci: crun or runc, by name or path. $KILN_OCI_RUNTIME, or the first in $PATH, without it.
    #[arg(long, value_name = "PROGRAM")]
    pub oci_runtime: Option<String>,
}
