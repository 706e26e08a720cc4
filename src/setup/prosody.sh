cat > /etc/prosody/pushward.cfg.lua <<'END'
c2s_ports = { 5322 }; c2s_interfaces = { "127.0.0.1" }   -- only Pushward connects here
c2s_direct_tls_ports = {}                                -- 5223 is Pushward's now
c2s_require_encryption = false                           -- TLS ends at Pushward, on the same machine
allow_unencrypted_plain_auth = true
END
sed -i '0,/^VirtualHost/s//Include "pushward.cfg.lua"\n&/' /etc/prosody/prosody.cfg.lua
systemctl restart prosody
