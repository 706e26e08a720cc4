sed -i -e '/^    port: 5222$/{s/5222/5322/;n;s/"::"/"127.0.0.1"/}' \
    -e '/^    port: 5223$/{s/5223/5323/;n;s/"::"/"127.0.0.1"/}' \
    -e 's/^    starttls_required: true$/    starttls: false/' /etc/ejabberd/ejabberd.yml
dpkg --compare-versions "$(dpkg-query -f '${Version}' -W ejabberd)" lt 24.10 ||
    sed -i 's/^    starttls: false$/&\n    allow_unencrypted_sasl2: true/' /etc/ejabberd/ejabberd.yml
systemctl restart ejabberd
