//! An older session of the device beside the current one. Its client is silent, or has just gone.

use super::super::super::Successor;
use super::disk::Line;
use super::*;

/// The time for which the newer session waits for the older one.
const END_TIMEOUT: Duration = Duration::from_secs(8);

/// The parts of the world that exist once per session.
pub(super) struct Older {
    session: Option<Session>,
    life: Life,
    line: Line,
    /// The time until which the newer session waits. `None` once it has received `OlderSettled`.
    waited_for: Option<Instant>,
}

impl World {
    /// Binds the client again while its session still treats the old connection as alive.
    pub(super) fn bind_beside(&mut self, same_address: bool, hello: Hello) {
        let Some(session) = &self.session else { return };
        if self.older.is_some() || session.is_ending() || !self.life.leg.alive {
            return;
        }
        count(&self.coverage.besides);
        self.client.conn = None;
        let unacked = self.client.start_new_stream();
        let (line, life) = (std::mem::take(&mut self.disk.line), Life::new(self.life.number, false));
        let older = Older {
            session: self.session.take(),
            life: std::mem::replace(&mut self.life, life),
            line,
            waited_for: Some(self.now + END_TIMEOUT),
        };
        self.older = Some(older);
        self.bind();
        self.in_older(|world| world.handle(Input::Successor(Some(Successor { same_address }))));
        self.send_hello(hello, unacked);
    }

    /// Runs `happens` with the older session as the one that acts.
    pub(super) fn in_older(&mut self, happens: impl FnOnce(&mut Self)) {
        let Some(mut older) = self.older.take() else { return };
        self.swap(&mut older);
        self.is_older = true;
        happens(self);
        self.wake();
        let gone = self.session.is_none() && self.disk.is_idle();
        if gone {
            self.check_requests();
            let login = self.disk.line.own;
            self.disk.open.remove(&login);
        }
        self.is_older = false;
        self.swap(&mut older);
        if !gone {
            self.older = Some(older);
            return;
        }
        if self.session.as_ref().is_some_and(|session| session.device.backlog().is_done()) {
            self.hand_over_late(older.life.number);
        }
        if older.waited_for.is_some() {
            self.handle(Input::OlderSettled);
        }
        self.handle(Input::Inherit);
        self.wake();
    }

    /// Marks the stanzas that the older session leaves now: they may come after newer ones.
    fn hand_over_late(&mut self, life: u32) {
        count(&self.coverage.late_handovers);
        let spool = LoginId(u64::from(life) * 1000);
        let left = self.disk.spools.iter().filter(|((login, _), _)| *login == spool).filter_map(|(_, (n, _))| *n);
        let sent = self.open.iter().filter(|n| self.handed[**n].life == Some(life)).copied();
        for n in left.chain(sent).collect::<Vec<_>>() {
            self.handed[n].late = true;
        }
    }

    fn swap(&mut self, older: &mut Older) {
        std::mem::swap(&mut self.session, &mut older.session);
        std::mem::swap(&mut self.life, &mut older.life);
        std::mem::swap(&mut self.disk.line, &mut older.line);
    }

    pub(super) fn older_deadline(&self) -> Option<Instant> {
        let older = self.older.as_ref()?;
        older.session.as_ref().and_then(Session::deadline).into_iter().chain(older.waited_for).min()
    }

    /// Delivers the due timeouts of the older session, and of the newer session's wait for it.
    pub(super) fn older_timeout(&mut self) {
        let now = self.now;
        let due = |older: &mut Older| older.waited_for.take_if(|at| *at <= now).is_some();
        if self.older.as_mut().is_some_and(due) {
            self.handle(Input::OlderSettled);
            self.wake();
        }
        let session = self.older.as_ref().and_then(|older| older.session.as_ref());
        if session.and_then(Session::deadline).is_some_and(|at| at <= now) {
            self.in_older(|world| world.handle(Input::Timeout));
        }
    }

    /// Reports to the older session that its client is gone.
    pub(super) fn older_client_is_lost(&mut self) {
        self.in_older(|world| {
            if let Some(session) = &world.session
                && world.life.attached.take().is_some()
            {
                let attachment = session.attachment();
                world.handle(Input::ClientLost(attachment));
            }
        });
    }

    /// Lets the older session proceed to its end.
    pub(super) fn older_catches_up(&mut self) {
        self.in_older(|world| {
            world.disk_catches_up();
            world.server_reads(usize::MAX);
            world.wake();
            world.disk_catches_up();
        });
    }

    pub(super) fn finish_older(&mut self) {
        for _ in 0..30 {
            if self.older.is_none() || self.broken.is_some() {
                return;
            }
            self.older_catches_up();
            self.pass(Duration::from_millis(500));
        }
        self.check(false, || "an older session does not end".into());
    }

    /// Ends the older session in a crash of the process.
    pub(super) fn crash_older(&mut self, reads: bool) -> Option<Session> {
        let mut older = self.older.take()?;
        self.swap(&mut older);
        // The session must be gone before its server reads on.
        let session = self.session.take();
        self.disk.crash_line();
        self.resolve_leg(reads);
        self.swap(&mut older);
        session
    }

    /// Adds the stanzas that the older session or its job queue has to `held`.
    pub(super) fn older_has(&self, held: &mut HashSet<usize>) {
        let Some(older) = &self.older else { return };
        held.extend(older.line.expects());
        if let Some(session) = &older.session {
            let items = session.device.delivery().queue().iter().chain(session.device.delivery().queue().in_flight());
            held.extend(items.filter_map(|item| number(str_of(item.element.bytes()))));
        }
    }

    /// Returns the lives of all current sessions.
    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        std::iter::once(&self.life).chain(self.older.as_ref().map(|older| &older.life))
    }
}
