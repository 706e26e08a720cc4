// One xmpp.js client, driven by lines of JSON on stdin. It writes its events as lines of JSON to stdout.
//
// The argument is the directory that holds node_modules. The first line identifies it: {"jid", "password", "host", "port",
// "direct"}. The certificate that it trusts is in NODE_EXTRA_CA_CERTS. The orders after it are {"do": "connect"} and
// {"do": "send", "xml": "<iq xmlns='jabber:client' …/>"}. The library reconnects a lost connection.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const modules = pathToFileURL(`${process.argv[2]}/node_modules/`);
const { client, jid, xml } = await import(new URL("@xmpp/client/index.js", modules));
const { default: parse } = await import(new URL("@xmpp/xml/lib/parse.js", modules));

function report(event, fields) {
  console.log(JSON.stringify({ event, ...fields }));
}

function make(who) {
  const { local, domain, resource } = jid(who.jid);
  const xmpp = client({
    // With direct TLS the certificate is checked against the host, otherwise against the domain.
    service: who.direct ? `xmpps://${domain}:${who.port}` : `xmpp://${who.host}:${who.port}`,
    domain,
    resource,
    username: local,
    password: who.password,
    userAgent: xml("user-agent", { id: "d4565fa7-4d72-4749-b3d3-740edbf87770" }),
  });
  xmpp.reconnect.delay = 200;
  xmpp.on("online", (address) => {
    // With Bind 2, the library does not count stanzas sent within this event, and an acknowledgement of one ends the client.
    setImmediate(async () => {
      await xmpp.send(xml("presence"));
      report("online", { jid: address.toString() });
    });
  });
  xmpp.on("disconnect", () => report("disconnected"));
  xmpp.on("error", (error) => report("error", { error: String(error) }));
  xmpp.on("stanza", (stanza) => {
    if (stanza.is("message")) report("message", { body: stanza.getChildText("body") });
    if (stanza.is("iq")) report("iq", { id: stanza.attrs.id, type: stanza.attrs.type });
  });
  xmpp.on("nonza", (element) => {
    if (!element.is("success")) return;
    const resumed = element.getChild("resumed", "urn:xmpp:sm:3") !== undefined;
    report("success", { profile: element.getNS(), resumed });
  });
  xmpp.streamManagement.on("resumed", () => report("resumed"));
  return xmpp;
}

let xmpp;
for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  if (!xmpp) xmpp = make(order);
  // Errors are reported as events.
  else if (order.do === "connect") xmpp.start().catch(() => {});
  else if (order.do === "send") await xmpp.send(parse(order.xml));
  else throw new Error(line);
}
process.exit();
