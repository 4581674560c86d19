//! The isolation ladder: which level runs processes here, and the driver that goes with it.

use super::env::Env;
use super::in_place;
use super::own_program;
use super::remedy::Situation;
use super::request::{Isolation, ProcessRequest, Request};
use super::rootless::{self, Rootless};
use super::session::Session;
use crate::report::{Event, Kind, Problem};
use crate::sandbox::oci::Runtime;
use crate::sandbox::probe::{Way, missing_capabilities, new_proc, probe};
use crate::sandbox::{self, ChrootExecutor, Executor, Level, OciExecutor, PrivateNetwork, RootExecutor};
use crate::snapshot::{Copy, Overlay, Snapshotter};
use crate::store::Store;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

/// How processes are run.
#[derive(Clone)]
pub struct Place {
    /// How they get their root filesystems.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Who runs them.
    pub executor: Arc<dyn Executor>,
    /// What may be at work at the same time.
    pub together: Together,
    /// What its user ought to know.
    pub warning: Option<String>,
    /// What is to be done before this process ends in the middle of everything.
    pub last: Option<Last>,
}

/// Something to be done in the end.
pub type Last = Arc<dyn Fn() + Send + Sync>;

/// What may be at work at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Together {
    /// As many steps as there are turns.
    Steps,
    /// As many copies as there are turns, and one process.
    OneProcess,
    /// One step: a process's surroundings aren't what others take them for.
    OneStep,
}

/// A level.
struct Rung {
    /// As `--isolation` takes it.
    name: &'static str,
    isolation: Isolation,
    /// Whether it is taken without being asked for.
    auto: bool,
    /// Whether it is to be had with the rights of kiln's own user, outside of a user namespace.
    outside: bool,
    /// Tries it; says what was refused.
    open: fn(&Site<'_>) -> Result<Place, Refused>,
}

/// All levels, the best first.
const LADDER: [Rung; 5] = [
    Rung { name: "root", isolation: Isolation::Root, auto: true, outside: true, open: root },
    Rung { name: "rootless", isolation: Isolation::Rootless, auto: true, outside: false, open: rootless },
    Rung { name: "chroot", isolation: Isolation::Chroot, auto: true, outside: false, open: chroot },
    Rung { name: "in-place", isolation: Isolation::InPlace, auto: true, outside: true, open: in_place },
    Rung { name: "oci", isolation: Isolation::Oci, auto: false, outside: false, open: oci },
];

/// Why a level can't be had.
enum Refused {
    /// It is for others: nobody misses it.
    Never(&'static str),
    /// This is in its way.
    Here(String),
}

impl Refused {
    fn why(&self) -> &str {
        match self {
            Self::Never(why) => why,
            Self::Here(why) => why,
        }
    }
}

/// What a build or a command needs of a level.
#[derive(Clone, Copy)]
pub struct Needs<'a> {
    /// What was said of processes.
    pub process: &'a ProcessRequest,
    /// Whether a process will be run at all.
    pub runs: bool,
    /// Files of credentials, which processes cannot read.
    pub credentials: &'a [PathBuf],
    /// Directories that are read while processes run.
    pub contexts: &'a [PathBuf],
}

/// Where levels are tried.
struct Site<'a> {
    store: &'a Store,
    needs: Needs<'a>,
    env: &'a Env,
}

/// Connects the private network that a request asks for. Its helper dies with the thread that makes it, so that this is to be the
/// first one.
///
/// # Errors
/// Where it can't be had, before anything else is done.
pub fn network(request: &Request, env: &Env) -> Result<Option<Arc<PrivateNetwork>>, Problem> {
    let Some(helper) = request.command.runs().and_then(|process| process.helper) else { return Ok(None) };
    Ok(Some(Arc::new(PrivateNetwork::start(helper, &env.path(), &resolv_conf())?)))
}

/// Finds the place for processes: the level that is asked for, or the best that works. A build without RUN steps gets a level that was
/// not tried.
///
/// # Errors
/// With the reason for each level that doesn't work here.
pub fn place(session: &Session, needs: Needs<'_>, env: &Env) -> Result<Place, Problem> {
    let site = Site { store: &session.store, needs, env };
    let place = find(session, &site)?;
    if let Some(last) = &place.last {
        session.before_exit(last.clone())?;
    }
    if let Some(warning) = place.warning.as_ref().filter(|_| needs.runs) {
        session.reporter.send(Event::Note(warning.clone()));
    }
    Ok(place)
}

fn find(session: &Session, site: &Site<'_>) -> Result<Place, Problem> {
    let (isolation, wants) = (site.needs.process.isolation, site.needs.runs);
    if isolation == Isolation::Auto {
        return if wants { climb(session, site) } else { untried() };
    }
    let Some(rung) = LADDER.iter().find(|rung| rung.isolation == isolation) else { return untried() };
    match (rung.open)(site) {
        Err(Refused::Here(_)) if !wants => untried(),
        other => other.map_err(|refused| none(&[(rung, refused)])),
    }
}

/// The best level that works; what that says of the place is told.
fn climb(session: &Session, site: &Site<'_>) -> Result<Place, Problem> {
    let mut above: Vec<(&Rung, Refused)> = Vec::new();
    for rung in LADDER.iter().filter(|rung| rung.auto) {
        match (rung.open)(site) {
            Err(refused) => above.push((rung, refused)),
            Ok(place) => {
                if let Some(missed) = above.iter().find(|(_, refused)| matches!(refused, Refused::Here(_))) {
                    let text = format!(
                        "isolation level {}, since {} doesn't work here: {}",
                        rung.name,
                        missed.0.name,
                        missed.1.why()
                    );
                    session.reporter.send(Event::Note(text));
                }
                return Ok(place);
            }
        }
    }
    let problem = Situation::of(site.env).remedies().into_iter().fold(none(&above), Problem::hint);
    Err(Problem { hints_first: true, ..problem })
}

/// Each level, tried in turn, whether or not a better one works. Who has no rights over mounts is in a user namespace after
/// that, where there may be one.
pub fn levels(store: &Store, env: &Env) -> Vec<Level> {
    let env = Env { exposed: own_program::why_exposed(env), ..env.clone() };
    let outside = LADDER.each_ref().map(|rung| rung.outside.then(|| level(rung, store, &env)));
    let rootless = rootless::enter(&env);
    let inside = Env { exposed: own_program::why_exposed(&env), rootless, ..env };
    let tried = LADDER.iter().zip(outside);
    tried.map(|(rung, level_outside)| level_outside.unwrap_or_else(|| level(rung, store, &inside))).collect()
}

/// A level, tried.
fn level(rung: &Rung, store: &Store, env: &Env) -> Level {
    let process = ProcessRequest::default();
    let needs = Needs { process: &process, runs: true, credentials: &[], contexts: &[] };
    let refused = (rung.open)(&Site { store, needs, env }).err();
    let remark = match rung.isolation {
        Isolation::Rootless if refused.is_none() => rootless::remark(&env.rootless, &|| new_proc(store.root())),
        _ => None,
    };
    let why_not = refused.map(|r| r.why().to_owned());
    Level { name: rung.name, works: why_not.is_none(), why_not, remark }
}

/// Why no process can be run here.
fn none(refused: &[(&Rung, Refused)]) -> Problem {
    let problem = Problem::new(Kind::Environment, "there is no way to run a process isolated here");
    refused.iter().fold(problem, |problem, (rung, refused)| problem.cause(format!("{}: {}", rung.name, refused.why())))
}

/// For somebody who runs nothing.
fn untried() -> Result<Place, Problem> {
    let (snapshots, executor) = (Arc::new(Overlay::default()), Arc::new(RootExecutor::new(String::new())?));
    Ok(Place { snapshots, executor, together: Together::Steps, warning: None, last: None })
}

fn root(site: &Site<'_>) -> Result<Place, Refused> {
    match (&site.env.rootless, site.env.uid) {
        (Rootless::Entered | Rootless::Single(_), 0) => return Err(Refused::Here("it needs CAP_SYS_ADMIN".into())),
        (Rootless::Entered | Rootless::Single(_), _) => return Err(Refused::Never("it needs root")),
        _ => {}
    }
    site.works(Way { pivot: true, overlay: true })?;
    site.place(RootExecutor::new(resolv_conf()).map(|e| e.on(site.network())), Arc::new(site.overlay()))
}

fn rootless(site: &Site<'_>) -> Result<Place, Refused> {
    match &site.env.rootless {
        Rootless::Untried if site.env.uid == 0 => return Err(Refused::Never(rootless::FOR_USERS)),
        Rootless::Untried => return Err(Refused::Never("it wasn't asked for")),
        Rootless::Refused(why) => return Err(Refused::Here(why.clone())),
        Rootless::Entered | Rootless::Single(_) => {}
    }
    let snapshots = site.snapshots(true)?;
    site.place(RootExecutor::new(resolv_conf()).map(|e| e.on(site.network())), snapshots)
}

fn chroot(site: &Site<'_>) -> Result<Place, Refused> {
    let snapshots = site.snapshots(false)?;
    site.place(ChrootExecutor::new(resolv_conf()).map(|e| e.on(site.network())), snapshots)
}

fn in_place(site: &Site<'_>) -> Result<Place, Refused> {
    if site.env.network.is_some() {
        return Err(Refused::Here("its processes are on the container's network, or on none".into()));
    }
    in_place::place(site.store, &site.needs, site.env).map_err(Refused::Here)
}

fn oci(site: &Site<'_>) -> Result<Place, Refused> {
    let wanted = site.needs.process.oci_runtime.as_deref().or_else(|| site.env.set_var("KILN_OCI_RUNTIME"));
    let runtime = Runtime::find(wanted, &site.env.path()).map_err(Refused::Here)?;
    let snapshots = site.snapshots(true)?;
    let executor = OciExecutor::new(resolv_conf(), runtime, site.env.program.clone());
    site.place(executor.map(|e| e.on(site.network())), snapshots)
}

impl Site<'_> {
    fn works(&self, way: Way) -> Result<(), Refused> {
        probe(self.store.root(), way).map_err(Refused::Here)
    }

    fn network(&self) -> Option<Arc<PrivateNetwork>> {
        self.env.network.clone()
    }

    fn overlay(&self) -> Overlay {
        Overlay::new(self.store.clone(), &sandbox::MOUNT_POINTS)
    }

    /// Overlays, or copies where there can be none; where neither can be had, why there are no copies.
    fn snapshots(&self, pivot: bool) -> Result<Arc<dyn Snapshotter>, Refused> {
        if self.works(Way { pivot, overlay: true }).is_ok() {
            return Ok(Arc::new(self.overlay()));
        }
        self.works(Way { pivot, overlay: false })?;
        let folder = self.store.new_snapshot().map_err(|e| Refused::Here(e.to_string()))?;
        let threads = NonZeroUsize::new(self.env.cores).unwrap_or(NonZeroUsize::MIN);
        Ok(Arc::new(Copy::new(folder, threads)))
    }

    fn place<E: Executor + 'static>(
        &self,
        executor: Result<E, sandbox::Error>,
        snapshots: Arc<dyn Snapshotter>,
    ) -> Result<Place, Refused> {
        if let Some(why) = &self.env.exposed {
            return Err(Refused::Here(format!("processes could change kiln's own program file: {why}")));
        }
        if let Some(lacks) = missing_capabilities() {
            return Err(Refused::Here(lacks));
        }
        let executor = executor.map_err(|e| Refused::Here(e.to_string()))?;
        Ok(Place { snapshots, executor: Arc::new(executor), together: Together::Steps, warning: None, last: None })
    }
}

/// The host's, which processes on its network get.
fn resolv_conf() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}
