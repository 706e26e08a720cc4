//! Sizes of the types that exist once per session, stanza or effect. They must stay small: large rare data is boxed.

use super::{Rig, frame};
use crate::session::queue::Queued;
use crate::session::{Input, Output, Session};
use crate::xml::{Element, Frame, Framer};

#[test]
fn what_every_stanza_is_moved_through_is_no_larger_than_a_stanza() {
    assert!(size_of::<Element>() <= 56, "{}", size_of::<Element>());
    assert!(size_of::<Frame>() <= 56, "{}", size_of::<Frame>());
    assert!(size_of::<Input>() <= 64, "{}", size_of::<Input>());
    assert!(size_of::<Output>() <= 40, "{}", size_of::<Output>());
}

#[test]
fn a_stanza_that_waits_costs_little_beside_its_bytes() {
    assert!(size_of::<Queued>() <= 96, "{}", size_of::<Queued>());
}

#[test]
fn an_idle_session_is_about_two_kilobytes() {
    assert!(size_of::<Session>() <= 2144, "{}", size_of::<Session>());
    assert!(size_of::<Framer>() <= 264, "{}", size_of::<Framer>());
}

#[test]
fn room_for_effects_is_kept_from_one_event_of_a_wake_up_to_the_next_and_not_behind_the_last() {
    let mut rig = Rig::with_push();
    let message = frame("<message from='romeo@example.net/x' id='1'><body>x</body></message>");
    rig.session.handle(rig.now, Input::Upstream(message));
    rig.drain();
    assert_ne!(rig.session.effects.capacity(), 0);
    rig.session.handle(rig.now, Input::Quiet);
    rig.drain();
    assert_eq!(rig.session.effects.capacity(), 0);
}
