//! Runs a DAG: every vertex as soon as its inputs are there, and no longer than there is a point to it.
//!
//! Knows nothing of what a vertex does, so that a scripted worker can test it.

use crate::plan::op::VertexId;
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::future::Future;
use tokio::task::JoinSet;

/// What became of the vertices.
#[derive(Debug)]
pub struct Outcome<T, E> {
    /// The results of those that were run, by vertex.
    pub done: BTreeMap<VertexId, T>,
    /// Those that failed, in the order they did. Empty means that every vertex asked for is in `done`.
    pub failed: Vec<(VertexId, E)>,
}

/// Runs the vertices of `wanted` (vertex to those it waits for, all of them in `wanted` or `ready`).
///
/// `work` gets the results of a vertex's inputs in their order. The first failure cancels `cancel`; what is running
/// is then waited for, so that nothing outlives the build, and no vertex is started any more.
pub async fn run<T, E, W, F>(
    wanted: &BTreeMap<VertexId, Vec<VertexId>>,
    ready: BTreeMap<VertexId, T>,
    cancel: &Cancel,
    work: W,
) -> Outcome<T, E>
where
    T: Clone + Send + 'static,
    E: Send + 'static,
    W: Fn(VertexId, Vec<T>) -> F,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut outcome = Outcome { done: ready, failed: Vec::new() };
    let mut waiting: BTreeMap<VertexId, &Vec<VertexId>> = wanted.iter().map(|(v, i)| (*v, i)).collect();
    let mut running = JoinSet::new();
    loop {
        if outcome.failed.is_empty() && !cancel.is_cancelled() {
            start_ready(&mut waiting, &outcome.done, &mut running, &work);
        }
        match running.join_next().await {
            None => return outcome,
            Some(Ok((vertex, Ok(result)))) => {
                outcome.done.insert(vertex, result);
            }
            Some(Ok((vertex, Err(error)))) => {
                outcome.failed.push((vertex, error));
                cancel.cancel();
            }
            // A panicking worker is a defect of kiln: let it through rather than call the build done.
            Some(Err(e)) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => cancel.cancel(),
            },
        }
    }
}

/// Starts every vertex whose inputs are all done.
fn start_ready<T, E, W, F>(
    waiting: &mut BTreeMap<VertexId, &Vec<VertexId>>,
    done: &BTreeMap<VertexId, T>,
    running: &mut JoinSet<(VertexId, Result<T, E>)>,
    work: &W,
) where
    T: Clone + Send + 'static,
    E: Send + 'static,
    W: Fn(VertexId, Vec<T>) -> F,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    waiting.retain(|vertex, inputs| {
        let Some(results) = inputs.iter().map(|i| done.get(i).cloned()).collect::<Option<Vec<T>>>() else {
            return true;
        };
        let vertex = *vertex;
        let task = work(vertex, results);
        running.spawn(async move { (vertex, task.await) });
        false
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    type Trace = Arc<Mutex<Vec<String>>>;

    /// Runs a graph whose vertices write `+v` and `-v`; those in `bad` fail.
    async fn trace(
        graph: &[(usize, &[usize])],
        ready: &[usize],
        bad: &[usize],
    ) -> (Vec<String>, Outcome<usize, String>) {
        let log: Trace = Arc::default();
        let wanted = graph.iter().map(|(v, i)| (*v, i.to_vec())).collect();
        let ready = ready.iter().map(|v| (*v, *v)).collect();
        let bad = bad.to_vec();
        let outcome = run(&wanted, ready, &Cancel::new().unwrap(), |v, inputs: Vec<usize>| {
            let (log, fails) = (log.clone(), bad.contains(&v));
            async move {
                log.lock().unwrap().push(format!("+{v}{inputs:?}"));
                tokio::task::yield_now().await;
                log.lock().unwrap().push(format!("-{v}"));
                if fails { Err(format!("{v} fails")) } else { Ok(v) }
            }
        })
        .await;
        let log = log.lock().unwrap().clone();
        (log, outcome)
    }

    #[tokio::test]
    async fn a_chain_runs_in_order() {
        let (log, outcome) = trace(&[(1, &[0]), (2, &[1])], &[0], &[]).await;
        assert_eq!(log, ["+1[0]", "-1", "+2[1]", "-2"]);
        assert_eq!(outcome.done.len(), 3);
    }

    #[tokio::test]
    async fn independent_vertices_overlap() {
        let (mut log, _) = trace(&[(0, &[]), (1, &[]), (2, &[0, 1])], &[], &[]).await;
        // Which of the two comes first is the runtime's choice.
        log[..2].sort();
        log[2..4].sort();
        assert_eq!(log, ["+0[]", "+1[]", "-0", "-1", "+2[0, 1]", "-2"]);
    }

    #[tokio::test]
    async fn a_failure_starts_nothing_more_but_is_waited_out() {
        let (mut log, outcome) = trace(&[(0, &[]), (1, &[]), (2, &[0, 1])], &[], &[0]).await;
        log.sort();
        assert_eq!(log, ["+0[]", "+1[]", "-0", "-1"]);
        assert_eq!(outcome.failed, [(0, "0 fails".to_owned())]);
    }

    #[tokio::test]
    async fn every_failure_is_told() {
        let (_, outcome) = trace(&[(0, &[]), (1, &[])], &[], &[0, 1]).await;
        assert_eq!(outcome.failed.len(), 2);
    }
}
