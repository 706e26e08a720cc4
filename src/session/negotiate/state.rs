//! The states of a login.

use super::authenticating::{Authenticating, SaslStep};
use super::binding::{AwaitingBind, BindStep};
use super::contract::{Ended, Lockout, LoginOutput, ServerAnswer, TokenRefusal};
use super::end::LoginEnd;
use super::fronted::{FrontedLogin, FrontedStep};
use super::legs::Legs;
use super::opening::OpeningLogin;
use super::owner::{AccountPlace, ClientBytes};
use super::proof::HeldSession;
use super::restart::{Reopening, Restarting};
use super::streams::LoginClientStream;
use super::welcome::{HandingOver, LoginSuccess, Welcomed};
use crate::push::fast::IssuedToken;
use crate::session::Settings;
use crate::xml::{Node, ns};

/// The progress of a login.
#[derive(Debug)]
pub(super) enum LoginState {
    /// The client's header is awaited.
    Start,
    /// The server is being connected.
    Connecting(LoginClientStream),
    /// The server's header and features are awaited.
    Opening(OpeningLogin),
    /// The client authenticates.
    Authenticating(Box<Authenticating>),
    /// A held session gets the connection. If that fails, the client gets this `<success/>`.
    HandingOver(Box<HandingOver>),
    /// SASL2's `<success/>` was passed on: the server's features are awaited.
    Welcomed(Box<Welcomed>),
    /// SASL2 in front of a server that lacks it: the client waits for its `<success/>`.
    Fronted(Box<FrontedLogin>),
    /// SASL's `<success/>` was passed on: the client restarts its stream.
    Restarting(Restarting),
    /// The restart was passed on: the server's header and features are awaited.
    Reopening(Reopening),
    /// The client binds or resumes.
    Binding(Box<AwaitingBind>),
    /// The connection was handed over, bound or closed.
    Done,
}

impl LoginState {
    /// Returns whether the client's next frame can be taken now.
    pub(super) fn can_read_client(&self) -> bool {
        match self {
            Self::Start | Self::Restarting(_) => true,
            Self::Authenticating(sasl) => sasl.can_read_client(),
            Self::Binding(binding) => binding.can_read_client(),
            Self::Connecting(_)
            | Self::Opening(_)
            | Self::HandingOver(_)
            | Self::Welcomed(_)
            | Self::Fronted(_)
            | Self::Reopening(_)
            | Self::Done => false,
        }
    }

    /// The answer that the server has to send next, if the login waits for the server.
    pub(super) fn awaits(&self) -> Option<ServerAnswer> {
        match self {
            Self::Opening(opening) => Some(opening.awaits()),
            Self::Authenticating(sasl) => sasl.awaits(),
            Self::Welcomed(_) => Some(ServerAnswer::Features),
            Self::Fronted(fronted) => fronted.awaits(),
            Self::Reopening(reopening) => Some(reopening.awaits()),
            Self::Binding(binding) => binding.awaits(),
            Self::Start | Self::Connecting(_) | Self::HandingOver(_) | Self::Restarting(_) | Self::Done => None,
        }
    }

    /// Returns whether the server has accepted the login.
    pub(super) fn is_authenticated(&self) -> bool {
        match self {
            Self::Start | Self::Connecting(_) | Self::Opening(_) | Self::Authenticating(_) => false,
            Self::HandingOver(_)
            | Self::Welcomed(_)
            | Self::Fronted(_)
            | Self::Restarting(_)
            | Self::Reopening(_)
            | Self::Binding(_)
            | Self::Done => true,
        }
    }

    /// Takes the answer to the look-up of an owner. `own` has the bytes of the client.
    pub(super) fn on_located(
        &mut self,
        place: AccountPlace,
        lockout: Lockout,
        own: &mut ClientBytes,
        legs: &mut Legs,
    ) -> Result<(), LoginEnd> {
        let Self::Authenticating(sasl) = self else { return Ok(()) };
        match place {
            _ if !sasl.is_locating() => {}
            AccountPlace::Here => {
                own.on_taken();
                sasl.on_located_here(lockout, legs)?;
            }
            AccountPlace::OtherNode => {
                let passed = own.passed(sasl.pass_on()).ok_or(LoginEnd::NotPassedOn)?;
                legs.out(LoginOutput::PassOn(Box::new(passed)));
            }
            AccountPlace::Unknown => return Err(LoginEnd::OwnerUnknown),
        }
        Ok(())
    }

    /// Takes the answer to the lookup of a session.
    pub(super) fn on_found(
        &mut self,
        found: Result<HeldSession, Option<Ended>>,
        legs: &mut Legs,
    ) -> Result<(), LoginEnd> {
        match self {
            Self::Authenticating(sasl) => sasl.on_found(found, legs),
            Self::Binding(binding) => binding.on_found(found, legs)?,
            Self::Start
            | Self::Connecting(_)
            | Self::Opening(_)
            | Self::HandingOver(_)
            | Self::Welcomed(_)
            | Self::Fronted(_)
            | Self::Restarting(_)
            | Self::Reopening(_)
            | Self::Done => {}
        }
        Ok(())
    }

    /// Takes the notice that a session ended before it got the connection.
    pub(super) fn on_gone(
        mut self,
        ended: Option<Ended>,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<Self, LoginEnd> {
        match &mut self {
            Self::Authenticating(sasl) => sasl.check_token(legs),
            Self::Fronted(fronted) => fronted.on_gone(ended, legs),
            Self::Binding(binding) => binding.on_gone(ended, legs)?,
            Self::HandingOver(_) => {
                let Self::HandingOver(handing_over) = self else { return Ok(self) };
                let welcomed = handing_over.on_gone(ended, settings, legs)?;
                return Ok(Self::Welcomed(Box::new(welcomed)));
            }
            Self::Start
            | Self::Connecting(_)
            | Self::Opening(_)
            | Self::Welcomed(_)
            | Self::Restarting(_)
            | Self::Reopening(_)
            | Self::Done => {}
        }
        Ok(self)
    }

    /// Takes the refusal of a token.
    pub(super) fn on_token_refused(&mut self, refusal: TokenRefusal, legs: &mut Legs) {
        if let Self::Authenticating(sasl) = self {
            sasl.on_token_refused(refusal, legs);
        }
    }

    /// Takes the token that was issued for a login.
    pub(super) fn on_token_issued(
        self,
        issued: Option<IssuedToken>,
        settings: &Settings,
        legs: &mut Legs,
    ) -> Result<Self, LoginEnd> {
        let Self::Fronted(fronted) = self else { return Ok(self) };
        Ok(Self::after_fronted(fronted.on_token(issued, settings, legs)?, legs))
    }

    /// Takes a stream error of the server, which was passed on. RFC 6120 §4.9: some mean that the account is not trusted any more.
    pub(super) fn on_stream_error(self, error: &Node<'_>, legs: &mut Legs) -> Result<Self, LoginEnd> {
        let account = match &self {
            Self::Fronted(fronted) => fronted.account().cloned(),
            Self::Restarting(restarting) => restarting.account(),
            Self::Reopening(reopening) => reopening.account(),
            Self::Binding(binding) => binding.account(),
            Self::Start
            | Self::Connecting(_)
            | Self::Opening(_)
            | Self::Authenticating(_)
            | Self::HandingOver(_)
            | Self::Welcomed(_)
            | Self::Done => None,
        };
        let ends = ["not-authorized", "policy-violation", "reset"];
        let is_ended =
            error.children().any(|condition| condition.ns() == ns::STREAM_ERRORS && ends.contains(&condition.name()));
        if let Some(account) = account.filter(|_| is_ended) {
            legs.out(LoginOutput::RevokeTokens(account));
        }
        // The client waits for one answer, which it cannot get any more.
        if matches!(self, Self::Fronted(_)) { Err(LoginEnd::ServerClosed) } else { Ok(self) }
    }

    /// Returns the state that follows an element of the server during SASL.
    pub(super) fn after_sasl(verdict: SaslStep, settings: &Settings, legs: &mut Legs) -> Result<Self, LoginEnd> {
        match verdict {
            SaslStep::GoesOn(sasl) => Ok(Self::Authenticating(sasl)),
            SaslStep::Restart(restarting) => Ok(Self::Restarting(*restarting)),
            SaslStep::Fronted(fronted) => Ok(Self::Fronted(fronted)),
            SaslStep::Sasl2Success(success) => match success.admit(settings, legs)? {
                LoginSuccess::HandingOver(handing_over) => Ok(Self::HandingOver(handing_over)),
                LoginSuccess::Welcomed(welcomed) => Ok(Self::Welcomed(welcomed)),
            },
        }
    }

    /// Returns the state that follows an event of a fronted login.
    pub(super) fn after_fronted(step: FrontedStep, legs: &mut Legs) -> Self {
        match step {
            FrontedStep::GoesOn(fronted) => Self::Fronted(fronted),
            FrontedStep::Welcomed(step) => Self::after_bind(step, legs),
        }
    }

    /// Returns the state that follows an event during the bind.
    pub(super) fn after_bind(step: BindStep, legs: &mut Legs) -> Self {
        match step {
            BindStep::Unbound(binding) => Self::Binding(binding),
            BindStep::Session(bound) => {
                legs.out(LoginOutput::Bound(bound));
                Self::Done
            }
        }
    }
}
