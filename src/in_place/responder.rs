//! Answers the system calls of a RUN's processes that the filter tells kiln of.
//!
//! Each kind of call has a file of its own. The first one that knows a call answers it.

use super::attribute_calls::{self, AttributeCalls};
use super::caller::AssumedIdentity;
use super::confinement::Confinement;
use super::entry_request;
use super::host_root::HostRoot;
use super::inode_pool::InodePool;
use super::process_calls::{self, ProcessCalls};
use super::root_entries::RootEntries;
use super::root_listing::RootListing;
use crate::sandbox::seccomp;
use crate::sys::Result;
use crate::sys::notify::{Answer, Call, Listener};
use libc::sock_filter;
use std::os::fd::AsFd;

/// What is the same for every RUN of a build.
#[derive(Debug)]
pub(super) struct InterceptedCalls {
    filter: Vec<sock_filter>,
    attributes: attribute_calls::Table,
    processes: ProcessCalls,
}

impl InterceptedCalls {
    pub(super) fn new() -> Self {
        // Programs of the 32-bit architecture cannot create entries of split directories, as nobody answers. The other calls are
        // dangerous whoever makes them.
        let of_all: Vec<_> = attribute_calls::calls().chain(process_calls::calls()).collect();
        Self {
            filter: seccomp::notifier_of(&entry_request::CALLS, &of_all),
            attributes: attribute_calls::Table::new(),
            processes: ProcessCalls::new(),
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
            listing: RootListing::new(confinement)?,
            entries: RootEntries::new(host, confinement, pools)?,
        })
    }

    /// Answers calls in this thread, until no process of the RUN is left or `stop` is readable.
    ///
    /// # Errors
    /// As [`Listener::serve`].
    pub(super) fn serve(&mut self, listener: &Listener, stop: impl AsFd) -> Result<()> {
        let mut identity = AssumedIdentity::default();
        listener.serve(stop, &mut |call| self.answer(call, &mut identity))
    }

    fn answer(&mut self, call: &Call<'_>, identity: &mut AssumedIdentity) -> Answer {
        let known = self.attributes.answer(call, identity);
        let known = known.or_else(|| self.processes.answer(call));
        let known = known.or_else(|| self.listing.answer(call, identity));
        known.unwrap_or_else(|| self.entries.answer(call, identity))
    }
}
