//! Performs the outputs of the negotiation.

use std::sync::Arc;

use super::LoginDriver;
use crate::clock::Instant;
use crate::limits::{ConnectionRefusal, Limit, Stage};
use crate::metrics::{ConnectOutcome, LoginOutcome};
use crate::net::proxy_protocol;
use crate::net::upstream::ConnectTerms;
use crate::relay::login::patience::OperationDeadline;
use crate::relay::snapshot::Authentication;
use crate::session::EndReason;
use crate::session::mechanism_filter::UpstreamWarning;
use crate::session::negotiate::{AccountPlace, CloseReason, LoginInput, LoginOutput};
use crate::session::sasl::LoginMethod;
use crate::xml::MemoryShare;

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
            LoginOutput::Locate(_) => return Some(LoginInput::Located(AccountPlace::Here)),
            LoginOutput::PassOn(_) => return Some(LoginInput::NotPassedOn),
            LoginOutput::RoundTripsSaved(saved) => self.relay.metrics().round_trips_saved(saved),
            LoginOutput::Authenticated(method) => self.on_authenticated(method),
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
        let client = proxy_protocol::ProxiedClient { addresses: self.addresses, tls };
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
