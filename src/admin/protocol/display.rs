//! The text form of the daemon's answers.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;

use super::{
    AdminAnswer, DaemonStatus, Forgotten, HandoverStatus, LastPublish, LastVerdict, Ping, PingOutcome,
    RegistrationEntry, Released, Reloaded, Removed, SessionEntry, SessionState, Upgrading, printable,
};
use crate::clock::{self, UnixSecs};

impl fmt::Display for AdminAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Session(session) => session.fmt(f),
            Self::Registration(registration) => registration.fmt(f),
            Self::Ping(ping) => ping.fmt(f),
            Self::Removed(Removed { registrations }) => write!(f, "registrations removed: {registrations}"),
            Self::Released(Released { stanzas }) => write!(f, "stanzas released: {stanzas}"),
            Self::Forgotten(Forgotten { account, devices, registrations, held, live }) => write!(
                f,
                "account {account} deleted: devices {devices}, registrations {registrations}, dark sessions ended \
                    {held}, live sessions kept {live}"
            ),
            Self::Reloaded(reloaded) => reloaded.fmt(f),
            Self::Stopping(_) => f.write_str("draining; the daemon ends when its sessions have ended"),
            Self::Upgrading(Upgrading { from, .. }) => write!(f, "version {from} is being replaced"),
            Self::Node(node) => node.fmt(f),
            Self::NodeDraining(draining) => draining.fmt(f),
            Self::Unreached(node) => node.fmt(f),
            Self::OfNode { node, answer } => {
                if let Self::Status(status) = &**answer {
                    write!(f, "node {node}: {status}")
                } else {
                    write!(f, "{answer}  on node {node}")
                }
            }
            Self::End => Ok(()),
            Self::Failed { reason } => f.write_str(reason),
        }
    }
}

impl fmt::Display for DaemonStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uptime = humantime::format_duration(Duration::from_secs(self.uptime));
        let draining = if self.draining { ", draining" } else { "" };
        writeln!(f, "pushward {}, up {uptime}{draining}", self.version)?;
        writeln!(f, "connections    {}", self.connections)?;
        let Self { live, suspect, dark, queued, spooled, .. } = self;
        writeln!(f, "sessions       {live} live, {suspect} suspect, {dark} dark")?;
        writeln!(f, "accounts       {}", self.accounts)?;
        writeln!(f, "in memory      {queued} stanzas, {}", ByteSize(self.queue_bytes as u64).display().iec())?;
        writeln!(f, "on disk        {spooled} stanzas, {}", ByteSize(self.spool_bytes).display().iec())?;
        write!(f, "wakes waiting  {}", self.wakes_waiting)?;
        if let Some(handover) = &self.handover {
            write!(f, "\nlast handover: {handover}")?;
        }
        self.sasl2_ended.iter().try_for_each(|host| {
            write!(
                f,
                "\nSASL2 ended    {host}: SCRAM of the server depends on its own offers; reload to offer SASL2 again"
            )
        })
    }
}

impl fmt::Display for HandoverStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, ended, millis, at, failed, .. } = self;
        if let Some(reason) = failed {
            write!(f, "failed: {reason}; ")?;
        }
        write!(f, "{kept} sessions kept, {} ended", ended.values().sum::<usize>())?;
        if !ended.is_empty() {
            let reasons: Vec<_> = ended.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            write!(f, " ({})", reasons.join(", "))?;
        }
        write!(
            f,
            ", {} ago, took {}",
            humantime::format_duration(since(clock::unix_secs(), *at)),
            humantime::format_duration(Duration::from_millis(*millis))
        )
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().chain(&self.notes).try_for_each(|line| writeln!(f, "{line}"))?;
        f.write_str(if self.done { "reloaded" } else { "reload failed: the previous configuration stays active" })
    }
}

impl fmt::Display for SessionEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {} since {}", self.jid, self.state, Time(self.since))?;
        if let Some(client) = &self.client {
            write!(f, "  client {client}")?;
        }
        if let Some(login) = &self.login {
            write!(f, "  login {}", shown_login(login))?;
        }
        write!(f, "  queued {}  on disk {}", self.queued, self.spooled)?;
        if self.set_aside > 0 {
            write!(f, "  set aside {}", self.set_aside)?;
        }
        if let Some(push) = &self.push {
            write!(f, "  last push {push}")?;
        }
        if let Some(LastVerdict { verdict, at }) = &self.verdict {
            write!(f, "  last verdict {verdict} {}", Time(*at))?;
        }
        Ok(())
    }
}

/// Returns a login method as it is shown. In JSON, the first profile of SASL is `SASL1`.
fn shown_login(login: &str) -> &str {
    if login == "SASL1" { "SASL" } else { login }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Dark => "dark",
            Self::Suspect => "suspect",
            Self::Live => "live",
        })
    }
}

impl fmt::Display for RegistrationEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, service, state, errors, .. } = self;
        let (resource, node) =
            (printable(self.resource.as_deref().unwrap_or("?")), self.node.as_deref().unwrap_or("-"));
        write!(f, "{account}/{resource}  {service} {node}  session {state}  errors {errors}  last success ")?;
        match self.last_success {
            Some(at) => Time(at).fmt(f)?,
            None => f.write_str("never")?,
        }
        if let Some(since) = self.undelivered_since {
            write!(f, "  unreachable since {}", Time(since))?;
        }
        write!(f, "  last seen {}  by {}", Time(self.last_seen), self.transport.as_deref().unwrap_or("no transport"))?;
        if let Some(last) = &self.last {
            write!(f, "  last {last}")?;
        }
        if let Some(until) = self.bidi_off_until {
            write!(f, "  bidi off until {}: the push service sent more than answers", Time(until))?;
        }
        self.passed_over.iter().try_for_each(|it| write!(f, "  {} skipped: {}", it.transport, it.reason))
    }
}

impl fmt::Display for LastPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_outcome(f, self.outcome, self.condition.as_deref())?;
        let transport = self.transport.as_deref().unwrap_or("no transport");
        write!(f, " by {transport} {} ago", humantime::format_duration(since(clock::unix_secs(), self.at)))
    }
}

/// Returns the time from `at` to `now`, rounded down to a second or, after an hour, to a minute.
fn since(now: UnixSecs, at: UnixSecs) -> Duration {
    let seconds = now.since(at).as_secs();
    Duration::from_secs(if seconds < 3600 { seconds } else { seconds - seconds % 60 })
}

fn write_outcome(f: &mut fmt::Formatter<'_>, outcome: PingOutcome, condition: Option<&str>) -> fmt::Result {
    fmt::Display::fmt(&outcome, f)?;
    condition.map_or(Ok(()), |condition| write!(f, " ({condition})"))
}

impl fmt::Display for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}  ", self.service, self.node.as_deref().unwrap_or("-"))?;
        write_outcome(f, self.outcome, self.condition.as_deref())?;
        if let Some(transport) = &self.transport {
            write!(f, "  by {transport}")?;
        }
        write!(f, "  {} ms", self.millis)
    }
}

impl fmt::Display for PingOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Wait => "wait",
            Self::Refused => "refused",
            Self::Unknown => "sent, outcome unknown",
            Self::NotSent => "not sent",
        })
    }
}

/// A time, displayed as a date.
struct Time(UnixSecs);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The last second of the year 9999, the latest that the date format supports.
        const LAST: UnixSecs = UnixSecs::new(253_402_300_799);
        let time = self.0.min(LAST).to_time().ok_or(fmt::Error)?;
        humantime::format_rfc3339_seconds(time).fmt(f)
    }
}
