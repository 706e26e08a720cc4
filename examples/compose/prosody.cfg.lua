-- Prosody behind Pushward, for a first try. Only Pushward connects to it, over loopback.

modules_enabled = {
	"roster"; "saslauth"; "disco"; "carbons"; "pep"; "private"; "blocklist"; "vcard4"; "vcard_legacy"; "mam"; "ping"; "version";
}
-- There are no other servers in this example.
modules_disabled = { "s2s" }

c2s_ports = { 5322 }
c2s_interfaces = { "127.0.0.1" }
c2s_direct_tls_ports = {}
-- TLS ends at Pushward.
c2s_require_encryption = false
allow_unencrypted_plain_auth = true

authentication = "internal_hashed"
archive_expires_after = "1w"
data_path = "/var/lib/prosody"
pidfile = "/var/lib/prosody/prosody.pid"
log = { info = "*console" }

VirtualHost "localhost"
