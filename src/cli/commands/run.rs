//! `kiln run`: one process in an image of the local store, with the sandbox of a RUN; what it changes is thrown away.

use super::{Done, build, local};
use crate::cli::isolation::{self, Place};
use crate::cli::progress::Style;
use crate::cli::request::{RegistryRequest, RunRequest};
use crate::cli::session::{Failure, Session, cannot};
use crate::cli::{Env, credentials};
use crate::oci::{ContainerConfig, ImageConfig};
use crate::plan::op::{ImageOp, Limits, Network};
use crate::report::{Kind, Problem};
use crate::sandbox::{self, Spec, Stdio};
use crate::snapshot::{Layers, users};
use crate::solve;
use crate::sys::Signals;
use std::io::IsTerminal as _;
use std::path::Path;

/// Docker's, for images that name none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs; the exit code is the process's.
///
/// # Errors
/// Where there is no such image, or its process can't be started.
pub fn run(request: &RunRequest, store: &Path, env: &Env) -> Result<Done, Failure> {
    let session = Session::start(store, &RegistryRequest::default(), Style::Quiet, None, env)?;
    let ran = session.run(async |session| {
        let found = local::find(&session.store, &request.image)?;
        let image = local::resolved(&session.store, &found)?;
        let process = Process::new(request, &image.config)?;
        let credentials = credentials::of_env(env);
        let needs =
            isolation::Needs { process: &request.process, runs: true, credentials: &credentials, contexts: &[] };
        let place = isolation::place(session, needs, env)?;
        let op = ImageOp {
            platform: image.config.platform(),
            reference: image.reference,
            layout: None,
            manifest: image.manifest,
            layers: image.layers,
        };
        let layers = solve::unpacked(&build::puller(session), &op).await?;
        let signals = session.hand_signals_on()?;
        process.start(session, place, layers, signals).await
    });
    match ran {
        Ok(exit) => Ok(Done { text: String::new(), code: u8::try_from(exit.code).unwrap_or(u8::MAX) }),
        Err(problem) => {
            let code = problem.run_exit_code.and_then(|c| u8::try_from(c).ok());
            let failure = Failure::from(problem);
            // As shells have it: 127 for a program that isn't there, 126 for one that can't be executed.
            Err(Failure { code: code.unwrap_or(failure.code), ..failure })
        }
    }
}

/// A process as `docker run` composes it of an image's configuration and the command line.
#[derive(Debug, Clone, PartialEq)]
struct Process {
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: String,
    user: String,
    network: Network,
    extra_hosts: Vec<(String, String)>,
    limits: Limits,
}

impl Process {
    fn new(request: &RunRequest, config: &ImageConfig) -> Result<Self, Problem> {
        let config = &config.config;
        let cwd = request.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
        let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
        if !cwd.starts_with('/') {
            return Err(Problem::new(Kind::Usage, format!("--workdir {cwd:?}: it isn't absolute")));
        }
        Ok(Self {
            args: command(request, config)?,
            env: variables(&config.env, &request.env),
            cwd,
            user: request.user.clone().unwrap_or_else(|| config.user.clone()),
            network: request.process.network,
            extra_hosts: request.process.extra_hosts.clone(),
            limits: request.process.limits.clone(),
        })
    }

    /// Runs it on `layers`.
    async fn start(
        self,
        session: &Session,
        place: Place,
        layers: Layers,
        signals: Signals,
    ) -> Result<sandbox::Exit, Problem> {
        let (store, cancel) = (session.store.clone(), session.cancel.clone());
        let ran = tokio::task::spawn_blocking(move || {
            let scratch = store.new_snapshot()?;
            let cannot = |e| cannot("prepare the root filesystem", &e);
            let active = place.snapshots.prepare(scratch.folder(), &layers).map_err(cannot)?;
            let user = users::exec_user(&layers.view(), &self.user)
                .map_err(|e| Problem::new(Kind::Usage, format!("there is no user {}", self.user)).because(&e))?;
            let mut spec = self.spec(active.root_mount(), user)?;
            spec.signals = Some(signals);
            let exit = place.executor.run(&spec, &mut |_, _| {}, &cancel);
            drop(active);
            place.snapshots.end().map_err(cannot)?;
            Ok(exit?)
        });
        ran.await.map_err(|e| cannot("run the process", &e))?
    }

    fn spec(self, root: crate::sys::RootMount, user: users::User) -> Result<Spec, Problem> {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let hostname = hostname()?;
        let mut spec = Spec::new(root, self.args);
        // In docker's order; a later one of a name wins.
        spec.env = vec![("PATH".into(), PATH.into()), ("HOSTNAME".into(), hostname.clone())];
        spec.env.extend(terminal.then(|| ("TERM".into(), "xterm".into())));
        spec.env.push(("HOME".into(), user.home));
        spec.env.extend(self.env);
        spec.cwd = self.cwd.into();
        spec.user = sandbox::User { uid: user.uid, gid: user.gid, groups: user.groups };
        spec.hostname = hostname;
        spec.network = solve::network(self.network);
        spec.extra_hosts = self.extra_hosts;
        spec.limits = solve::limits(&self.limits);
        spec.stdio = if terminal { Stdio::Terminal } else { Stdio::Inherit };
        Ok(spec)
    }
}

/// The entrypoint and its arguments. An entrypoint of the command line has none of the image's arguments.
fn command(request: &RunRequest, config: &ContainerConfig) -> Result<Vec<String>, Problem> {
    let own = || config.cmd.clone().unwrap_or_default();
    let (entrypoint, default) = match &request.entrypoint {
        Some(given) => (given.clone(), Vec::new()),
        None => (config.entrypoint.clone().unwrap_or_default(), own()),
    };
    let args = if request.args.is_empty() { default } else { request.args.clone() };
    let command: Vec<String> = entrypoint.into_iter().chain(args).collect();
    if command.is_empty() {
        let what = "the image names no command, and none is given";
        return Err(Problem::new(Kind::Usage, what).hint(format!("kiln run {} COMMAND", request.image.typed)));
    }
    Ok(command)
}

/// The image's variables, and those of the command line in their place or behind them.
fn variables(own: &[String], given: &[(String, String)]) -> Vec<(String, String)> {
    let own = own.iter().filter_map(|e| e.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned()));
    let mut all: Vec<(String, String)> = own.collect();
    for (name, value) in given {
        match all.iter_mut().find(|(n, _)| n == name) {
            Some(old) => old.1.clone_from(value),
            None => all.push((name.clone(), value.clone())),
        }
    }
    all
}

/// Twelve hexadecimal digits, as the name of a container without one.
fn hostname() -> Result<String, Problem> {
    let mut bits = [0u8; 6];
    rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| cannot("get random numbers", &e))?;
    Ok(bits.iter().map(|b| format!("{b:02x}")).collect())
}
