//! Performs the outputs of the negotiation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{LoginDriver, LoginEvent};
use crate::clock::Instant;
use crate::cluster::directory::NodeAddress;
use crate::cluster::hop::{self, HopError, HopTerms};
use crate::jid::{self, BareJid};
use crate::limits::{ConnectionRefusal, Limit, Stage};
use crate::metrics::{ConnectOutcome, HopOutcome, LoginOutcome};
use crate::net::passed_client::PassedClient;
use crate::net::proxy_protocol::ProxiedClient;
use crate::net::upstream::ConnectTerms;
use crate::relay::login::patience::OperationDeadline;
use crate::relay::snapshot::Authentication;
use crate::secret::Secret;
use crate::session::EndReason;
use crate::session::mechanism_filter::UpstreamWarning;
use crate::session::negotiate::{
    AccountPlace, CloseReason, LocateRequest, LoginInput, LoginOutput, PassedStream, Stop, offered_carbons,
};
use crate::session::sasl::LoginMethod;
use crate::xml::{self, MemoryShare};

/// The time that the directory has to name the owner of an account.
const LOCATE: Duration = Duration::from_secs(2);

impl LoginDriver<'_> {
    /// Performs the outputs. An answer to one of them becomes the next input, once all outputs are performed.
    pub(super) async fn perform(&mut self) {
        loop {
            let mut answer = None;
            while let Some(output) = self.negotiation.poll() {
                if let Some(input) = self.perform_one(output).await {
                    answer = Some(input);
                }
                if self.interrupted.is_some() {
                    return;
                }
            }
            match answer {
                Some(input) => self.negotiation.handle(input),
                None => return,
            }
        }
    }

    async fn perform_one(&mut self, output: LoginOutput) -> Option<LoginInput> {
        match output {
            LoginOutput::ToClient(bytes) => self.client.as_mut()?.write(&bytes),
            LoginOutput::ReplyToClient(bytes) => self.client.as_mut()?.reply(&bytes),
            LoginOutput::ToUpstream(bytes) => self.upstream.as_mut()?.write(&bytes),
            LoginOutput::Connect(host) => return self.connect(&host).await,
            LoginOutput::Answered => self.reach_opened(),
            LoginOutput::Locate(request) => return self.locate(&request).await,
            LoginOutput::PassOn(stream) => return self.pass_on(&stream).await,
            LoginOutput::RoundTripsSaved(saved) => self.relay.metrics().round_trips_saved(saved),
            LoginOutput::Authenticated(method) => self.on_authenticated(method),
            LoginOutput::Claim(account) => self.claim(&account).await,
            LoginOutput::SaslFailed(failure) => self.relay.reports().on_sasl_failure(&failure),
            LoginOutput::LoginFailed => self.relay.guards().logins().failed(Instant::now(), self.addresses.client.ip()),
            LoginOutput::LoginRefused => {
                self.relay.guards().watch().reached(Limit::FailedLoginsPerAddress, self.addresses.client.ip())
            }
            LoginOutput::Restart => {
                self.client.as_mut()?.framer().restart();
                self.upstream.as_mut()?.framer().restart();
            }
            LoginOutput::RestartServer => self.upstream.as_mut()?.framer().restart(),
            LoginOutput::Find(id) => {
                self.count_resumption();
                return self.find(&id).await;
            }
            LoginOutput::HandOver { id, resumption } => {
                return self.hand_over(&id, resumption).await;
            }
            LoginOutput::Release { proof, resource } => {
                if let Some(superseded) = self.relay.registry().held_resource(&proof, &resource) {
                    let relay = self.relay;
                    self.wait_for(
                        relay.accounts().end_session(&superseded, EndReason::Superseded),
                        OperationDeadline::Bounded,
                    )
                    .await;
                }
            }
            LoginOutput::Bound(bound) => {
                self.bound = Some(*bound);
                self.progress.outcome = LoginOutcome::Bound;
                self.done = true;
            }
            LoginOutput::CheckToken { account, proof } => return self.check_token(&account, &proof).await,
            LoginOutput::IssueToken { account, wish, authcid } => {
                return Some(self.issue_token(&account, wish, authcid));
            }
            LoginOutput::RevokeTokens(account) => self.relay.revoke_tokens(&account),
            LoginOutput::UpstreamWarning { host, warning } => self.relay.warnings().warn(host, warning),
            LoginOutput::Close(reason) => {
                self.report_close(reason);
                self.progress.outcome = LoginOutcome::Closed(reason);
                self.done = true;
            }
        }
        None
    }

    /// Logs the end of the login. Peers can cause it without end, so it is logged under its limit, or at level debug.
    fn report_close(&self, reason: CloseReason) {
        let watch = self.relay.guards().watch();
        match reason {
            CloseReason::Timeout => watch.reached(Limit::AuthenticationTimeout, self.addresses.client.ip()),
            CloseReason::ServerSilent => watch.reached(Limit::ServerTimeout, self.addresses.client.ip()),
            CloseReason::ClientClosed
            | CloseReason::ClientError
            | CloseReason::UpstreamClosed
            | CloseReason::UpstreamLost
            | CloseReason::UpstreamError
            | CloseReason::OtherAccount
            | CloseReason::OfferChanged
            | CloseReason::UpstreamWantsTls
            | CloseReason::HostUnknown
            | CloseReason::ResumeRefused
            | CloseReason::StoreLate
            | CloseReason::Crowded
            | CloseReason::TooManyElements
            | CloseReason::LockedOut
            | CloseReason::OwnerUnknown
            | CloseReason::NotPassedOn
            | CloseReason::OtherOwner
            | CloseReason::Shutdown => {}
        }
        tracing::debug!(reason = reason.name(), "connection closed before login");
    }

    /// Applies the limits of a client that has logged in.
    fn on_authenticated(&mut self, method: LoginMethod) {
        self.progress.method = Some(method);
        self.progress.authentication = Authentication::Done;
        if let Some(client) = &mut self.client {
            self.snapshot.admit(client);
        }
    }

    /// Makes this node the owner of an account for the time of the login. Ends the login if another node owns it.
    async fn claim(&mut self, account: &BareJid) {
        let relay = self.relay;
        if relay.store().lease().is_none() {
            return;
        }
        if relay.node_end().is_leaving() {
            self.interrupted = Some(LoginEvent::Stop(Stop::OtherOwner));
            return;
        }
        let claim = relay.store().claim(account);
        match self.wait_for(claim, OperationDeadline::Store).await {
            Some(Ok(ownership)) => self.ownership = Some(ownership),
            Some(Err(error)) => {
                relay.reports().on_not_claimed(&error);
                self.interrupted = Some(LoginEvent::Stop(Stop::OtherOwner));
            }
            // The login ends for another reason.
            None => {}
        }
    }

    /// Finds out which node owns the account of the login.
    async fn locate(&mut self, request: &LocateRequest) -> Option<LoginInput> {
        let relay = self.relay;
        let Some(directory) = relay.directory() else { return Some(LoginInput::Located(AccountPlace::Here)) };
        let asked = timeout(LOCATE, directory.other_node(request));
        let error = match self.wait_for(asked, OperationDeadline::Bounded).await? {
            Ok(Ok(None)) => return Some(LoginInput::Located(AccountPlace::Here)),
            Ok(Ok(Some(owner))) => {
                self.hop.owner = Some(owner);
                return Some(LoginInput::Located(AccountPlace::OtherNode));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {}", humantime::format_duration(LOCATE)),
        };
        relay.metrics().hop(HopOutcome::OwnerUnknown);
        if let Some(suppressed) = relay.guards().watch().refused(ConnectionRefusal::OwnerUnknown) {
            tracing::warn!(error, suppressed, "owner of account unknown: client connection closed");
        }
        Some(LoginInput::Located(AccountPlace::Unknown))
    }

    /// Passes the client's stream on to the node that owns its account. Returns `None` once that node has it, or the login has
    /// ended.
    async fn pass_on(&mut self, stream: &PassedStream) -> Option<LoginInput> {
        if let Some(mut upstream) = self.upstream.take() {
            upstream.write(xml::STREAM_CLOSE);
            self.relay.background().close_gracefully(upstream);
        }
        let snapshot = Arc::clone(&self.snapshot);
        let (Some(owner), Some(tls)) = (self.hop.owner.take(), &snapshot.node_tls) else {
            return Some(LoginInput::NotPassedOn);
        };
        let client = self.client.as_ref()?.stream();
        let proxied = ProxiedClient { addresses: self.addresses, tls: client.tls() };
        let client = PassedClient { proxied, channel: client.channel_binding().map(Secret::new) };
        let write_timeout = snapshot.config.stream_management.write_timeout;
        let terms = HopTerms { write_timeout, limits: snapshot.upstream_limits() };
        let passed = Box::pin(hop::pass_on(tls, &owner, &client, stream, terms));
        let passed = self.wait_for(passed, OperationDeadline::Bounded).await?;
        self.relay.metrics().hop(passed.as_ref().map_or_else(HopError::outcome, |_| HopOutcome::PassedOn));
        match passed {
            Ok(conn) => {
                tracing::debug!(node = %owner.node, "stream passed on to the node that owns the account");
                self.hop.conn = Some(Box::new(conn));
                self.progress.outcome = LoginOutcome::PassedOn;
                self.done = true;
                None
            }
            Err(error) => {
                self.report_hop(&owner, stream, &error);
                Some(LoginInput::NotPassedOn)
            }
        }
    }

    fn report_hop(&self, owner: &NodeAddress, stream: &PassedStream, error: &HopError) {
        if let (HopError::OtherOffer(features), Some(host)) = (error, stream.header.to().and_then(jid::domain)) {
            self.snapshot.settings.fronting.on_other_node(&host, offered_carbons(&features.node()));
        }
        if let Some(suppressed) = self.relay.guards().watch().refused(ConnectionRefusal::NotPassedOn) {
            let (node, address, remedy) = (owner.node, &owner.address, error.remedy());
            tracing::warn!(%node, address, %error, remedy, suppressed, "stream not passed on to the node that owns the account");
        }
    }

    fn reach_opened(&mut self) {
        if let Some(permit) = self.client.as_mut().and_then(|client| client.permit()) {
            permit.reaches(Stage::Opened);
        }
    }

    async fn connect(&mut self, host: &str) -> Option<LoginInput> {
        let snapshot = Arc::clone(&self.snapshot);
        let Some(way) = snapshot.ways.to(host) else {
            return Some(LoginInput::UpstreamLost);
        };
        self.reach_opened();
        let terms = ConnectTerms {
            connect_timeout: self.snapshot.config.limits.timeouts.connect,
            write_timeout: self.snapshot.config.stream_management.write_timeout,
            limits: self.snapshot.upstream_limits(),
            tls: self.client.as_ref().and_then(|client| client.stream().version()),
        };
        let tls = self.client.as_ref().and_then(|client| client.stream().tls());
        let client = ProxiedClient { addresses: self.addresses, tls };
        let connected = self.wait_for(way.connect(&terms, Some(&client)), OperationDeadline::Bounded).await?;
        self.relay
            .metrics()
            .upstream(host, if connected.is_ok() { ConnectOutcome::Connected } else { ConnectOutcome::Failed });
        Some(match connected {
            Ok(mut conn) => {
                if let (Some(wanted), Some(spoken)) = (terms.tls, conn.stream().version())
                    && wanted != spoken
                {
                    self.relay.warnings().warn(host.to_owned(), UpstreamWarning::OtherTls);
                }
                let free = self.snapshot.config.limits.stanzas.client;
                conn.framer().skip_unfit(Some(MemoryShare { free, memory: self.relay.guards().large() }));
                self.upstream = Some(conn);
                LoginInput::Connected(way.leg())
            }
            Err(error) => {
                let (upstream, remedy) = (way.upstream(), error.remedy());
                if let Some(suppressed) = self.relay.guards().watch().refused(ConnectionRefusal::Unreachable) {
                    tracing::warn!(domain = host, %upstream, %error, remedy, suppressed, "upstream server unreachable");
                }
                LoginInput::UpstreamLost
            }
        })
    }
}
