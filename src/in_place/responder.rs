//! Answers the system calls of a RUN's processes that the filter tells kiln of.
//!
//! Each kind of call has a file of its own. The first one that knows a call answers it.

use super::attribute_calls::{self, AttributeCalls};
use super::caller::AssumedIdentity;
use super::confinement::{Confinement, Protection};
use super::entry_request;
use super::host_root::HostRoot;
use super::inode_pool::InodePool;
use super::kept_processes;
use super::process_calls::{self, ProcessCalls};
use super::root_entries::RootEntries;
use super::root_listing::RootListing;
use super::socket_calls::{self, SocketCalls, Waiting};
use crate::sandbox::seccomp;
use crate::sys::Result;
use crate::sys::notify::{Answer, Call, Listener, Service};
use libc::sock_filter;
use std::os::fd::AsFd;

/// What is the same for every RUN of a build.
#[derive(Debug)]
pub(super) struct InterceptedCalls {
    filter: Vec<sock_filter>,
    attributes: attribute_calls::Table,
    processes: ProcessCalls,
    sockets: socket_calls::Table,
    kept: kept_processes::Table,
}

impl InterceptedCalls {
    /// The calls that must be intercepted with this protection.
    pub(super) fn new(protection: &Protection) -> Self {
        // Programs of the 32-bit architecture cannot create entries of split directories, as nobody answers. The other calls are
        // dangerous whoever makes them.
        let mut of_all: Vec<_> = attribute_calls::calls().collect();
        of_all.extend(process_calls::calls().chain(kept_processes::calls()));
        if !protection.restricts_sockets() {
            of_all.extend(socket_calls::CALLS);
        }
        Self {
            filter: seccomp::notifier_of(&entry_request::CALLS, &of_all),
            attributes: attribute_calls::Table::new(),
            processes: ProcessCalls::new(),
            sockets: socket_calls::Table::new(),
            kept: kept_processes::Table::new(),
        }
    }

    /// The seccomp filter that tells kiln of these calls.
    pub(super) fn filter(&self) -> &[sock_filter] {
        &self.filter
    }
}

/// Answers the calls of one RUN.
pub(super) struct Responder<'a> {
    attributes: AttributeCalls<'a>,
    processes: &'a ProcessCalls,
    sockets: SocketCalls<'a>,
    kept: &'a kept_processes::Table,
    listing: RootListing,
    entries: RootEntries<'a>,
}

impl<'a> Responder<'a> {
    /// `pools` has one pool for each split directory, in the same order.
    pub(super) fn new(
        calls: &'a InterceptedCalls,
        host: &'a HostRoot,
        confinement: &'a Confinement,
        pools: &'a mut [InodePool],
    ) -> Result<Self> {
        Ok(Self {
            attributes: AttributeCalls::new(&calls.attributes, confinement),
            processes: &calls.processes,
            sockets: SocketCalls::new(&calls.sockets, confinement),
            kept: &calls.kept,
            listing: RootListing::new(confinement)?,
            entries: RootEntries::new(host, confinement, pools)?,
        })
    }

    /// Answers calls in this thread, until no process of the RUN is left or `stop` is readable.
    ///
    /// # Errors
    /// As [`Listener::serve`].
    pub(super) fn serve(&mut self, listener: &Listener, stop: impl AsFd) -> Result<()> {
        let mut session = Session { responder: self, identity: AssumedIdentity::default(), waiting: Vec::new() };
        listener.serve_with(stop, &mut session)
    }
}

/// The thread that answers, and the calls that it has not answered yet.
struct Session<'r, 'a, 'l> {
    responder: &'r mut Responder<'a>,
    identity: AssumedIdentity,
    waiting: Vec<Waiting<'l>>,
}

impl<'l> Service<'l> for Session<'_, '_, 'l> {
    fn answer(&mut self, call: &Call<'l>) -> Answer {
        let Self { responder, identity, waiting } = self;
        if let Some(change) = responder.kept.change(call) {
            identity.keep(call, change);
            return Answer::Continue;
        }
        let known = responder.attributes.answer(call, identity);
        let known = known.or_else(|| responder.processes.answer(call));
        let known = known.or_else(|| responder.sockets.answer(call, identity, waiting));
        let known = known.or_else(|| responder.listing.answer(call, identity));
        known.unwrap_or_else(|| responder.entries.answer(call, identity))
    }

    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn go_on(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting.into_iter().filter_map(|call| call.go_on(&mut self.identity)).collect();
    }
}
