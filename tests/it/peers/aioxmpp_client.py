"""One aioxmpp client, driven by lines of JSON on stdin. It writes its events as lines of JSON to stdout.

The first line identifies it: {"jid", "password", "host", "port", "ca", "direct"}. The orders after it are
{"do": "connect"} and {"do": "send", "xml": "<iq xmlns='jabber:client' …/>"}, for a chat message or an <enable/> of push.
"""

import asyncio
import json
import sys
from datetime import timedelta
from xml.etree import ElementTree

import aioxmpp
import aioxmpp.connector
import aioxmpp.dispatcher
import aioxmpp.node
import aioxmpp.security_layer
import aioxmpp.xso as xso
import OpenSSL.SSL

PUSH = "urn:xmpp:push:0"


@aioxmpp.IQ.as_payload_class
class Enable(xso.XSO):
    TAG = (PUSH, "enable")
    jid = xso.Attr("jid")
    node = xso.Attr("node")


async def nowhere_else(*_, **__):
    return []


# Otherwise aioxmpp would look for other addresses when the given one does not answer.
aioxmpp.node.discover_connectors = nowhere_else


class DirectTls(aioxmpp.connector.XMPPOverTLSConnector):
    """Direct TLS. Without this, an aborted handshake ends the client, because its error is no ConnectionError."""

    async def connect(self, *arguments, **options):
        try:
            return await super().connect(*arguments, **options)
        except (OpenSSL.SSL.Error, asyncio.InvalidStateError) as error:
            raise ConnectionError(str(error)) from error


def report(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Client:
    def __init__(self, who):
        def context():
            made = aioxmpp.security_layer.default_ssl_context()
            made.load_verify_locations(who["ca"])
            return made

        base = aioxmpp.make_security_layer(who["password"])
        security = base._replace(
            ssl_context_factory=context, certificate_verifier_factory=aioxmpp.security_layer.PKIXCertificateVerifier
        )
        connector = DirectTls() if who["direct"] else aioxmpp.connector.STARTTLSConnector()
        self.client = aioxmpp.PresenceManagedClient(
            aioxmpp.JID.fromstr(who["jid"]), security, override_peer=[(who["host"], who["port"], connector)]
        )
        self.client.backoff_start = self.client.backoff_cap = timedelta(milliseconds=200)
        self.client.on_stream_established.connect(lambda: report("online", jid=str(self.client.local_jid)))
        self.client.on_stream_resumed.connect(lambda: report("resumed"))
        self.client.on_failure.connect(lambda error: report("failure", error=str(error)))
        dispatcher = self.client.summon(aioxmpp.dispatcher.SimpleMessageDispatcher)
        dispatcher.register_callback(None, None, self.received)

    def received(self, message):
        if message.body:
            report("message", body=message.body.any())

    async def obey(self, order):
        if order["do"] == "connect":
            self.client.presence = aioxmpp.PresenceState(available=True)
            return
        element = ElementTree.fromstring(order["xml"])
        if element.tag == "{jabber:client}message":
            message = aioxmpp.Message(
                type_=aioxmpp.MessageType.CHAT, to=aioxmpp.JID.fromstr(element.get("to")), id_=element.get("id")
            )
            message.body[None] = element.findtext("{jabber:client}body")
            await self.client.send(message)
        else:
            enable = Enable()
            wanted = element.find(f"{{{PUSH}}}enable")
            enable.jid, enable.node = wanted.get("jid"), wanted.get("node")
            request = aioxmpp.IQ(type_=aioxmpp.IQType.SET, payload=enable, id_=element.get("id"))
            try:
                await self.client.send(request)
                report("iq", id=element.get("id"), type="result")
            except aioxmpp.errors.XMPPError as error:
                report("iq", id=element.get("id"), type="error", error=str(error))


async def main():
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    client = Client(json.loads(await stdin.readline()))
    while line := await stdin.readline():
        await client.obey(json.loads(line))


asyncio.run(main())
