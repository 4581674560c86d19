//! What commands share: the store, the registries, the runtime, and the signal that stops them.

use super::env::Env;
use super::isolation::Last;
use super::progress::{self, Drawing, Style};
use super::request::RegistryRequest;
use super::signals::{SignalSource, SignalStream};
use crate::registry::{Client, Config, Mirror, fixed_resolver};
use crate::report::{Diagnostic, Kind, Problem, Reporter, SourceText};
use crate::source::stopped;
use crate::store::Store;
use crate::sys::{Cancel, Signals};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::runtime::Runtime;
use tokio::signal::unix::SignalKind;

/// A failure, and the Dockerfile that it points into.
#[derive(Debug)]
pub struct Failure {
    /// What failed.
    pub problem: Problem,
    /// The Dockerfile, where there is one.
    pub source: Option<Box<SourceText>>,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// A problem with the Dockerfile that it points into.
    pub fn of(problem: Problem, source: SourceText) -> Self {
        Self { code: problem.kind.exit_code(), problem, source: Some(Box::new(source)) }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { code: problem.kind.exit_code(), problem, source: None }
    }
}

/// Any module's error as a failure without a Dockerfile.
pub fn failure(error: impl Into<Problem>) -> Failure {
    error.into().into()
}

/// One command at work.
pub struct Session {
    /// The store.
    pub store: Store,
    /// The registries.
    pub registry: Client,
    /// Where events go.
    pub reporter: Reporter,
    /// Set by Ctrl-C.
    pub cancel: Cancel,
    /// Where signals come from.
    signals: SignalSource,
    /// Gets the signals instead of this command, once there is one.
    handed: Arc<OnceLock<Signals>>,
    /// What is done before this process ends in the middle of everything.
    last: Arc<Mutex<Option<Last>>>,
    runtime: Runtime,
    drawing: Drawing,
}

impl Session {
    /// Starts the threads, and the drawing on standard error.
    ///
    /// # Errors
    /// Where the store can't be opened or the system gives no threads.
    pub fn start(
        store: &Path,
        registry: &RegistryRequest,
        style: Style,
        source: Option<SourceText>,
        env: &Env,
    ) -> Result<Self, Problem> {
        let store = Store::open(store)?;
        let cancel = Cancel::new().map_err(|e| cannot("watch for Ctrl-C", &e))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(env.cores.max(1))
            .enable_all()
            .build()
            .map_err(|e| cannot("start threads", &e))?;
        let (reporter, drawing) =
            progress::start(style, source, std::io::stderr()).map_err(|e| cannot("start a thread", &e))?;
        let registry = Client::new(registry_config(registry, env, reporter.clone())?);
        let signals = SignalSource::new(env.supervisor.as_ref().map(|supervisor| supervisor.signals.clone()));
        let (handed, last) = (Arc::default(), Arc::default());
        Ok(Self { store, registry, reporter, cancel, signals, handed, last, runtime, drawing })
    }

    /// From now on signals are for a process and no longer for this command; to be called within [`Session::run`].
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn hand_signals_on(&self) -> Result<Signals, Problem> {
        let signals = Signals::new().map_err(|e| cannot("watch for signals", &e))?;
        let kinds =
            [SignalKind::hangup(), SignalKind::quit(), SignalKind::user_defined1(), SignalKind::user_defined2()];
        for kind in kinds {
            // From here on, and not from whenever the task begins.
            let stream = self.signals.stream(kind)?;
            tokio::spawn(pass_on(stream, kind, signals.clone()));
        }
        Ok(self.handed.get_or_init(|| signals).clone())
    }

    /// Has something done even if this process ends in the middle of everything; so signals that would end it at once stop it in
    /// good order. To be called within [`Session::run`].
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn before_exit(&self, last: Last) -> Result<(), Problem> {
        // A build that is done twice has another one each time.
        if locked(&self.last).replace(last).is_some() {
            return Ok(());
        }
        for kind in [SignalKind::hangup(), SignalKind::quit()] {
            if crate::sys::ignores(kind.as_raw_value()) {
                continue;
            }
            let mut stream = self.signals.stream(kind)?;
            let (cancel, handed) = (self.cancel.clone(), self.handed.clone());
            tokio::spawn(async move {
                while stream.next().await.is_some() {
                    if handed.get().is_none() {
                        cancel.cancel();
                    }
                }
            });
        }
        Ok(())
    }

    /// Work that is left where it is when the command is stopped.
    ///
    /// # Errors
    /// Those of the work; [`Kind::Cancelled`].
    pub async fn stoppable<T>(&self, work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        tokio::select! {
            done = work => done,
            () = stopped(&self.cancel) => Err(Problem::new(Kind::Cancelled, "cancelled")),
        }
    }

    /// Does the work, stopped by the first Ctrl-C in good order and by the second at once.
    pub fn run<T>(self, work: impl AsyncFnOnce(&Self) -> Result<T, Problem>) -> Result<T, Problem> {
        let sweeper = self.store.clone();
        // What killed builds left; whether it can be removed is no concern of this one's.
        self.runtime.spawn_blocking(move || sweeper.sweep());
        let done = self.runtime.block_on(async {
            let streams = [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| self.signals.stream(kind));
            tokio::spawn(watch(streams, self.cancel.clone(), self.handed.clone(), self.last.clone()));
            self.signals.start(&self.cancel)?;
            work(&self).await
        });
        let Self { runtime, drawing, reporter, registry, store, .. } = self;
        drop((reporter, registry));
        // Whatever still blocks belongs to a build that is over.
        runtime.shutdown_background();
        let _ = store.end();
        drawing.finish();
        done
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for signals. Children die with this process, so nothing is left even when it ends at once.
async fn watch(
    streams: [Result<SignalStream, Problem>; 2],
    cancel: Cancel,
    handed: Arc<OnceLock<Signals>>,
    last: Arc<Mutex<Option<Last>>>,
) {
    let [Ok(mut interrupt), Ok(mut terminate)] = streams else { return };
    let mut handed_on = 0;
    loop {
        let kind = tokio::select! {
            _ = interrupt.next() => SignalKind::interrupt(),
            _ = terminate.next() => SignalKind::terminate(),
        };
        match handed.get() {
            Some(signals) if handed_on < PATIENCE => {
                signals.send(number(kind));
                handed_on += 1;
            }
            _ if cancel.is_cancelled() => {
                if let Some(last) = locked(&last).take() {
                    last();
                }
                std::process::exit(i32::from(Kind::Cancelled.exit_code()));
            }
            _ => cancel.cancel(),
        }
    }
}

/// How many times a process is asked to end before it is made to, as with `docker run`.
const PATIENCE: u32 = 2;

/// Signals that mean nothing to kiln itself, for a process that may know what to do with them.
async fn pass_on(mut stream: SignalStream, kind: SignalKind, signals: Signals) {
    while stream.next().await.is_some() {
        signals.send(number(kind));
    }
}

fn number(kind: SignalKind) -> u8 {
    u8::try_from(kind.as_raw_value()).unwrap_or_default()
}

fn registry_config(request: &RegistryRequest, env: &Env, reporter: Reporter) -> Result<Config, Problem> {
    let mut config = Config::from_env(&|name| env.var(name).map(str::to_owned));
    config.mirrors =
        request.mirrors.iter().map(|(host, url)| Mirror { registry: host.clone(), url: url.to_string() }).collect();
    config.insecure = request.insecure.clone();
    config.reporter = reporter;
    if let Some(files) = &env.name_files {
        // Neither where a push goes nor whom it trusts is a RUN's to say.
        config.resolver = Some(fixed_resolver(&files.hosts, &files.resolv_conf));
        config.certificates = config.certificates.hold();
    }
    Ok(config)
}

/// Something that the system refused.
pub fn cannot(what: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    Problem::new(Kind::Environment, format!("can't {what}")).because(error)
}

/// All errors of a Dockerfile as one problem; `found` has at least one.
pub fn dockerfile_problem(mut found: Vec<Diagnostic>) -> Problem {
    let Some(last) = found.pop() else { return Problem::new(Kind::Usage, "the Dockerfile can't be built") };
    let mut problem = Problem::new(Kind::Usage, last.message).at(last.span);
    problem.hints = last.hint.into_iter().collect();
    problem.diagnostics = found;
    problem
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::NameFiles;

    #[test]
    fn names_are_resolved_by_the_texts_that_were_read_at_the_start() {
        let request = RegistryRequest::default();
        let of = |env: &Env| registry_config(&request, env, Reporter::silent()).unwrap();
        let system = of(&Env::default());
        assert!(system.resolver.is_none() && system.certificates.held.is_none());
        let files = NameFiles { hosts: "10.9.8.7 registry.test".into(), resolv_conf: "nameserver 10.9.8.6".into() };
        let fixed = of(&Env { name_files: Some(files), ..Env::default() });
        let resolver = format!("{:?}", fixed.resolver.unwrap());
        assert!(resolver.contains("10.9.8.7") && resolver.contains("10.9.8.6:53"), "{resolver}");
        assert!(fixed.certificates.held.is_some());
    }
}
