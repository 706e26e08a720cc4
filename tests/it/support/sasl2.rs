//! SASL2, Bind 2 and FAST of the scripted server. It accepts every password, and only the right token.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::Element;
use super::stub::Seen;

/// The features before authentication.
pub(super) const OFFER: &str = "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-1</mechanism>\
     <mechanism>PLAIN</mechanism><inline><bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/>\
     <feature var='urn:xmpp:csi:0'/></inline></bind><fast xmlns='urn:xmpp:fast:0' tls-0rtt='true'>\
     <mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication>\
     <mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>PLAIN</mechanism></mechanisms>";

/// Returns the token that the server gives a user's device.
pub(crate) fn token(user: &str, agent: &str) -> String {
    format!("secret-of-{user}-{agent}")
}

/// Returns the client's first message of `HT-SHA-256-NONE` (XEP-0484 §3.3).
pub(crate) fn hashed_token(user: &str, token: &str) -> String {
    let proof = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes()), b"Initiator");
    BASE64.encode([user.as_bytes(), b"\0", proof.as_ref()].concat())
}

/// Returns the server's answer. `after` are the features that follow a success.
pub(super) fn answer(seen: &mut Seen, xml: &str, after: &str) -> Option<String> {
    if xml.starts_with("<authenticate ") {
        seen.authenticates.push(xml.to_owned());
        return Some(authenticate(seen, xml, after));
    }
    if xml.starts_with("<response xmlns='urn:xmpp:sasl:2'") {
        return Some(success(seen, after));
    }
    None
}

fn authenticate(seen: &mut Seen, xml: &str, after: &str) -> String {
    let request = Element::parse(xml);
    let initial = BASE64.decode(&request.child("initial-response").expect("an initial response").text).unwrap();
    let agent = agent(&request);
    match request.attribute("mechanism").unwrap() {
        "SCRAM-SHA-1" => {
            let first = String::from_utf8(initial).unwrap();
            let user = first.split("n=").nth(1).unwrap().split(',').next().unwrap();
            seen.users.push(user.to_owned());
            let challenge = BASE64.encode("r=clientserver,s=c2FsdA==,i=4096");
            format!("<challenge xmlns='urn:xmpp:sasl:2'>{challenge}</challenge>")
        }
        "HT-SHA-256-NONE" => {
            let user = String::from_utf8(initial.split(|byte| *byte == 0).next().unwrap().to_vec()).unwrap();
            if BASE64.encode(initial) != hashed_token(&user, &token(&user, &agent)) {
                return "<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
                    .into();
            }
            seen.users.push(user);
            success(seen, after)
        }
        _ => {
            let user = String::from_utf8(initial).unwrap().split('\0').nth(1).unwrap().to_owned();
            seen.users.push(user);
            success(seen, after)
        }
    }
}

/// Returns the success for the latest user, with the results of the latest `<authenticate/>`, and the features.
fn success(seen: &mut Seen, after: &str) -> String {
    let request = Element::parse(seen.authenticates.last().unwrap());
    let (user, agent) = (seen.users.last().unwrap().clone(), agent(&request));
    let mut jid = format!("{user}@localhost");
    let mut inline = String::new();
    if let Some(bind) = request.child("bind") {
        let tag = bind.child("tag").map_or("made-up", |tag| tag.text.as_str());
        jid = format!("{jid}/{tag}~{}", agent.get(..4).unwrap_or_default());
        seen.bound = Some(jid.clone());
        let carbons = bind.children.iter().any(|child| child.name == "enable" && child.ns == "urn:xmpp:carbons:2");
        let carbons = if carbons { "<enabled xmlns='urn:xmpp:carbons:2'/>" } else { "" };
        inline = format!("<bound xmlns='urn:xmpp:bind:0'>{carbons}</bound>");
    }
    if request.child("request-token").or(request.child("fast")).is_some() {
        let token = token(&user, &agent);
        inline.push_str(&format!("<token xmlns='urn:xmpp:fast:0' expiry='2099-01-01T00:00:00Z' token='{token}'/>"));
    }
    format!(
        "<success xmlns='urn:xmpp:sasl:2'><additional-data>dj1zZXJ2ZXI=</additional-data>\
         <authorization-identifier>{jid}</authorization-identifier>{inline}</success>\
         <stream:features>{after}</stream:features>"
    )
}

fn agent(request: &Element) -> String {
    request.child("user-agent").and_then(|agent| agent.attribute("id")).unwrap_or_default().to_owned()
}
