//! The check of the push services: whether notifications can be sent, over which transport, and the reason if not.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::report::Report;
use crate::admin::client::{self, AskError};
use crate::admin::protocol::printable;
use crate::config::{Config, Problem, Transport};
use crate::exit;
use crate::jid::Jid;
use crate::net::certificate;
use crate::publish::probe::{Probe, ProbeContext, ProbeFinding};
use crate::store;

/// The limit for tested pairs of a host and a push service. Over it, those with the most registrations are tested.
const PAIRS: usize = 64;
/// The number of pairs that are tested at the same time.
const AT_ONCE: usize = 16;
/// The time limit for all tests together.
const PATIENCE: Duration = Duration::from_secs(90);

/// A host, and a push service for its users.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    host: String,
    service: Jid,
}

/// The results of the tried transports, in order.
type Findings = Vec<(Transport, ProbeFinding)>;

/// Tests the push services in the configuration, and those with registrations.
pub(super) async fn services(report: &mut Report, path: &Path, config: &Arc<Config>) {
    let (registered, context) = registered(report, config).await;
    let pairs = pairs(report, config, registered);
    let keys: HashMap<_, _> = config
        .hosts
        .iter()
        .filter_map(|host| certificate::load(host).ok().map(|key| (host.domain.clone(), key)))
        .collect();
    let probe = match Probe::new(Arc::clone(config), keys, context) {
        Ok(probe) => Arc::new(probe),
        Err(error) => {
            let remedy =
                "name a PEM file with the certificate of the authority that issued the push service's certificate";
            return report.problem(&problem(path, "[[push.route]] ca", error.to_string(), remedy), exit::CONFIG);
        }
    };
    for (pair, findings) in try_all(&probe, config, pairs).await {
        judge(report, path, &pair, &findings);
    }
}

/// Returns the pairs that have registrations, each with their number, if a daemon can be asked.
async fn registered(report: &mut Report, config: &Config) -> (BTreeMap<Pair, usize>, ProbeContext) {
    let mut pairs = BTreeMap::new();
    let context = match client::registrations(&config.access()).await {
        Ok(registrations) => {
            registrations.iter().for_each(|r| count(&mut pairs, r.account.domain(), &r.service));
            report.fine(format_args!("push services: {}, according to the running daemon", summary(&pairs)));
            return (pairs, ProbeContext::Daemon);
        }
        Err(AskError::Nobody(_)) => ProbeContext::Alone,
        Err(error) => {
            report.fine(format_args!("push services: cannot list the registered ones: {error}"));
            return (pairs, ProbeContext::Daemon);
        }
    };
    let directory = config.state.clone();
    match tokio::task::spawn_blocking(move || store::peek(&directory)).await {
        Ok(Ok(Some(accounts))) => {
            for (account, state) in &accounts {
                let domain = account.domain();
                state.registrations.iter().for_each(|r| count(&mut pairs, domain, &r.target.service));
            }
            report.fine(format_args!(
                "push services: {}, according to the database; the daemon is not running",
                summary(&pairs)
            ));
        }
        Ok(Ok(None)) => {
            report.fine("push services: none registered; the daemon is not running, and there is no database yet")
        }
        Ok(Err(error)) => report.fine(format_args!(
            "push services: cannot list the registered ones: the daemon is not running, and {error}"
        )),
        Err(error) => report.fine(format_args!("push services: cannot list the registered ones: {error}")),
    }
    (pairs, context)
}

fn count(pairs: &mut BTreeMap<Pair, usize>, host: &str, service: &Jid) {
    // The JID of a user or resource is tested as its domain.
    let pair = Pair { host: host.to_owned(), service: Jid::new(service.domain()) };
    *pairs.entry(pair).or_default() += 1;
}

fn summary(pairs: &BTreeMap<Pair, usize>) -> String {
    match pairs.values().sum::<usize>() {
        0 => "none registered".to_owned(),
        registrations => format!("registrations {registrations}"),
    }
}

/// Returns the pairs to test: those in the configuration for every host, and those with the most registrations.
fn pairs(report: &mut Report, config: &Config, registered: BTreeMap<Pair, usize>) -> Vec<Pair> {
    let named = config.push.settings.services.iter().chain(config.push.routes.iter().map(|route| &route.domain));
    let named: Vec<Jid> = named.map(|domain| Jid::new(domain)).collect();
    let mut wanted = registered;
    for host in &config.hosts {
        for service in &named {
            // This puts them first.
            wanted.insert(Pair { host: host.domain.clone(), service: service.clone() }, usize::MAX);
        }
    }
    // Leaves out hosts that are not served any more, and push services on a served domain: those are only reached through
    // sessions.
    wanted.retain(|Pair { host, service }, _| {
        let domain = service.domain();
        config.hosts.iter().any(|own| own.domain == *host) && config.hosts.iter().all(|own| own.domain != domain)
    });
    wanted.retain(|Pair { host, service }, _| {
        let allowed = config.push.allows(service);
        if !allowed {
            report.fine(format_args!("{service}, from {host}: not allowed by [push] services"));
        }
        allowed
    });
    let mut ordered: Vec<_> = wanted.into_iter().collect();
    ordered.sort_by_key(|(_, registrations)| std::cmp::Reverse(*registrations));
    if ordered.len() > PAIRS {
        report.fine(format_args!("{} push services with few registrations were not tested", ordered.len() - PAIRS));
    }
    ordered.into_iter().take(PAIRS).map(|(pair, _)| pair).collect()
}

/// Tests each pair over each transport, in order. Several pairs are tested at the same time.
async fn try_all(probe: &Arc<Probe>, config: &Arc<Config>, pairs: Vec<Pair>) -> Vec<(Pair, Findings)> {
    let deadline = Instant::now() + PATIENCE;
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (index, Pair { host, service }) in pairs.iter().cloned().enumerate() {
        let (probe, config, permits) = (Arc::clone(probe), Arc::clone(config), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let mut findings = Findings::new();
            for transport in config.push.transports.iter().copied() {
                let tried = timeout_at(deadline, probe.try_transport(transport, &host, &service)).await;
                let late = || ProbeFinding::Untried(format!("the test did not finish within {PATIENCE:?}"));
                findings.push((transport, tried.unwrap_or_else(|_| late())));
            }
            (index, findings)
        });
    }
    let mut findings = vec![Findings::new(); pairs.len()];
    while let Some(done) = tasks.join_next().await {
        if let Ok((index, found)) = done
            && let Some(slot) = findings.get_mut(index)
        {
            *slot = found;
        }
    }
    pairs.into_iter().zip(findings).collect()
}

/// Reports a problem if no transport reaches the push service. It is not a problem if only some do not.
fn judge(report: &mut Report, path: &Path, Pair { host, service }: &Pair, findings: &Findings) {
    let mut unusable = true;
    for (transport, finding) in findings {
        let at = format!("{service}, from {host}: {}", transport.name());
        match finding {
            ProbeFinding::Goes(seen) => report.fine(printable(&format!("{at}: {seen}"))),
            ProbeFinding::Untried(why) => report.fine(format_args!("{at}: {why}")),
            ProbeFinding::Unfit(why) => report.fine(format_args!("{at} {why}")),
            ProbeFinding::Fails(why) => report.fine(printable(&format!("{at} fails: {why}"))),
            ProbeFinding::Absent => {}
        }
        unusable &= !matches!(finding, ProbeFinding::Goes(_) | ProbeFinding::Untried(_));
    }
    if unusable {
        let what = format!("no transport reaches {service} from {host}");
        let remedy = "correct one of the problems above, or add \"session\"";
        report.problem(&problem(path, "[push] transports", what, remedy), exit::UNAVAILABLE);
    }
}

fn problem(path: &Path, key: &str, what: String, remedy: &str) -> Problem {
    Problem { file: path.to_owned(), line: 0, key: key.to_owned(), what, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(findings: &[(Transport, ProbeFinding)], exit: u8, lines: usize) {
        let mut report = Report::default();
        let pair = Pair { host: "example.org".to_owned(), service: "push.example".parse().unwrap() };
        judge(&mut report, Path::new("config.toml"), &pair, &findings.to_vec());
        assert_eq!((report.exit(), report.lines.len()), (exit, lines), "{report}");
    }

    #[test]
    fn a_push_service_is_a_problem_only_if_no_transport_may_reach_it() {
        use Transport::{Component, S2s, Session};
        let fails = || ProbeFinding::Fails("why; remedy".to_owned());
        let untried = || ProbeFinding::Untried("why".to_owned());
        check(&[(S2s, ProbeFinding::Goes("there".to_owned())), (Component, fails())], 0, 2);
        check(&[(S2s, fails()), (Component, ProbeFinding::Absent), (Session, untried())], 0, 2);
        check(&[(S2s, fails()), (Component, ProbeFinding::Absent)], exit::UNAVAILABLE, 2);
        check(&[(S2s, ProbeFinding::Unfit("is not for it".to_owned()))], exit::UNAVAILABLE, 2);
    }

    #[test]
    fn services_that_are_named_come_first_and_those_of_nobody_here_are_left_out() {
        let text = "[[host]]\ndomain = 'example.org'\n[push]\nservices = ['a.example', 'b.example', 'example.org']\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap();
        let mut registered = BTreeMap::new();
        for (host, service) in [
            ("example.org", "b.example"),
            ("example.org", "bot@example.org"),
            ("gone.example", "a.example"),
            ("example.org", "c.example/resource"),
        ] {
            count(&mut registered, host, &service.parse().unwrap());
        }
        let mut report = Report::default();
        let pairs = pairs(&mut report, &config, registered);
        let services: Vec<_> = pairs.iter().map(|Pair { host, service }| format!("{host} {service}")).collect();
        assert_eq!(services, ["example.org a.example", "example.org b.example"]);
        assert_eq!(report.lines, ["c.example, from example.org: not allowed by [push] services"]);
    }
}
