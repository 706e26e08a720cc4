"""One slixmpp client, driven by lines of JSON on stdin. It writes its events as lines of JSON to stdout.

The first line identifies it: {"jid", "password", "host", "port", "ca", "direct"}. The orders after it are
{"do": "connect"}, with "port" if that has changed, {"do": "abort"} and {"do": "send", "xml": "<iq xmlns='jabber:client' …/>"}.
"""

import asyncio
import json
import sys
from pathlib import Path

from slixmpp import ClientXMPP, Iq, Message
from slixmpp.xmlstream import ET
from slixmpp.xmlstream.handler import Callback
from slixmpp.xmlstream.matcher import MatchXPath


def report(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Client(ClientXMPP):
    def __init__(self, who):
        super().__init__(who["jid"], who["password"])
        self.who = who
        self.enable_direct_tls = who["direct"]
        self.enable_starttls = who["ca"] is not None and not who["direct"]
        self.enable_plaintext = who["ca"] is None
        if who["ca"] is None:
            self["feature_mechanisms"].unencrypted_plain = True
        else:
            self.ca_certs = Path(who["ca"])
        for plugin in ("xep_0030", "xep_0198", "xep_0199"):
            self.register_plugin(plugin)
        self.add_event_handler("session_start", self.started)
        self.add_event_handler("session_resumed", lambda _: report("resumed"))
        self.add_event_handler("sm_enabled", lambda _: report("sm_enabled"))
        self.add_event_handler("sm_failed", lambda _: report("sm_failed"))
        self.add_event_handler("tls_success", lambda _: report("tls_success"))
        self.add_event_handler("disconnected", lambda _: report("disconnected"))
        self.add_event_handler("connection_failed", lambda error: report("connection_failed", error=str(error)))
        self.add_event_handler("failed_all_auth", lambda _: report("failed_all_auth"))
        self.add_event_handler("ssl_invalid_chain", lambda error: report("ssl_invalid_chain", error=str(error)))
        self.add_event_handler("message", lambda message: report("message", body=message["body"]))
        self.register_handler(
            Callback("every iq", MatchXPath("{jabber:client}iq"), lambda iq: report("iq", id=iq["id"], type=iq["type"], xml=str(iq)))
        )

    def started(self, _):
        self.send_presence()
        report("online", jid=self.boundjid.full)

    def obey(self, order):
        match order["do"]:
            case "connect":
                self.who["port"] = order.get("port", self.who["port"])
                self.connect(self.who["host"], self.who["port"])
            case "abort":
                self.abort()
            case "send":
                # A stanza object instead of bytes, so that slixmpp's own stream management counts it.
                element = ET.fromstring(order["xml"])
                stanza = Message if element.tag == "{jabber:client}message" else Iq
                self.send(stanza(self, xml=element))
            case other:
                raise ValueError(other)


async def main():
    loop = asyncio.get_running_loop()
    stdin = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    client = Client(json.loads(await stdin.readline()))
    while line := await stdin.readline():
        client.obey(json.loads(line))


asyncio.run(main())
