//! The states of a login.

use super::authenticating::{Authenticating, SaslStep};
use super::binding::{AwaitingBind, BindStep};
use super::contract::{LoginOutput, ServerAnswer, TokenRefusal};
use super::end::LoginEnd;
use super::fronted::{FrontedLogin, FrontedStep};
use super::legs::Legs;
use super::opening::OpeningLogin;
use super::restart::{Reopening, Restarting};
use super::streams::LoginClientStream;
use super::welcome::{HandingOver, LoginSuccess, Welcomed};
use crate::push::fast::IssuedToken;
use crate::session::Settings;

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
    HandingOver(HandingOver),
    /// SASL2's `<success/>` was passed on: the server's features are awaited.
    Welcomed(Welcomed),
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

    /// Takes the refusal of a token.
    pub(super) fn on_token_refused(&mut self, refusal: TokenRefusal, legs: &mut Legs) {
        if let Self::Authenticating(sasl) = self {
            sasl.on_token_refused(refusal, legs);
        }
    }

    /// Takes the token that was issued for a login.
    pub(super) fn on_token_issued(&mut self, issued: Option<IssuedToken>) {
        if let Self::Fronted(fronted) = self {
            fronted.on_token(issued);
        }
    }

    /// Returns the state that follows an element of the server during SASL.
    pub(super) fn after_sasl(verdict: SaslStep, settings: &Settings, legs: &mut Legs) -> Result<Self, LoginEnd> {
        match verdict {
            SaslStep::GoesOn(sasl) => Ok(Self::Authenticating(Box::new(sasl))),
            SaslStep::Restart(restarting) => Ok(Self::Restarting(restarting)),
            SaslStep::Fronted(fronted) => Ok(Self::Fronted(fronted)),
            SaslStep::Sasl2Success(success) => match success.admit(settings, legs)? {
                LoginSuccess::HandingOver(handing_over) => Ok(Self::HandingOver(handing_over)),
                LoginSuccess::Welcomed(welcomed) => Ok(Self::Welcomed(*welcomed)),
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
